"""Keyframe quality R_K, second part: about as many moments as asked for."""

from __future__ import annotations

from collections.abc import Sequence

from datamodules.records import Rollout
from rewards.base import Reward, require
from rewards.target import score_plans


class CountReward(Reward):
    """``max(0, 1 - |K - K0| / K0)`` for K distinct moments named; 1 at K0, 0 from 2 K0 on.

    A plan keeps only its first few keyframes; moments beyond them count as the parser found them, whatever the times at
    which their segments end. On clips with fewer than K0 frames the clip's length takes the place of K0. Not
    applicable on null clips; 0 for absent or unparsable plans. Needs no ground truth.

    Reference:
        Omni-R1, arXiv:2505.20256, R_K, its count part, K0 = 4; `rewards.paper.PaperCountReward` is the released form.
    """

    def __init__(self, *, target_count: int = 4, weight: float = 1.0) -> None:
        """Set the number of moments.

        Args:
            target_count: K0, moments that a plan should name, >= 1.
            weight: Factor in the total, unitless.

        Raises:
            ConfigError: If `target_count` is below 1.
        """
        super().__init__(weight=weight)
        require(target_count >= 1, "target_count", target_count, "at least 1 moment")
        self.target_count = target_count

    def __call__(self, rollouts: Sequence[Rollout]) -> list[float | None]:
        """Score the plans of one group, in 0..1."""
        if rollouts[0].clip.is_null:
            return [None] * len(rollouts)
        return score_plans(rollouts, self._score)

    def _score(self, rollout: Rollout) -> float:
        plan = rollout.plan
        wanted = min(self.target_count, rollout.clip.frames.count)
        named = max(len(plan.keyframes), plan.parse.moments)
        return max(0.0, 1.0 - abs(named - wanted) / wanted)
