"""Names the rewards, checks what they return and adds them up.

The suite computes only terms with a weight other than 0 and says what these need together, so that a term that is
switched off costs nothing: without a weighted term that needs masks, nothing is ever propagated. A term that fails
stops the run with its name; none is ever replaced by 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from types import TracebackType

from datamodules.errors import ConfigError, RewardError
from datamodules.needs import Need
from datamodules.records import Rollout
from rewards.base import Bonus, Reward


@dataclass(frozen=True)
class RewardOutput:
    """What one group earned.

    Attributes:
        values: Per term, per rollout: the unweighted value, or None where the term does not apply.
        totals: Per rollout: the weighted sum; a value that does not apply adds 0.
    """

    values: dict[str, list[float | None]]
    totals: list[float]


class RewardSuite:
    """The weighted terms of a run.

    Attributes:
        terms: The terms that are computed, by name, in the order given.
    """

    def __init__(self, terms: Mapping[str, Reward | None]) -> None:
        """Keep the terms that count.

        Args:
            terms: Rewards by the name that logs and flags use; None and weight 0 leave a term out.

        Raises:
            ConfigError: If an entry is neither a reward nor None; lists all of them.
        """
        strangers = [
            f"{name} is {term!r}" for name, term in terms.items() if not (term is None or isinstance(term, Reward))
        ]
        if strangers:
            raise ConfigError(
                f"rewards: expected a rewards.base.Reward or null per name, found: {'; '.join(strangers)}. "
                "Name a class, as in --rewards.mine my_pkg.MyReward."
            )
        self.terms = {name: term for name, term in terms.items() if term is not None and term.weight != 0}

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the terms that are computed."""
        return tuple(self.terms)

    @property
    def needs(self) -> frozenset[Need]:
        """What the rollouts must hold: the union over the terms that are computed."""
        return frozenset[Need]().union(*(term.needs for term in self.terms.values()))

    def score(self, groups: Sequence[Sequence[Rollout]]) -> list[RewardOutput]:
        """Score the completions of several prompts.

        Args:
            groups: Per prompt, all of its completions, with everything filled in that `needs` names.

        Returns:
            One output per group, in the order given; without terms every total is 0.

        Raises:
            ValueError: If a group is empty or mixes clips.
            RewardError: If a term raises, or returns anything but one finite float or None per rollout.
        """
        return [self._score_group(group) for group in groups]

    def _score_group(self, group: Sequence[Rollout]) -> RewardOutput:
        clips = sorted({rollout.clip.id for rollout in group})
        if len(clips) != 1:
            raise ValueError(f"a group is the completions of one prompt; found {len(group)} rollouts of clips {clips}")
        values: dict[str, list[float | None]] = {}
        for name, term in self.terms.items():
            if not isinstance(term, Bonus):
                with _Naming(name, clips[0]):
                    found = term(group)
                values[name] = _checked(name, found, group)
        task_rewards = self._totals(values, len(group), answer_only=True)
        for name, term in self.terms.items():
            if isinstance(term, Bonus):
                with _Naming(name, clips[0]):
                    found = term(group, task_rewards)
                values[name] = _checked(name, found, group)
        return RewardOutput({name: values[name] for name in self.terms}, self._totals(values, len(group)))

    def _totals(
        self, values: Mapping[str, list[float | None]], rollouts: int, *, answer_only: bool = False
    ) -> list[float]:
        totals = [0.0] * rollouts
        for name, column in values.items():
            term = self.terms[name]
            if answer_only and not term.judges_answer:
                continue
            totals = [total + term.weight * (value or 0.0) for total, value in zip(totals, column, strict=True)]
        return totals


class _Naming:
    """Turns any error inside the block into a `RewardError` that names the term and the clip; interrupts pass."""

    def __init__(self, name: str, clip_id: str) -> None:
        self._name = name
        self._clip_id = clip_id

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, Exception):
            raise RewardError(
                f"rewards.{self._name} raised {type(error).__name__} on clip {self._clip_id}: {error}. "
                f"Fix the reward, or leave it out with --rewards.{self._name} null."
            ) from error


def _checked(name: str, found: object, group: Sequence[Rollout]) -> list[float | None]:
    """One finite float or None per rollout, or an error that names the term."""
    expected = f"rewards.{name} on clip {group[0].clip.id}: expected a list of {len(group)} finite numbers or None"
    if not isinstance(found, list | tuple):
        raise RewardError(f"{expected}, found {type(found).__name__}. Return one value per rollout.")
    if len(found) != len(group):
        raise RewardError(f"{expected}, found {len(found)} values. Return one value per rollout, in order.")
    values: list[float | None] = []
    for index, value in enumerate(found):
        if value is None:
            values.append(None)
            continue
        if not isinstance(value, Real) or isinstance(value, bool):
            raise RewardError(f"{expected}, found {type(value).__name__} for rollout {index}. Return float(value).")
        if not math.isfinite(value):
            raise RewardError(
                f"{expected}, found {float(value)} for rollout {index}. Return None where it does not apply."
            )
        values.append(float(value))
    return values
