"""Consistency R_G: the propagated masks are the target's masks on every frame, not only on the keyframes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from jaxtyping import Bool

from datamodules.needs import Need
from datamodules.records import Rollout
from rewards.base import Reward
from rewards.target import masks_of, score_plans, visible_target


class ConsistencyReward(Reward):
    """Mean over all frames of the IoU between the propagated union mask and the ground-truth union mask.

    Not applicable on clips without a visible target or without masks (labeled boxes are no masks); 0 for absent or
    unparsable plans.

    Reference:
        Omni-R1, arXiv:2505.20256, R_G.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"masks"})

    def __call__(self, rollouts: Sequence[Rollout]) -> list[float | None]:
        """Score the masks of one group, in 0..1."""
        target = visible_target(rollouts[0].clip)
        if target is None:
            return [None] * len(rollouts)
        truth = target.union()
        return score_plans(rollouts, lambda rollout: mean_iou(masks_of(rollout, target).union(), truth))


def mean_iou(
    predicted: Bool[np.ndarray, "frames height width"], target: Bool[np.ndarray, "frames height width"]
) -> float:
    """Mean over frames of the mask IoU.

    Args:
        predicted: Masks of the same frames and size as `target`.
        target: Ground truth.

    Returns:
        In 0..1; a frame on which both masks are empty counts 1.
    """
    shared = np.count_nonzero(predicted & target, axis=(1, 2))
    covered = np.count_nonzero(predicted | target, axis=(1, 2))
    return float(np.divide(shared, covered, out=np.ones(len(covered)), where=covered > 0).mean())
