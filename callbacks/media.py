"""The one way from callbacks to text, pictures and sound in a logger.

Loggers differ in what they take: TensorBoard's writer has `add_text`, `add_image` and `add_audio`, a CSV file has none.
A logger without the method is passed over, so a callback never has to know which loggers a run has.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning as L
import numpy as np
from jaxtyping import Float32, UInt8

from datamodules.records import SAMPLE_RATE


def log_text(trainer: L.Trainer, tag: str, markdown: str, step: int) -> None:
    """Log a text in Markdown.

    Args:
        trainer: Whose loggers are written to.
        tag: Name in the logger, groups separated by slashes.
        markdown: The text; pass model text through `escape` first.
        step: Position on the step axis.
    """
    for writer in _writers(trainer, "add_text"):
        writer.add_text(tag, markdown, step)


def log_image(trainer: L.Trainer, tag: str, image: UInt8[np.ndarray, "height width 3"], step: int) -> None:
    """Log an RGB picture.

    Args:
        trainer: Whose loggers are written to.
        tag: Name in the logger.
        image: uint8.
        step: Position on the step axis.
    """
    for writer in _writers(trainer, "add_image"):
        writer.add_image(tag, image, step, dataformats="HWC")


def log_audio(trainer: L.Trainer, tag: str, samples: Float32[np.ndarray, "samples"], step: int) -> None:
    """Log mono sound at 16 kHz.

    Args:
        trainer: Whose loggers are written to.
        tag: Name in the logger.
        samples: In -1..1; louder is cut.
        step: Position on the step axis.
    """
    for writer in _writers(trainer, "add_audio"):
        writer.add_audio(tag, np.clip(samples, -1, 1)[None], step, sample_rate=SAMPLE_RATE)


def takes_media(trainer: L.Trainer) -> bool:
    """True when drawing is worth the time: this process logs, and to something that shows pictures."""
    return trainer.is_global_zero and bool(_writers(trainer, "add_image"))


def escape(text: str) -> str:
    """Model text as it is, inside a Markdown table: tags, pipes and line breaks lose their meaning."""
    for character, harmless in (("&", "&amp;"), ("<", "&lt;"), ("|", "&#124;"), ("`", "&#96;"), ("\n", "<br>")):
        text = text.replace(character, harmless)
    return text


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; cells are taken as they are."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _writers(trainer: L.Trainer, method: str) -> list[Any]:
    experiments = [getattr(logger, "experiment", None) for logger in trainer.loggers]
    return [experiment for experiment in experiments if hasattr(experiment, method)]
