"""How well two sets of boxes agree: pairwise IoU and the best one-to-one matching.

Boxes are xyxy in pixels, half-open, so a box that starts at the left edge (``x1 = 0``) counts like any other; the
authors' released code forces its IoU to 0.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment


def box_iou(
    predicted: Float[np.ndarray, "predicted 4"], target: Float[np.ndarray, "target 4"]
) -> Float[np.ndarray, "predicted target"]:
    """Intersection over union of every predicted box with every target box.

    Args:
        predicted: xyxy, pixels, half-open.
        target: The same frame of reference.

    Returns:
        Values in 0..1, float64; 0 where a box is empty or turned inside out.
    """
    left, right = predicted[:, None, :].astype(np.float64), target[None, :, :].astype(np.float64)
    corner = np.minimum(left[..., 2:], right[..., 2:]) - np.maximum(left[..., :2], right[..., :2])
    shared = corner.clip(min=0).prod(axis=-1)
    covered = _area(left) + _area(right) - shared
    valid = (_area(left) > 0) & (_area(right) > 0)
    iou = np.zeros(shared.shape)
    np.divide(shared, covered, out=iou, where=valid)
    return iou


def matched_iou(
    predicted: Float[np.ndarray, "predicted 4"], target: Float[np.ndarray, "target 4"]
) -> Float[np.ndarray, "target"]:
    """IoU of every target box with the predicted box assigned to it.

    The assignment is one-to-one and maximizes the sum of IoU (Hungarian algorithm).

    Args:
        predicted: xyxy, pixels, half-open, any number of boxes.
        target: The same frame of reference.

    Returns:
        One value in 0..1 per target box, 0 where no predicted box is left for it.
    """
    iou = box_iou(predicted, target)
    rows, columns = linear_sum_assignment(iou, maximize=True)
    matched = np.zeros(len(target))
    matched[columns] = iou[rows, columns]
    return matched


def _area(boxes: Float[np.ndarray, "*shape 4"]) -> Float[np.ndarray, "*shape"]:
    sides = (boxes[..., 2:] - boxes[..., :2]).clip(min=0)
    return np.asarray(sides[..., 0] * sides[..., 1])
