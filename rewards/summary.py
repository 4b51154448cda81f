"""What a step's rewards say in a log: mean and spread per term, and how often it applied.

Summaries hold sums, so those of several steps or processes add up to the summary of all their rollouts; a mean of
means would weigh a process with one applicable rollout like one with a hundred.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from rewards.suite import RewardOutput


@dataclass(frozen=True)
class TermSummary:
    """One term over many rollouts.

    Attributes:
        rollouts: Rollouts seen.
        applicable: Those for which the term applied.
        total: Sum of the applicable, unweighted values.
        squares: Sum of their squares.
    """

    rollouts: int
    applicable: int
    total: float
    squares: float

    @property
    def mean(self) -> float:
        """Mean over applicable values; NaN when there is none."""
        return self.total / self.applicable if self.applicable else math.nan

    @property
    def std(self) -> float:
        """Population standard deviation of the applicable values; NaN when there is none."""
        if not self.applicable:
            return math.nan
        return math.sqrt(max(0.0, self.squares / self.applicable - self.mean**2))

    @property
    def not_applicable(self) -> float:
        """Share of rollouts for which the term did not apply, in 0..1; NaN without rollouts."""
        return 1 - self.applicable / self.rollouts if self.rollouts else math.nan


@dataclass(frozen=True)
class RewardSummary:
    """All terms over many rollouts.

    Attributes:
        terms: Per term, in the suite's order.
    """

    terms: dict[str, TermSummary]

    def metrics(self) -> dict[str, float]:
        """Values by log key; NaN where nothing applied, so that every process logs the same keys."""
        values: dict[str, float] = {}
        for name, term in self.terms.items():
            values |= {
                f"rewards/{name}/mean": term.mean,
                f"rewards/{name}/std": term.std,
                f"rewards/{name}/not_applicable": term.not_applicable,
            }
        return values

    def sums(self) -> Float64[np.ndarray, "sums"]:
        """Everything that adds up, as one vector to sum over processes; `with_sums` reads it back."""
        per_term = [(term.rollouts, term.applicable, term.total, term.squares) for term in self.terms.values()]
        return np.array(per_term, np.float64).reshape(-1)

    def with_sums(self, sums: Float64[np.ndarray, "sums"]) -> RewardSummary:
        """The summary of the same terms that such a vector describes."""
        rows = sums.reshape(len(self.terms), 4).tolist()
        return RewardSummary(
            {
                name: TermSummary(round(rollouts), round(applicable), total, squares)
                for name, (rollouts, applicable, total, squares) in zip(self.terms, rows, strict=True)
            }
        )


def summarize(outputs: Sequence[RewardOutput]) -> RewardSummary:
    """Summarize what groups earned.

    Args:
        outputs: What the suite gave for each group; all with the same terms.

    Returns:
        The summary; without groups it has no terms.
    """
    terms = {}
    for name in outputs[0].values if outputs else ():
        column = [value for output in outputs for value in output.values[name]]
        values = [value for value in column if value is not None]
        squares = sum(value * value for value in values)
        terms[name] = TermSummary(len(column), len(values), float(sum(values)), float(squares))
    return RewardSummary(terms)
