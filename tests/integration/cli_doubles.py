"""Rewards that a command line can name."""

import os
import signal
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from datamodules.records import Rollout
from rewards.base import Reward


class LowTokens(Reward):
    """Share of tokens with a small id: something that random weights have spread in."""

    def __call__(self, rollouts: Sequence[Rollout]) -> list[float | None]:
        return [float((rollout.completion_ids < 64).float().mean()) for rollout in rollouts]


class Remember(Reward):
    """Keeps what it is asked to score, for as long as the process lives: (clip id, token ids) per group."""

    seen: ClassVar[list[list[tuple[str, tuple[int, ...]]]]] = []

    def __call__(self, rollouts: Sequence[Rollout]) -> list[float | None]:
        self.seen.append([(rollout.clip.id, tuple(rollout.completion_ids.tolist())) for rollout in rollouts])
        return [None] * len(rollouts)


class ThirdTime(Reward, ABC):
    """Does something when it is asked for the third time in training; never applies."""

    def __init__(self, *, weight: float = 1.0) -> None:
        super().__init__(weight=weight)
        self.groups = 0

    def __call__(self, rollouts: Sequence[Rollout]) -> list[float | None]:
        # Groups of one are held-out clips.
        self.groups += len(rollouts) > 1
        if self.groups == 3:
            self.act()
        return [None] * len(rollouts)

    @abstractmethod
    def act(self) -> None: ...


class PressCtrlC(ThirdTime):
    def act(self) -> None:
        os.kill(os.getpid(), signal.SIGINT)


class Fail(ThirdTime):
    def act(self) -> None:
        raise ZeroDivisionError("the third time")


class Broken(Reward):
    """Raises."""

    def __call__(self, rollouts: Sequence[Rollout]) -> list[float | None]:
        raise ZeroDivisionError("a reward that fails")
