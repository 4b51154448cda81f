"""What a training step knows about each of its completions, over all processes, and what it logs of that.

Keys are those of TRL where TRL has one, so that curves of both can be laid over each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from jaxtyping import Float
from torch import Tensor

from datamodules.records import Rollout
from grpo.advantages import has_no_spread


@dataclass(frozen=True)
class StepTable:
    """One number per rollout and column; rows are prompts, process by process.

    Attributes:
        totals: Total reward.
        lengths: Completion tokens.
        truncated: 1 where the token limit cut the completion off.
        unparsable: 1 where the completion gave neither a keyframe nor an absent answer.
        absent: 1 where the completion says that the target is not there.
        prompt_tokens: Length of the prompt.
    """

    totals: Float[Tensor, "prompts group"]
    lengths: Float[Tensor, "prompts group"]
    truncated: Float[Tensor, "prompts group"]
    unparsable: Float[Tensor, "prompts group"]
    absent: Float[Tensor, "prompts group"]
    prompt_tokens: Float[Tensor, "prompts group"]

    @classmethod
    def of(
        cls, groups: Sequence[Sequence[Rollout]], totals: Sequence[Sequence[float]], prompt_tokens: Sequence[int]
    ) -> StepTable:
        """The table of one process; all groups have the same size."""
        rollouts = [list(group) for group in groups]
        return cls(
            totals=torch.tensor([list(row) for row in totals]),
            lengths=torch.tensor([[float(len(rollout.completion_ids)) for rollout in group] for group in rollouts]),
            truncated=torch.tensor([[float(rollout.is_truncated) for rollout in group] for group in rollouts]),
            unparsable=torch.tensor([[float(rollout.plan.is_unparsable) for rollout in group] for group in rollouts]),
            absent=torch.tensor([[float(rollout.plan.is_absent) for rollout in group] for group in rollouts]),
            prompt_tokens=torch.tensor([[float(length)] * len(rollouts[0]) for length in prompt_tokens]),
        )

    def pack(self) -> Float[Tensor, "prompts columns group"]:
        """All columns as one tensor, to be gathered over processes at once."""
        return torch.stack([getattr(self, column.name) for column in fields(self)], dim=1)

    @classmethod
    def unpack(cls, packed: Float[Tensor, "prompts columns group"]) -> StepTable:
        """Undo `pack`."""
        return cls(*packed.unbind(dim=1))

    def trained_tokens(self, *, mask_truncated: bool) -> Float[Tensor, "prompts"]:
        """Tokens that an update trains, per prompt."""
        return (self.lengths * (1 - self.truncated) if mask_truncated else self.lengths).sum(dim=1)

    def tokens(self) -> int:
        """Prompt and completion tokens of all rollouts; a prompt counts once per rollout, as in TRL."""
        return int((self.lengths + self.prompt_tokens).sum())

    def metrics(self) -> dict[str, float]:
        """Values by log key.

        Returns:
            "reward": mean total; "reward_std": mean over groups of their standard deviation; "frac_reward_zero_std":
            share of groups without spread; "completions/…": lengths in tokens, and shares in 0..1.
        """
        metrics = {
            "reward": self.totals.mean(),
            "reward_std": self.totals.std(dim=1).mean(),
            "frac_reward_zero_std": has_no_spread(self.totals).float().mean(),
            "completions/mean_length": self.lengths.mean(),
            "completions/min_length": self.lengths.min(),
            "completions/max_length": self.lengths.max(),
            "completions/clipped_ratio": self.truncated.mean(),
            "completions/parse_failures": self.unparsable.mean(),
            "completions/absent": self.absent.mean(),
        }
        return {name: float(value) for name, value in metrics.items()}
