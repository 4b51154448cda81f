"""What an update reports beside its loss: sums over tokens, which add up over micro-batches and processes."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class LossStats:
    """Sums over the trained tokens of some completions; every field is a tensor without axes.

    Attributes:
        loss: Their share of the update's loss.
        tokens: How many tokens.
        kl: KL estimate to the reference, nats.
        entropy: Entropy of the policy, nats.
        ratios: How many importance ratios: one per token, or one per completion.
        clipped_low: Ratios that were too low for a completion worse than its group, so without gradient.
        clipped_high: Ratios that were too high for a completion better than its group, so without gradient.
    """

    loss: Tensor
    tokens: Tensor
    kl: Tensor
    entropy: Tensor
    ratios: Tensor
    clipped_low: Tensor
    clipped_high: Tensor

    def detach(self) -> LossStats:
        """The same numbers in float32, without gradient."""
        return LossStats(*(value.detach().float() for value in self._values()))

    def __add__(self, other: LossStats) -> LossStats:
        return LossStats(*(mine + its for mine, its in zip(self._values(), other._values(), strict=True)))

    def pack(self) -> Float[Tensor, "fields"]:
        """All fields as one tensor, to be gathered over processes at once."""
        return torch.stack(self._values())

    def _values(self) -> tuple[Tensor, ...]:
        return tuple(getattr(self, field.name) for field in fields(self))


def loss_metrics(packed: Float[Tensor, "updates fields"], *, has_kl: bool) -> dict[str, float]:
    """What to log of the updates of one rollout, on all processes.

    Args:
        packed: `LossStats.pack` of every update of every process.
        has_kl: Whether there is a reference policy; without one there is no "kl".

    Returns:
        "loss" as mean over updates; "kl" and "entropy" in nats per token; "clip_ratio/…" as shares of all ratios: the
        mean over everything, and the lowest and highest share in any update. 0 where no token was trained.
    """
    stats = LossStats(*packed.T)
    per_token = stats.tokens.sum().clamp(min=1)
    low, high = (clipped / stats.ratios.clamp(min=1) for clipped in (stats.clipped_low, stats.clipped_high))
    ratios = stats.ratios.sum().clamp(min=1)
    metrics = {
        "loss": stats.loss.mean(),
        "kl": stats.kl.sum() / per_token,
        "entropy": stats.entropy.sum() / per_token,
        "clip_ratio/low_mean": stats.clipped_low.sum() / ratios,
        "clip_ratio/low_min": low.min(),
        "clip_ratio/high_mean": stats.clipped_high.sum() / ratios,
        "clip_ratio/high_max": high.max(),
        "clip_ratio/region_mean": (stats.clipped_low + stats.clipped_high).sum() / ratios,
    }
    if not has_kl:
        del metrics["kl"]
    return {name: float(value) for name, value in metrics.items()}
