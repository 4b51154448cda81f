"""Keyframe quality R_K, first part: distinct moments, spread over the clip.

The paper pays for every distinct pick and takes away for every repeat. That alone is content with four neighboring
frames, so a spread part is added; `spread_bonus` 0 gives the paper's form.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from datamodules.records import Rollout
from rewards.base import Reward, require
from rewards.target import score_plans


class DiversityReward(Reward):
    """``distinct_bonus * distinct - repeat_penalty * repeats + spread_bonus * spread``.

    With the defaults four distinct, evenly spread picks earn 1. Not applicable on null clips; 0 for absent or
    unparsable plans. Needs no ground truth.

    Reference:
        Omni-R1, arXiv:2505.20256, R_K, its diversity part. We differ by the spread part.
    """

    def __init__(
        self,
        *,
        distinct_bonus: float = 0.125,
        repeat_penalty: float = 0.2,
        spread_bonus: float = 0.5,
        weight: float = 1.0,
    ) -> None:
        """Set the amounts.

        Args:
            distinct_bonus: Paid per distinct keyframe, >= 0.
            repeat_penalty: Taken away per pick that names an already chosen frame, >= 0.
            spread_bonus: Paid for a perfect spread, >= 0; 0 is the paper's form.
            weight: Factor in the total, unitless.

        Raises:
            ConfigError: If an amount is negative.
        """
        super().__init__(weight=weight)
        require(distinct_bonus >= 0, "distinct_bonus", distinct_bonus, "a number >= 0")
        require(repeat_penalty >= 0, "repeat_penalty", repeat_penalty, "a number >= 0")
        require(spread_bonus >= 0, "spread_bonus", spread_bonus, "a number >= 0")
        self.distinct_bonus = distinct_bonus
        self.repeat_penalty = repeat_penalty
        self.spread_bonus = spread_bonus

    def __call__(self, rollouts: Sequence[Rollout]) -> list[float | None]:
        """Score the plans of one group."""
        if rollouts[0].clip.is_null:
            return [None] * len(rollouts)
        return score_plans(rollouts, self._score)

    def _score(self, rollout: Rollout) -> float:
        picks = [keyframe.frame for keyframe in rollout.plan.keyframes]
        earned = self.distinct_bonus * len(picks) + self.spread_bonus * spread(picks, rollout.clip.frames.count)
        return earned - self.repeat_penalty * rollout.plan.repeats


def spread(picks: Sequence[int], frames: int) -> float:
    """How evenly picks are spread in time: mean of ``min(1, gap / (frames / picks))`` over neighboring picks.

    Args:
        picks: Distinct frame indices, any order.
        frames: Frames in the clip.

    Returns:
        In 0..1; 1 when all picks are at least an even share of the clip apart, 0 for fewer than two picks.
    """
    if len(picks) < 2:
        return 0.0
    gaps = np.diff(np.sort(picks))
    return float(np.minimum(1.0, gaps * len(picks) / frames).mean())
