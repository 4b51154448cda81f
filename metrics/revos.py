"""Two more scores of the ReVOS benchmark: robustness R and pixel accuracy A. Its J and F are the DAVIS ones.

The official scorer computes both on the stored 8-bit values: predictions are saved as 0 and 255, and the ground truth
is the sum of the instances' masks, 2 where two overlap. So a false-positive pixel weighs 255, a true-positive pixel is
never "equal" for A, and ``1 - 2`` wraps around to 255. `scale=255` is that score, which published numbers follow;
`scale=1` is the same formula on predictions of 0 and 1. Report both under their own names.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Float64, UInt8

from metrics.arrays import MaskLike, as_array, as_foreground


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
    stored, instances = _stored(found, scale), as_array(target).astype(np.uint8)
    wrong = ((np.uint8(1) - instances) * stored).sum(axis=(1, 2), dtype=np.float64)
    return np.asarray(np.maximum(1 - wrong / (np.count_nonzero(annotated, axis=(1, 2)) + 1e-6), 0))


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
    return np.asarray((_stored(found, scale) == as_array(target).astype(np.uint8)).mean(axis=(1, 2)))


def _stored(mask: np.ndarray, scale: int) -> UInt8[np.ndarray, "frames height width"]:
    return mask.astype(np.uint8) * np.uint8(scale)
