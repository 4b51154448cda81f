"""What modules leave behind for callbacks: plain data, nothing that computes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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


class Predictions:
    """Answers of one batch, with boxes and masks; iterates over its rollouts.

    Neither a sequence nor a dataclass, because Lightning takes those apart to move what is in them.

    Args:
        rollouts: One per clip of the batch.
    """

    def __init__(self, rollouts: Sequence[Rollout]) -> None:
        self.rollouts = tuple(rollouts)

    def __iter__(self) -> Iterator[Rollout]:
        return iter(self.rollouts)
