"""Boundary accuracy F as DAVIS, ReVOS and MeViS define it; Ref-AVS's F is another measure (`metrics.refavs`).

The definition dilates one boundary by a disk and looks up the pixels of the other. A boundary pixel lies inside the
dilated other boundary exactly when some pixel of that boundary is at most the disk's radius away, so nearest neighbors
among the few boundary pixels give the same numbers without touching the rest of the image.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Bool, Float64
from scipy.spatial import KDTree

from metrics.arrays import MaskLike, as_foreground

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
    radius = match_radius(*found.shape[1:])
    scores = np.empty(len(found))
    for index, (one, other) in enumerate(zip(found, truth, strict=True)):
        scores[index] = _frame_f(one, other, radius)
    return scores


def match_radius(height: int, width: int) -> int:
    """Distance in pixels up to which two boundary pixels match: the diagonal times the tolerance, rounded up."""
    return math.ceil(TOLERANCE * math.hypot(height, width))


def boundary_map(mask: Bool[np.ndarray, "height width"]) -> Bool[np.ndarray, "height width"]:
    """Pixels that differ from their right, lower or lower right neighbor.

    Args:
        mask: One mask.

    Returns:
        True on the boundary, which lies half a pixel towards the upper left of the mask's edge. The last row is
        compared with the right neighbor only, the last column with the lower one only, their corner with none.
    """
    edge = np.zeros(mask.shape, dtype=bool)
    edge[:, :-1] |= mask[:, :-1] != mask[:, 1:]
    edge[:-1, :] |= mask[:-1, :] != mask[1:, :]
    edge[:-1, :-1] |= mask[:-1, :-1] != mask[1:, 1:]
    return edge


def _frame_f(pred: Bool[np.ndarray, "height width"], target: Bool[np.ndarray, "height width"], radius: int) -> float:
    rows, columns = _around(pred | target)
    found, truth = (np.argwhere(boundary_map(mask[rows, columns])) for mask in (pred, target))
    if not len(found) or not len(truth):
        return float(len(found) == len(truth))
    precision = _share_near(found, truth, radius)
    recall = _share_near(truth, found, radius)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _around(mask: Bool[np.ndarray, "height width"]) -> tuple[slice, slice]:
    """Rows and columns that hold all boundaries: the foreground and one pixel around it, inside the image."""
    bounds = []
    for axis in (1, 0):
        hit = np.flatnonzero(mask.any(axis=axis))
        bounds.append(slice(max(0, hit[0] - 1), hit[-1] + 2) if len(hit) else slice(0, 0))
    return bounds[0], bounds[1]


def _share_near(points: np.ndarray, others: np.ndarray, radius: int) -> float:
    # The bound is exclusive; squared distances are whole numbers, so nothing lies between radius and radius + 1/(2r+1).
    distance, _ = KDTree(others).query(points, distance_upper_bound=radius + 0.5)
    return float(np.count_nonzero(distance <= radius) / len(points))
