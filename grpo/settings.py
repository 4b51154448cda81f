"""The settings of GRPO, with the names that the field uses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from datamodules.errors import ConfigError
from grpo.advantages import ScaleRewards

LossType = Literal["grpo", "bnpo", "dapo", "dr_grpo"]
ImportanceLevel = Literal["token", "sequence"]


@dataclass(frozen=True)
class GRPOSettings:
    """What is optimized, and in which portions.

    Attributes:
        group_size: Completions per prompt, G; at least 2.
        updates_per_rollout: Optimizer steps on the same completions; beyond the first the ratio differs from 1.
        micro_batch_tokens: Most tokens per forward and backward pass, prompts included; changes memory and speed, never
            the result. A single completion and its prompt always go together, even when they are more.
        beta: Weight of the KL penalty to the base model; 0 skips the reference pass.
        epsilon: How far the ratio may fall below 1 before it is clipped.
        epsilon_high: How far it may rise above 1; None takes `epsilon`.
        loss_type: How tokens are averaged: "grpo" per completion first, "bnpo" over all tokens of this process, "dapo"
            over all tokens of all processes, "dr_grpo" by the longest possible completion.
        scale_rewards: What advantages are divided by: the deviation of their "group", of the "batch", or "none".
        importance_level: One ratio per "token", or one per "sequence" (GSPO).
        mask_truncated: Leave completions that the token limit cut out of the loss.
        max_grad_norm: Largest norm of the gradient over all trained weights; 0 does not clip.
        skip_zero_advantage: Leave groups without spread in their rewards out of the update. With beta 0 that changes
            nothing but the time; otherwise it also drops their KL penalty.
        engine: Which implementation samples and scores completions: "shared" computes every prompt once for all of its
            completions, "plain" every row on its own. They give the same.
        rollout_rows: Most completions that "shared" samples at a time; fewer take less memory.
        merge_adapter: Let "shared" sample from a copy of the weights that the adapter is folded into; null does so
            where nothing is lost by it, with float32 weights on a CPU.
        check_every: Rollouts between two comparisons of "shared" with "plain"; 0 compares in the first two only.
    """

    group_size: int = 8
    updates_per_rollout: int = 1
    micro_batch_tokens: int = 16384
    beta: float = 0.04
    epsilon: float = 0.2
    epsilon_high: float | None = None
    loss_type: LossType = "grpo"
    scale_rewards: ScaleRewards = "group"
    importance_level: ImportanceLevel = "token"
    mask_truncated: bool = False
    max_grad_norm: float = 1.0
    skip_zero_advantage: bool = False
    engine: Literal["shared", "plain"] = "shared"
    rollout_rows: int = 64
    merge_adapter: bool | None = None
    check_every: int = 0

    def __post_init__(self) -> None:
        """Refuse settings that cannot work, all at once.

        Raises:
            ConfigError: A value is out of range.
        """
        checks = {
            "group_size": (self.group_size >= 2, "at least 2 completions per prompt, because they are compared"),
            "updates_per_rollout": (self.updates_per_rollout >= 1, "at least 1"),
            "micro_batch_tokens": (self.micro_batch_tokens >= 1, "at least 1"),
            "beta": (self.beta >= 0, "0 (no KL penalty) or more"),
            "epsilon": (0 < self.epsilon < 1, "more than 0 and less than 1"),
            "epsilon_high": (self.clip_high > 0, "more than 0, or null to take epsilon"),
            "max_grad_norm": (self.max_grad_norm >= 0, "0 (no clipping) or more"),
            "rollout_rows": (self.rollout_rows >= 1, "at least 1"),
            "check_every": (self.check_every >= 0, "0 (first two rollouts only) or more"),
        }
        problems = [
            f"model.grpo.{name} is {getattr(self, name)}; expected {expected}"
            for name, (is_valid, expected) in checks.items()
            if not is_valid
        ]
        if problems:
            raise ConfigError(f"{'; '.join(problems)}. Set the --model.grpo keys named here.")

    @property
    def clip_high(self) -> float:
        """How far the ratio may rise above 1."""
        return self.epsilon if self.epsilon_high is None else self.epsilon_high
