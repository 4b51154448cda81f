"""Ctrl-C and SIGTERM that lose nothing.

The first Ctrl-C, like a scheduler's SIGTERM, lets the running step end, saves and stops; a second Ctrl-C stops at once
and loses the steps since the last checkpoint. Only training is treated so: other commands stop at once.

With several processes a signal may reach some of them only, and each of them elsewhere in its step. So a signal does no
more than leave a wish, and after every step the processes agree whether any of them has one. Lightning would talk to
the other processes within the signal's handler, where its words meet those of whatever collective operation they wait
in, and all of them would wait for ever.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.exceptions import SIGTERMException

from callbacks.checkpoint import validation_follows


class GracefulInterrupt(Callback):
    """Turns the first Ctrl-C of a training run, and a SIGTERM, into an orderly stop of all its processes."""

    def __init__(self, *, enabled: bool = True) -> None:
        """Keep the setting.

        Args:
            enabled: False leaves Ctrl-C as it is; SIGTERM is listened to in any case.
        """
        self.enabled = enabled
        self._is_asked = False
        self._before: Callable[[int, FrameType | None], Any] | int | None = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Take the place of what Lightning will register for SIGTERM, before it does."""
        connector, self._is_asked = trainer._signal_connector, False

        def note(number: int, frame: FrameType | None) -> None:
            self._is_asked = True
            if trainer.state.fn == "fit" and not (trainer.sanity_checking and trainer.world_size == 1):
                return
            if trainer.world_size > 1:
                raise SIGTERMException
            connector.received_sigterm = True

        vars(connector)["_sigterm_notifier_fn"] = note

    def on_sanity_check_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop before the first step.

        Raises:
            SIGTERMException: Some process was asked to stop.
        """
        if self._is_any_asked(trainer):
            raise SIGTERMException

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start listening to Ctrl-C."""
        # Python lets only the main thread listen; a run inside a notebook's or a test's thread keeps the default.
        if not self.enabled or threading.current_thread() is not threading.main_thread():
            return

        def stop(number: int, frame: FrameType | None) -> None:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            self._is_asked = True
            if trainer.is_global_zero:
                part = "validation" if trainer.validating else "step"
                sys.stderr.write(f"\nStopping after this {part}; Ctrl-C again stops at once, without saving.\n")

        self._before = signal.signal(signal.SIGINT, stop)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Stop after this step, or after the validation where one follows it: half a validation cannot be saved."""
        if not validation_follows(trainer):
            self._stop_if_asked(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop after a validation within a training."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._stop_if_asked(trainer)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Give the signals back."""
        self._restore(trainer)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Give the signals back."""
        self._restore(trainer)

    def _is_any_asked(self, trainer: L.Trainer) -> bool:
        return trainer.strategy.reduce_boolean_decision(self._is_asked, all=False)

    def _stop_if_asked(self, trainer: L.Trainer) -> None:
        """Let Lightning stop all processes at the end of this iteration; the checkpoint callback saves before."""
        if self._is_any_asked(trainer):
            trainer._signal_connector.received_sigterm = True

    def _restore(self, trainer: L.Trainer) -> None:
        vars(trainer._signal_connector).pop("_sigterm_notifier_fn", None)
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
            self._before = None
