"""Where a learning-rate schedule goes on when updates have become larger or smaller.

Schedules count updates. A run that is resumed on another number of processes, or with other prompts per step, makes
another number of updates in what is left of its epochs; counted on as they are, they would end half-way down, or at
once. So the updates behind count as what they would have been with the new size, and the schedule goes on at the same
prompt.
"""

from __future__ import annotations

from typing import Any

import lightning as L

from lightning_modules.optim import planned_updates

_KEY = "prompts_asked"


class Pace:
    """How many updates a schedule is ahead of those that were made.

    Attributes:
        ahead: Negative when the updates before a resume were larger in number than they would be now.
    """

    def __init__(self) -> None:
        """Begin a run."""
        self.ahead = 0

    def save(self, checkpoint: dict[str, Any], trainer: L.Trainer, updates_per_batch: int) -> None:
        """Keep how many prompts the schedule has seen.

        Args:
            checkpoint: Changed in place; left as it is where the data do not say how many prompts a step has.
            trainer: Its number of processes, and its data module's `prompts_per_step`.
            updates_per_batch: Optimizer steps per batch.
        """
        size = _prompts_per_step(trainer)
        if size is not None:
            checkpoint[_KEY] = round((trainer.global_step + self.ahead) * size / updates_per_batch)

    def load(self, checkpoint: dict[str, Any], trainer: L.Trainer, updates_per_batch: int) -> None:
        """Find the place that `save` kept; a run that ends after a number of updates counts them as they were made.

        Args:
            checkpoint: From `save`; one without a place is at the updates that were made.
            trainer: Its limits, its number of processes and its data module.
            updates_per_batch: Optimizer steps per batch.
        """
        size = _prompts_per_step(trainer)
        by_epochs = planned_updates(trainer, updates_per_batch=updates_per_batch) not in (None, trainer.max_steps)
        if size is not None and by_epochs and _KEY in checkpoint:
            self.ahead = round(checkpoint[_KEY] * updates_per_batch / size) - int(checkpoint["global_step"])


def _prompts_per_step(trainer: L.Trainer) -> int | None:
    prompts = getattr(getattr(trainer, "datamodule", None), "prompts_per_step", None)
    return None if prompts is None else int(prompts) * trainer.world_size
