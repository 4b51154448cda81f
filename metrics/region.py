"""Region similarity J as DAVIS, ReVOS and MeViS define it; Ref-AVS has its own (`metrics.refavs`)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64

from metrics.arrays import MaskLike, as_foreground


def region_j(pred: MaskLike, target: MaskLike) -> Float64[np.ndarray, "frames"]:
    """Intersection over union of two masks, per frame.

    Args:
        pred: Predicted masks, array or tensor; every non-zero value is foreground.
        target: Ground truth of the same shape.

    Returns:
        One value in 0..1 per frame; 1 where both masks are empty, 0 where exactly one is.

    Raises:
        ValueError: If the shapes differ or are not (frames, height, width).

    Reference:
        Perazzi et al., A Benchmark Dataset and Evaluation Methodology for Video Object Segmentation, CVPR 2016.
    """
    found, truth = as_foreground(pred=pred, target=target)
    shared = np.count_nonzero(found & truth, axis=(1, 2))
    covered = np.count_nonzero(found | truth, axis=(1, 2))
    scores = np.ones(len(covered))
    np.divide(shared, covered, out=scores, where=covered > 0)
    return scores
