"""Length: a bonus for completions that reason neither too briefly nor too long, once the group can do the task."""

from __future__ import annotations

from collections.abc import Sequence

from datamodules.records import Rollout
from rewards.base import Bonus, require


class LengthReward(Bonus):
    """1 for a completion of `min_tokens` to `max_tokens` that earned enough, if enough of its group did; else 0.

    What was earned is the weighted sum of the terms that judge the answer: every term but format and the bonuses.
    Applies to every clip, null ones included.

    Reference:
        Omni-R1's released training code: 320 to 750 tokens, task reward above 0.1, at least two such rollouts.
    """

    def __init__(
        self,
        *,
        min_tokens: int = 320,
        max_tokens: int = 750,
        task_threshold: float = 0.1,
        min_passing: int = 2,
        weight: float = 1.0,
    ) -> None:
        """Set the range and what has to be earned first.

        Args:
            min_tokens: Shortest completion that gets the bonus, tokens, the end-of-turn token included, >= 0.
            max_tokens: Longest one, tokens, >= `min_tokens`.
            task_threshold: Task reward that a rollout has to exceed to pass, in units of the weighted total.
            min_passing: Passing rollouts that a group needs before any of them gets the bonus, >= 1.
            weight: Factor in the total, unitless.

        Raises:
            ConfigError: If the range is empty or `min_passing` is below 1.
        """
        super().__init__(weight=weight)
        require(0 <= min_tokens <= max_tokens, "min_tokens", min_tokens, f"0 to max_tokens ({max_tokens})")
        require(min_passing >= 1, "min_passing", min_passing, "at least 1 rollout")
        self.min_tokens = min_tokens
        self.max_tokens = max_tokens
        self.task_threshold = task_threshold
        self.min_passing = min_passing

    def __call__(self, rollouts: Sequence[Rollout], task_rewards: Sequence[float] | None = None) -> list[float | None]:
        """Return 1.0 or 0.0 per rollout; all 0 when nothing is known to be earned."""
        earned = [0.0] * len(rollouts) if task_rewards is None else task_rewards
        passing = [reward > self.task_threshold for reward in earned]
        if sum(passing) < self.min_passing:
            return [0.0] * len(rollouts)
        return [
            float(passed and self.min_tokens <= len(rollout.completion_ids) <= self.max_tokens)
            for rollout, passed in zip(rollouts, passing, strict=True)
        ]
