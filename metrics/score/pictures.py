"""Predicted masks from picture files, as the official programs read them: one channel of 8 bits.

Whatever is stored becomes gray by the usual weights of the colors, without its alpha channel; of 16 bits the upper 8
are kept. Every value but 0 is foreground.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from datamodules.media import BROKEN_IMAGE
from metrics.score.answers import Oddity, Problem, UnusableAnswer
from metrics.score.folder import some

_GRAY = ("1", "L")


def read_picture(path: Path) -> tuple[UInt8[np.ndarray, "height width"], list[Oddity]]:
    """Read one predicted mask.

    Args:
        path: The picture.

    Returns:
        Stored values, and what is odd about the file (not what is odd about the values).

    Raises:
        UnusableAnswer: The file is missing, cut off or no picture.
    """
    try:
        with Image.open(path) as image:
            image.load()
            oddities = [] if image.format == "PNG" else [Oddity.NOT_PNG]
            if image.mode.startswith("I"):
                stored = np.asarray(image).astype(np.int64)
                kept = (stored >> 8).astype(np.uint8)
                oddities.append(Oddity.LOST_VALUES if (stored[kept == 0] != 0).any() else Oddity.SIXTEEN_BITS)
                return kept, oddities
            gray = np.asarray(image if image.mode == "L" else image.convert("L"))
            if image.mode not in _GRAY:
                oddities.append(Oddity.LOST_COLORS if _loses(image, gray) else Oddity.COLOR)
            return gray, oddities
    except FileNotFoundError:
        found = some(sorted(other.name for other in path.parent.iterdir())) or "nothing"
        raise UnusableAnswer(Problem.NO_FRAME, f"{path} (found there: {found})") from None
    except BROKEN_IMAGE as error:
        raise UnusableAnswer(Problem.UNREADABLE, f"{path} ({type(error).__name__}: {error})") from error


def _loses(image: Image.Image, gray: UInt8[np.ndarray, "height width"]) -> bool:
    """Whether a color picture holds marks that its gray version lacks."""
    if image.mode == "F":
        return bool(((np.asarray(image) != 0) & (gray == 0)).any())
    colors = np.asarray(image.convert("RGBA"))
    alpha = colors[..., 3]
    is_marked = colors[..., :3].any(axis=-1)
    return bool((is_marked & (gray == 0)).any() or (alpha != alpha.flat[0]).any())
