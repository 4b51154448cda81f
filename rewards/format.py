"""Format: the completion is one think block, then one answer block that can be used."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from datamodules.records import Rollout
from rewards.base import Reward


class FormatReward(Reward):
    """1 for a well-formed completion with a usable answer, else 0.

    Applies to every clip; a well-formed absent answer counts. The authors' released code asks for the two blocks only;
    here the answer must also hold a keyframe inside the clip or say that the target is absent.

    Reference:
        Omni-R1, arXiv:2505.20256, the format reward beside R_K, R_A and R_G.
    """

    judges_answer: ClassVar[bool] = False

    def __call__(self, rollouts: Sequence[Rollout]) -> list[float | None]:
        """Return 1.0 or 0.0 per rollout."""
        return [float(rollout.plan.parse.is_well_formed) for rollout in rollouts]
