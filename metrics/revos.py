"""Two more scores of the ReVOS benchmark: robustness R and pixel accuracy A. Its J and F are the DAVIS ones.

The official scorer computes both on the stored 8-bit values: predictions are saved as 0 and 255, and the ground truth
is the sum of the instances' masks, 2 where two overlap. So a false-positive pixel weighs 255, a true-positive pixel is
never "equal" for A, and ``1 - 2`` wraps around to 255. `scale=255` is that score, which published numbers follow;
`scale=1` is the same formula on predictions of 0 and 1. Report both under their own names.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float64, UInt8

from metrics.arrays import MaskLike, as_array, as_foreground
from metrics.packed import Bits, count, pack


class Level(NamedTuple):
    """Where an 8-bit picture has a certain value above 0."""

    value: int
    bits: Bits


def revos_r(
    pred: MaskLike, target: MaskLike, foreground: MaskLike, *, scale: Literal[1, 255] = 255
) -> Float64[np.ndarray, "frames"]:
    """False-positive area relative to the area of all annotated objects, per frame, subtracted from 1.

    ``max(0, 1 - sum((1 - target) * pred) / (sum(foreground) + 1e-6))`` in 8-bit arithmetic.

    Args:
        pred: Predicted masks; every non-zero value is foreground.
        target: Ground truth, boolean or the 8-bit number of instances per pixel.
        foreground: Union of all annotated objects of the video; every non-zero value is foreground.
        scale: Stored value of a predicted pixel; 255 is the official score.

    Returns:
        In 0..1; without foreground 1 for an empty prediction and 0 for any other.

    Raises:
        ValueError: If the shapes differ or are not (frames, height, width).

    Reference:
        ReVOS (VISA), arXiv:2407.11325; robustness as in its released scorer.
    """
    found, _, annotated = as_foreground(pred=pred, target=target, foreground=foreground)
    instances = as_array(target).astype(np.uint8)
    frames = zip(found, instances, annotated, strict=True)
    return np.array(
        [frame_r([Level(scale, pack(one))], levels(other), int(np.count_nonzero(area))) for one, other, area in frames],
        dtype=np.float64,
    )


def revos_a(pred: MaskLike, target: MaskLike, *, scale: Literal[1, 255] = 255) -> Float64[np.ndarray, "frames"]:
    """Share of pixels whose stored values are equal, per frame.

    Args:
        pred: Predicted masks; every non-zero value is foreground.
        target: Ground truth, boolean or the 8-bit number of instances per pixel.
        scale: Stored value of a predicted pixel; with the official 255 a true positive never counts.

    Returns:
        In 0..1.

    Raises:
        ValueError: If the shapes differ or are not (frames, height, width).

    Reference:
        ReVOS (VISA), arXiv:2407.11325; accuracy as in its released scorer.
    """
    found, _ = as_foreground(pred=pred, target=target)
    instances = as_array(target).astype(np.uint8)
    pixels = found.shape[1] * found.shape[2]
    frames = zip(found, instances, strict=True)
    return np.array(
        [frame_a([Level(scale, pack(one))], levels(other), pixels) for one, other in frames], dtype=np.float64
    )


def levels(picture: UInt8[np.ndarray, "height width"]) -> list[Level]:
    """Take an 8-bit picture apart by value; the usual one, of 0 and one other value, costs next to nothing."""
    highest = int(picture.max(initial=0))
    if not highest:
        return []
    top, rest = pack(picture == highest), pack(picture)
    if count(top) == count(rest):
        return [Level(highest, top)]
    values = np.flatnonzero(np.bincount(picture.ravel(), minlength=256))
    return [Level(int(value), pack(picture == value)) for value in values if value]


def frame_r(pred: Sequence[Level], target: Sequence[Level], area: int) -> float:
    """Robustness of one frame; see `revos_r`.

    Args:
        pred: Stored values of the prediction.
        target: Instances per pixel.
        area: Pixels of all annotated objects.
    """
    wrong = 0
    for stored, bits in pred:
        left = count(bits)
        for instances, others in target:
            shared = count(bits & others)
            wrong += shared * ((1 - instances) * stored % 256)
            left -= shared
        wrong += left * stored
    return max(1 - wrong / (area + 1e-6), 0.0)


def frame_a(pred: Sequence[Level], target: Sequence[Level], pixels: int) -> float:
    """Accuracy of one frame; see `revos_a`.

    Args:
        pred: Stored values of the prediction.
        target: Instances per pixel.
        pixels: Of the frame.
    """
    covered = [level.bits for level in (*pred, *target)]
    equal = pixels - (count(np.bitwise_or.reduce(covered)) if covered else 0)
    equal += sum(count(one.bits & other.bits) for one in pred for other in target if one.value == other.value)
    return equal / pixels
