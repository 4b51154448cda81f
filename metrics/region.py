"""Region similarity J as DAVIS, ReVOS and MeViS define it; Ref-AVS has its own (`metrics.refavs`)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64

from metrics.arrays import MaskLike, as_foreground
from metrics.packed import Bits, count, pack


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
    pairs = zip(found, truth, strict=True)
    return np.array([frame_j(pack(one), pack(other)) for one, other in pairs], dtype=np.float64)


def frame_j(pred: Bits, target: Bits) -> float:
    """Intersection over union of two packed masks of one frame; see `region_j`."""
    covered = count(pred | target)
    return count(pred & target) / covered if covered else 1.0
