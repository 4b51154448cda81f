"""Learning-rate schedule, planned updates, precision, gradient norm: what manual optimization sees to itself."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import lightning as L
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from datamodules.errors import ConfigError, RunError


@dataclass(frozen=True)
class Schedule:
    """How the learning rate changes, as a factor of the optimizer's own.

    Attributes:
        warmup_steps: Updates over which it rises to 1, the first of them above 0.
        decay: Shape of the way down after the warm-up: "linear", "cosine", or "constant" for none.
        floor: Factor at the end, 0..1.
        total_steps: Updates until the end; None works them out from the trainer and the data.
    """

    warmup_steps: int = 0
    decay: Literal["linear", "cosine", "constant"] = "linear"
    floor: float = 0.1
    total_steps: int | None = None

    def __post_init__(self) -> None:
        """Refuse what is no schedule.

        Raises:
            ConfigError: A value is out of range; all such values are named.
        """
        problems = []
        if self.warmup_steps < 0:
            problems.append(f"model.schedule.warmup_steps is {self.warmup_steps}; expected 0 or more")
        if not 0 <= self.floor <= 1:
            problems.append(f"model.schedule.floor is {self.floor}; expected a factor in 0..1")
        if self.total_steps is not None and self.total_steps < 1:
            problems.append(f"model.schedule.total_steps is {self.total_steps}; expected at least 1, or null")
        if problems:
            raise ConfigError(f"{'; '.join(problems)}. Set the --model.schedule keys named here.")

    def factor(self, step: int, total_steps: int) -> float:
        """Factor of the learning rate in one update.

        Args:
            step: Updates already made.
            total_steps: Updates until the end; from there on the factor stays at the floor.

        Returns:
            More than 0 during the warm-up, then between the floor and 1.
        """
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        if self.decay == "constant":
            return 1.0
        progress = min(1.0, (step - self.warmup_steps) / max(1, total_steps - self.warmup_steps))
        fall = progress if self.decay == "linear" else (1 - math.cos(math.pi * progress)) / 2
        return 1 - (1 - self.floor) * fall


def refuse_scaling(precision: str) -> None:
    """Refuse the precision that manual optimization cannot train in.

    Args:
        precision: The trainer's, as Lightning spells it.

    Raises:
        ConfigError: Gradients would be scaled behind the clipping's back.
    """
    if precision == "16-mixed":
        raise ConfigError(
            "trainer.precision is 16-mixed, whose gradient scaling does not go with several updates per rollout. "
            "Set --trainer.precision bf16-mixed."
        )


def refuse_half_adapter(precision: str) -> None:
    """Refuse precisions in which an adapter cannot be trained, whatever trains it.

    Args:
        precision: The trainer's, as Lightning spells it.

    Raises:
        ConfigError: The adapter would be kept in 16 bits, in which 0.05 + 0.0001 is 0.05.
    """
    if precision in ("16-true", "bf16-true"):
        raise ConfigError(
            f"trainer.precision is {precision}, which keeps the adapter in 16 bits and rounds its small updates away. "
            "Set --trainer.precision bf16-mixed; --model.reasoner.dtype bfloat16 stores the frozen base in 16 bits."
        )


def planned_updates(trainer: L.Trainer, *, updates_per_batch: int) -> int | None:
    """Optimizer steps until the run ends, without touching the data loader.

    Lightning's own estimate counts batches, and asking for it builds the loader before its state is restored.

    Args:
        trainer: Its limits, and its data module's `rollouts_per_epoch`.
        updates_per_batch: Optimizer steps per batch.

    Returns:
        The smallest limit that is known; None when none is.
    """
    limits = [trainer.max_steps] if trainer.max_steps > 0 else []
    rollouts = getattr(getattr(trainer, "datamodule", None), "rollouts_per_epoch", None)
    if rollouts is not None and trainer.max_epochs is not None and trainer.max_epochs > 0:
        limit = trainer.limit_train_batches
        rollouts = int(rollouts * limit) if isinstance(limit, float) else min(rollouts, limit)
        limits.append(max(1, rollouts) * trainer.max_epochs * updates_per_batch)
    return min(limits) if limits else None


@contextlib.contextmanager
def gradient_sync(wrapped: nn.Module | None, *, enabled: bool) -> Iterator[None]:
    """Exchange gradients between processes at the end of the block's backward pass, or only add them up locally.

    Args:
        wrapped: The strategy's model; anything but DistributedDataParallel decides for itself.
        enabled: True for the last backward pass of an update.
    """
    if enabled or not isinstance(wrapped, DistributedDataParallel):
        yield
    else:
        with wrapped.no_sync():
            yield


def clip_gradients(parameters: Sequence[nn.Parameter], max_norm: float) -> float:
    """Scale all gradients so that their common norm is at most `max_norm`.

    Args:
        parameters: The trained weights, whole or sharded over processes.
        max_norm: Largest norm; 0 leaves the gradients as they are.

    Returns:
        The norm before clipping.

    Raises:
        RunError: The norm is not finite; a step with it would destroy the weights.
    """
    norm = nn.utils.clip_grad_norm_(parameters, max_norm or math.inf)
    value = float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)
    if not math.isfinite(value):
        raise RunError(
            f"expected a finite gradient norm, found {value}. Lower --model.optimizer.lr or "
            "--model.grpo.max_grad_norm, or raise --model.grpo.beta, and go on from the last checkpoint."
        )
    return value


def scheduled(
    optimizer: torch.optim.Optimizer, schedule: Schedule, total_steps: int, *, ahead: Callable[[], int] = int
) -> torch.optim.lr_scheduler.LambdaLR:
    """The scheduler that applies a `Schedule` to every parameter group, one step per update.

    Args:
        optimizer: Its rates are multiplied.
        schedule: The factors.
        total_steps: Updates until the end.
        ahead: Updates that the schedule is ahead of those that were made; asked for every time.
    """
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: schedule.factor(step + ahead(), total_steps))
