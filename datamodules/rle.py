"""COCO run-length masks as they come from annotation files: checked, and brought to the size of the frame.

The COCO library decodes a mask whose runs end too early into memory that nobody wrote, without an error; hence the
check here. Uncompressed run lengths are accepted too.

Reference:
    COCO API, common/maskApi.c (rleToString); github.com/cocodataset/cocoapi.
"""

from __future__ import annotations

from typing import TypedDict, TypeGuard

import numpy as np
from jaxtyping import Int
from pycocotools import mask as coco

from datamodules.media import resize_mask


class _Mask(TypedDict):
    size: list[int]
    counts: list[int] | str


def run_lengths(counts: bytes) -> Int[np.ndarray, "runs"]:
    """Decode COCO's compressed run lengths.

    Each number is written in 5-bit groups, lowest first, one per character from ``0`` on; bit 5 says that another
    group follows, and the highest bit of the last group is the sign. From the fourth number on, the difference to the
    number two places before is stored.

    Args:
        counts: The compressed text.

    Returns:
        Lengths of alternating runs, background first, down the columns; empty for an empty text.

    Raises:
        ValueError: The text has other characters or ends within a number.
    """
    codes = np.frombuffer(counts, dtype=np.uint8).astype(np.int64) - 48
    if not codes.size:
        return codes
    if codes.min() < 0 or codes.max() > 63:
        raise ValueError("the run lengths hold a character that COCO's code does not use")
    is_last = (codes & 32) == 0
    if not is_last[-1]:
        raise ValueError("the run lengths end within a number")
    ends = np.flatnonzero(is_last)
    starts = np.concatenate([[0], ends[:-1] + 1])
    place = np.arange(codes.size) - np.repeat(starts, ends - starts + 1)
    if place.max() > 8:
        raise ValueError("the run lengths hold a number that is longer than any image")
    values = np.add.reduceat((codes & 31) << (5 * place), starts)
    values -= np.where(codes[ends] & 16, np.int64(1) << (5 * (place[ends] + 1)), 0)
    # Undo the differences: numbers 1, 3, 5, ... and 2, 4, 6, ... are two running sums; number 0 stands alone.
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values


def clean_counts(rle: object, size: tuple[int, int]) -> bytes | None:
    """Check one annotated mask and bring it to the size of the frame.

    Args:
        rle: A mapping with ``size`` [height, width] and ``counts`` (compressed text, or a list of run lengths), or
            None where the object is not visible.
        size: (height, width) of the frame in pixels; a mask of another size is resized by nearest-neighbor sampling.

    Returns:
        Compressed run lengths at the given size; None for None and for a mask without a pixel.

    Raises:
        ValueError: It is neither None nor a mask, or its runs do not cover its size exactly.
    """
    if rle is None:
        return None
    if not _is_mask(rle):
        raise ValueError(f"expected a mask with size and counts, found {str(rle)[:60]!r}")
    height, width = rle["size"]
    counts = _compressed(rle["counts"], height, width)
    runs = run_lengths(counts)
    if int(runs.sum()) != height * width or (runs.size and runs.min() < 0):
        raise ValueError(f"the runs cover {int(runs.sum())} pixels of a mask of {height}x{width}")
    if not runs[1::2].any():
        return None
    if (height, width) == size:
        return counts
    dense = coco.decode({"size": [height, width], "counts": counts}).astype(bool)
    resized = resize_mask(dense, size)
    return bytes(coco.encode(np.asfortranarray(resized.astype(np.uint8)))["counts"]) if resized.any() else None


def _compressed(counts: list[int] | str, height: int, width: int) -> bytes:
    if isinstance(counts, str):
        return counts.encode("ascii", errors="replace")
    return bytes(coco.frPyObjects({"size": [height, width], "counts": counts}, height, width)["counts"])


def _is_mask(rle: object) -> TypeGuard[_Mask]:
    if not isinstance(rle, dict) or not _are_lengths(rle.get("size")) or len(rle["size"]) != 2:
        return False
    return isinstance(rle.get("counts"), str) or _are_lengths(rle.get("counts"))


def _are_lengths(values: object) -> bool:
    return isinstance(values, list) and all(isinstance(value, int) and value >= 0 for value in values)
