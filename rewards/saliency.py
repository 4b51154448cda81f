"""Keyframe quality R_K, third part: moments at which much of the target can be seen."""

from __future__ import annotations

from collections.abc import Sequence

from datamodules.records import Rollout
from rewards.base import Reward
from rewards.target import score_plans, union_areas, visible_target


class SaliencyReward(Reward):
    """Mean over picks of the target's visible area at the pick over its largest area in the clip.

    Several objects count as their union. Not applicable on clips without a visible target; 0 for absent or unparsable
    plans and for picks that show nothing of the target.

    Reference:
        Omni-R1, arXiv:2505.20256, R_K, its saliency part.
    """

    def __call__(self, rollouts: Sequence[Rollout]) -> list[float | None]:
        """Score the plans of one group, in 0..1."""
        target = visible_target(rollouts[0].clip)
        if target is None:
            return [None] * len(rollouts)
        areas = union_areas(target)
        shares = areas / areas.max()
        return score_plans(
            rollouts, lambda rollout: float(shares[[keyframe.frame for keyframe in rollout.plan.keyframes]].mean())
        )
