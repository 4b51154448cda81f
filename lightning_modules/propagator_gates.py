"""Is the tiny propagator good enough? Held-out AVShapes clips through the very path that the pipeline uses.

Every case is one thing of a clip, prompted by its slightly wrong box on the frame where most of it is visible. What
comes back is compared with the visible pixels on every frame.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

import numpy as np

from datamodules.avshapes_video import TrackingCase
from models.propagator import Propagator

LEAST_KEYFRAME_IOU = 0.85
LEAST_J = 0.7
MOST_FALSE_MASKS = 0.3


@dataclass(frozen=True)
class CaseScore:
    """How one case went.

    Attributes:
        keyframe_iou: IoU on the prompted frame, 0..1.
        ious: IoU on every frame where the thing is visible, 0..1.
        misses: Per such frame, whether there was no mask at all.
        false_masks: Per frame where it is not visible, whether there was a mask.
    """

    keyframe_iou: float
    ious: tuple[float, ...]
    misses: tuple[bool, ...]
    false_masks: tuple[bool, ...]


@dataclass(frozen=True)
class PropagatorGates:
    """Means over cases and frames, all in 0..1; NaN where there was nothing to average.

    Attributes:
        keyframe_iou: IoU on prompted frames. The gate: at least 0.85.
        j: IoU on frames where the thing is visible, averaged per case, then over cases. The gate: at least 0.7.
        missed: Share of frames with the thing, but without a mask.
        false_masks: Share of frames without the thing, but with a mask. The gate: at most 0.3.
    """

    keyframe_iou: float
    j: float
    missed: float
    false_masks: float

    @property
    def are_passed(self) -> bool:
        """Whether all three gates hold."""
        return self.keyframe_iou >= LEAST_KEYFRAME_IOU and self.j >= LEAST_J and not self.false_masks > MOST_FALSE_MASKS

    def table(self) -> str:
        """One line per number."""
        return "\n".join(f"  {field.name:<14} {getattr(self, field.name):.3f}" for field in fields(self))


def score_case(propagator: Propagator, case: TrackingCase) -> CaseScore:
    """Propagate one case and compare.

    Args:
        propagator: Loaded.
        case: A clip with true masks of one thing, and its prompt.

    Raises:
        ValueError: The case's clip has no masks.
    """
    if case.clip.masks is None:
        raise ValueError(f"{case.clip.id}: expected a clip with true masks, found none.")
    truth = case.clip.masks.union()
    (track,) = propagator.propagate(case.clip, [case.grounding])
    found = track.union()
    overlap, joined = (truth & found).sum(axis=(1, 2)), (truth | found).sum(axis=(1, 2))
    ious = overlap / np.maximum(joined, 1)
    is_visible, is_found = np.asarray(truth.any(axis=(1, 2))), np.asarray(found.any(axis=(1, 2)))
    return CaseScore(
        keyframe_iou=float(ious[case.grounding.keyframes[0].frame]),
        ious=tuple(ious[is_visible].tolist()),
        misses=tuple((~is_found[is_visible]).tolist()),
        false_masks=tuple(is_found[~is_visible].tolist()),
    )


def gates(scores: Sequence[CaseScore]) -> PropagatorGates:
    """Average over cases."""
    return PropagatorGates(
        keyframe_iou=_mean(score.keyframe_iou for score in scores),
        j=_mean(_mean(score.ious) for score in scores),
        missed=_mean(miss for score in scores for miss in score.misses),
        false_masks=_mean(mask for score in scores for mask in score.false_masks),
    )


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return float(np.mean(found)) if found else math.nan
