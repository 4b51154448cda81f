"""What a reward is: a weighted callable from the rollouts of one prompt to one number each.

A reward reads plain data (`Rollout`) and never runs a model; what it must find there it names in `needs`, and whoever
fills the rollouts (the pipeline) fills the union over all terms in one go. Weighting, checking and summing are the
suite's work (`rewards.suite`), so that a reward states its idea and nothing else.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from datamodules.errors import ConfigError
from datamodules.needs import Need
from datamodules.records import Rollout


class Reward(ABC):
    """One term of the total reward.

    Attributes:
        needs: What the term reads from a rollout besides its text and plan.
        judges_answer: Whether the term says how good the answer is; False for terms about its form alone, which are
            left out of the task reward that a `Bonus` sees.
        weight: Factor of this term in the total.
    """

    needs: ClassVar[frozenset[Need]] = frozenset()
    judges_answer: ClassVar[bool] = True

    def __init__(self, *, weight: float = 1.0) -> None:
        """Set the weight.

        Args:
            weight: Factor in the total, unitless, any finite number; 0 means that the term is never computed.

        Raises:
            ConfigError: If the weight is not finite.
        """
        if not math.isfinite(weight):
            raise ConfigError(
                f"weight of {type(self).__name__} is {weight}; expected a finite number. "
                "Set --rewards.<name>.weight 1.0, or 0 to leave the term out."
            )
        self.weight = weight

    @abstractmethod
    def __call__(self, rollouts: Sequence[Rollout]) -> list[float | None]:
        """Score all completions of one prompt.

        Args:
            rollouts: The group, at least one rollout, all of the same clip.

        Returns:
            One finite number per rollout in the order given, or None where the term does not apply: that adds 0 to
            the total and is left out of the term's mean.
        """


class Bonus(Reward):
    """A term that also sees what its group has earned from the terms that judge the answer."""

    judges_answer: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, rollouts: Sequence[Rollout], task_rewards: Sequence[float] | None = None) -> list[float | None]:
        """Score all completions of one prompt.

        Args:
            rollouts: The group, at least one rollout, all of the same clip.
            task_rewards: Weighted sum of the answer-judging terms per rollout; None counts as nothing earned.

        Returns:
            As for every reward.
        """


def require(condition: bool, setting: str, found: object, expected: str) -> None:
    """Check one setting of a reward.

    Args:
        condition: What must hold.
        setting: Name of the constructor argument.
        found: Its value.
        expected: What would have been right, in words.

    Raises:
        ConfigError: If the condition does not hold; names the setting and its flag.
    """
    if not condition:
        raise ConfigError(
            f"rewards.<name>.{setting} is {found}; expected {expected}. Set it with --rewards.<name>.{setting}."
        )
