"""Says something once, where a person will see it: on the screen above the bar, and beside the curves."""

from __future__ import annotations

import lightning as L
import rich
from rich.markup import escape as literal

from callbacks.media import log_text


def notice(trainer: L.Trainer, text: str) -> None:
    """Print and log a remark of the first process.

    Args:
        trainer: Whose loggers keep the remark under "notices", at the current step.
        text: Plain text.
    """
    if trainer.is_global_zero:
        rich.get_console().print(f"[yellow]notice:[/yellow] {literal(text)}", soft_wrap=True, highlight=False)
        log_text(trainer, "notices", text, trainer.global_step)
