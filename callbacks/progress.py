"""Where a run stands: the step, the phase within it, reward, KL divergence and completion length.

In a terminal this is a bar that is redrawn; anywhere else (a log file, a pipe) it is one line per so many steps. The
loss is left out on purpose: in GRPO it starts at 0 and says nothing about progress.
"""

from __future__ import annotations

import math
import time
from typing import Any

import lightning as L
import rich
from lightning.pytorch.callbacks import ProgressBar
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

_SHOWN = {"reward": "reward", "kl": "kl", "completions/mean_length": "len", "loss": "loss", "train/loss": "loss"}


class RunProgress(ProgressBar):
    """Progress of any command, as a bar or as lines."""

    def __init__(self, *, every_n_steps: int = 1) -> None:
        """Keep the settings.

        Args:
            every_n_steps: Steps between two lines where there is no terminal; 0 prints none.
        """
        super().__init__()
        self.every_n_steps = every_n_steps
        self._is_enabled = True
        self._bars: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._last_line_s = 0.0

    def disable(self) -> None:
        """Show nothing; called on all processes but the first."""
        self._is_enabled = False

    def enable(self) -> None:
        """Show progress again."""
        self._is_enabled = True

    def print(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 (the signature of Lightning's base class)
        """Print above the bar."""
        rich.get_console().print(*args, **kwargs)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Listen to the module's phases, where it has some."""
        super().setup(trainer, pl_module, stage)
        if not trainer.is_global_zero:
            self.disable()
        clock = getattr(pl_module, "clock", None)
        if clock is not None and self._on_phase not in clock.listeners:
            clock.listeners.append(self._on_phase)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin the bar of the training."""
        self._last_line_s = time.monotonic()
        self._begin("train", planned_batches(trainer, pl_module), trainer.fit_loop.epoch_loop.total_batch_idx + 1)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """One step further."""
        done = trainer.fit_loop.epoch_loop.total_batch_idx + 1
        numbers = shown_metrics(trainer)
        if self._bars is not None:
            self._move("train", done, numbers)
        elif self._is_enabled and self.every_n_steps and done % self.every_n_steps == 0:
            now = time.monotonic()
            total = planned_batches(trainer, pl_module)
            of = f"/{total}" if total else ""
            self.print(f"step {done}{of}  {numbers}  {(now - self._last_line_s) / self.every_n_steps:.1f} s/step")
            self._last_line_s = now

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin the bar of a validation, or say that one has begun."""
        batches = trainer.num_sanity_val_batches if trainer.sanity_checking else trainer.num_val_batches
        self._begin("validate", _total(batches), 0)

    def on_validation_batch_end(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 (Lightning's arguments)
        """One batch further."""
        self._move("validate", None)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Drop the bar of the validation; its time is no step's."""
        self._end("validate")
        self._last_line_s = time.monotonic()

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin the bar of the test."""
        self._begin("test", _total(trainer.num_test_batches), 0)

    def on_test_batch_end(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 (Lightning's arguments)
        """One batch further."""
        self._move("test", None)

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin the bar of the prediction."""
        self._begin("predict", _total(trainer.num_predict_batches), 0)

    def on_predict_batch_end(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 (Lightning's arguments)
        """One batch further."""
        self._move("predict", None)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Give the terminal back."""
        self._stop()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Give the terminal back before the error is shown."""
        self._stop()

    def _begin(self, name: str, total: int | None, done: int) -> None:
        if not self._is_enabled:
            return
        console = rich.get_console()
        if not console.is_terminal:
            return
        if self._bars is None:
            columns = [
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
            ]
            self._bars = Progress(
                *columns, TimeRemainingColumn(), TextColumn("{task.fields[numbers]}"), console=console
            )
            self._bars.start()
        self._tasks[name] = self._bars.add_task(name, total=total, completed=done, numbers="")

    def _move(self, name: str, done: int | None, numbers: str = "") -> None:
        if self._bars is not None and name in self._tasks:
            task = self._tasks[name]
            self._bars.update(task, completed=self._bars.tasks[task].completed + 1 if done is None else done)
            self._bars.update(task, numbers=numbers)

    def _end(self, name: str) -> None:
        task = self._tasks.pop(name, None)
        if self._bars is not None and task is not None:
            self._bars.remove_task(task)
            if not self._tasks:
                self._stop()

    def _stop(self) -> None:
        if self._bars is not None:
            self._bars.stop()
        self._bars, self._tasks = None, {}

    def _on_phase(self, name: str) -> None:
        if self._bars is not None and "train" in self._tasks:
            # A fixed width keeps the bar from jumping whenever the phase changes.
            self._bars.update(self._tasks["train"], description=f"{'train' if name == 'idle' else name:<8}")


def planned_batches(trainer: L.Trainer, module: L.LightningModule) -> int | None:
    """Training batches until the run ends, by its limits of steps and epochs; None when it has neither."""
    limits = []
    if trainer.max_steps and trainer.max_steps > 0:
        limits.append(math.ceil(trainer.max_steps / getattr(module, "updates_per_batch", 1)))
    if trainer.max_epochs and trainer.max_epochs > 0 and math.isfinite(trainer.num_training_batches):
        limits.append(int(trainer.max_epochs * trainer.num_training_batches))
    return min(limits) if limits else None


def shown_metrics(trainer: L.Trainer) -> str:
    """The few numbers that fit beside a bar, such as `reward 0.41  kl 0.003  len 38`."""
    numbers = {}
    for key, name in _SHOWN.items():
        if key in trainer.callback_metrics and not (name == "loss" and "reward" in numbers):
            numbers[name] = float(trainer.callback_metrics[key])
    return "  ".join(f"{name} {value:.3g}" for name, value in numbers.items())


def _total(batches: list[int | float]) -> int | None:
    total = sum(batches)
    return int(total) if math.isfinite(total) else None
