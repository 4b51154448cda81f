"""Rewards of a group turned into advantages: how much better than its siblings a completion was.

Advantages are relative to the other completions of the same prompt, so no value model is needed. Beyond the group mean
there are three habits for the scale, and the choice matters: dividing by the group's own deviation weights nearly
solved and nearly hopeless prompts up.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from datamodules.errors import ConfigError

ScaleRewards = Literal["group", "batch", "none"]

EPSILON = 1e-4
"""Added to the standard deviation, so that a group without spread gives zeros."""


def group_advantages(
    rewards: Float[Tensor, "prompts group"], *, scale_rewards: ScaleRewards = "group"
) -> Float[Tensor, "prompts group"]:
    """Centre the rewards inside each group, and scale them as asked.

    With reward r_i, group mean m and deviation s (Bessel's correction): ``A_i = (r_i - m) / (s + 1e-4)``.

    Args:
        rewards: Total reward of each rollout, any finite range; with "batch", those of all processes.
        scale_rewards: "group" divides by the group's standard deviation, "batch" by that of all rewards given, "none"
            not at all.

    Returns:
        Advantages without unit; every row sums to 0, and a row of equal rewards is exactly 0.

    Raises:
        ConfigError: A group has fewer than two members.

    Reference:
        GRPO, "group": DeepSeekMath, arXiv:2402.03300, section 4.1.2; Omni-R1, arXiv:2505.20256, with the 1e-4. "none":
        Dr. GRPO, arXiv:2503.20783, section 3.2. "batch": Lite PPO, arXiv:2508.08221.
    """
    if rewards.shape[1] < 2:
        raise ConfigError(
            f"model.grpo.group_size is {rewards.shape[1]}; advantages compare at least 2 completions per prompt. "
            "Set --model.grpo.group_size 8."
        )
    centred = rewards - rewards.mean(dim=1, keepdim=True)
    # The mean of equal numbers can differ from them by rounding, and "batch" or "none" would train on that.
    centred = centred.masked_fill(has_no_spread(rewards)[:, None], 0.0)
    if scale_rewards == "none":
        return centred
    deviation = rewards.std() if scale_rewards == "batch" else rewards.std(dim=1, keepdim=True)
    return centred / (deviation + EPSILON)


def has_no_spread(rewards: Float[Tensor, "prompts group"]) -> Bool[Tensor, "prompts"]:
    """Which groups cannot teach anything: all their rewards are the same."""
    return torch.isclose(rewards.amax(dim=1), rewards.amin(dim=1), rtol=1e-6, atol=1e-8)
