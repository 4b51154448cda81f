"""What modules leave behind for callbacks: plain data, nothing that computes."""

from __future__ import annotations

from dataclasses import dataclass

from datamodules.records import Rollout
from rewards.suite import RewardOutput


@dataclass(frozen=True)
class GroupRecord:
    """One prompt of a training step.

    Attributes:
        rollouts: All its completions, with what System 2 made of them.
        rewards: What they earned, by term and in total.
        advantages: One per rollout, unitless.
    """

    rollouts: tuple[Rollout, ...]
    rewards: RewardOutput
    advantages: tuple[float, ...]
