"""Null: say that the target is absent when it is, and only then.

Not in the paper; this is how naming things that are not there is trained away.
"""

from __future__ import annotations

from collections.abc import Sequence

from datamodules.records import Rollout
from rewards.base import Reward


class NullReward(Reward):
    """Target absent: 1 for an absent plan, else -1. Target present: -1 for an absent plan, else not applicable.

    An unparsable completion on a null clip scores -1: silence is no answer.
    """

    def __call__(self, rollouts: Sequence[Rollout]) -> list[float | None]:
        """Score the plans of one group: -1, 1 or None."""
        return [_score(is_null=rollout.clip.is_null, says_absent=rollout.plan.is_absent) for rollout in rollouts]


def _score(*, is_null: bool, says_absent: bool) -> float | None:
    if is_null:
        return 1.0 if says_absent else -1.0
    return -1.0 if says_absent else None
