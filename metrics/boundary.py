"""Boundary accuracy F as DAVIS, ReVOS and MeViS define it; Ref-AVS's F is another measure (`metrics.refavs`).

The definition dilates one boundary by a disk and counts the pixels of the other inside. Both steps run on packed masks
(`metrics.packed`), cut to the window that holds both boundaries; the numbers are those of the definition, to the bit.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float64

from metrics.arrays import MaskLike, as_foreground
from metrics.packed import Bits, common_window, count, edges, grown, pack

TOLERANCE = 0.008
"""Radius within which boundaries match, relative to the image diagonal."""


def boundary_f(pred: MaskLike, target: MaskLike) -> Float64[np.ndarray, "frames"]:
    """F-measure of two masks' boundaries, per frame.

    Precision is the share of predicted boundary pixels within `match_radius` of the true boundary, recall the reverse,
    and F their harmonic mean.

    Args:
        pred: Predicted masks, array or tensor; every non-zero value is foreground.
        target: Ground truth of the same shape.

    Returns:
        One value in 0..1 per frame; 1 where neither mask has a boundary, 0 where exactly one has. A mask that covers
        the whole frame has no boundary, so it scores 1 against an empty one.

    Raises:
        ValueError: If the shapes differ or are not (frames, height, width).

    Reference:
        Perazzi et al., CVPR 2016; boundary rule and radius as in the DAVIS 2017 evaluation code.
    """
    found, truth = as_foreground(pred=pred, target=target)
    size = (found.shape[1], found.shape[2])
    pairs = zip(found, truth, strict=True)
    return np.array([frame_f(pack(one), pack(other), size) for one, other in pairs], dtype=np.float64)


def match_radius(height: int, width: int) -> int:
    """Distance in pixels up to which two boundary pixels match: the diagonal times the tolerance, rounded up."""
    return math.ceil(TOLERANCE * math.hypot(height, width))


def frame_f(pred: Bits, target: Bits, size: tuple[int, int]) -> float:
    """F-measure of the boundaries of two packed masks of one frame; see `boundary_f`.

    Args:
        pred: Predicted mask.
        target: Ground truth.
        size: (height, width) of both in pixels.
    """
    found, truth = edges(pred, size[1]), edges(target, size[1])
    window = common_window(found, truth)
    found, truth = found[window], truth[window]
    total_found, total_truth = count(found), count(truth)
    if not total_found or not total_truth:
        return float(total_found == total_truth)
    radius = match_radius(*size)
    precision = count(found & grown(truth, radius)) / total_found
    recall = count(truth & grown(found, radius)) / total_truth
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0
