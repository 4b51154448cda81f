"""Ctrl-C that loses nothing.

The first Ctrl-C lets the running step end, saves and stops, as a scheduler's SIGTERM does; a second one stops at once
and loses the steps since the last checkpoint. Only training is treated so: other commands stop at once.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback


class GracefulInterrupt(Callback):
    """Turns the first Ctrl-C of a training run into an orderly stop."""

    def __init__(self, *, enabled: bool = True) -> None:
        """Keep the setting.

        Args:
            enabled: False leaves Ctrl-C as it is.
        """
        self.enabled = enabled
        self._before: Callable[[int, FrameType | None], Any] | int | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start listening; only the first process passes the wish on, Lightning tells the others."""
        # Python lets only the main thread listen; a run inside a notebook's or a test's thread keeps the default.
        if not self.enabled or threading.current_thread() is not threading.main_thread():
            return

        def stop(number: int, frame: FrameType | None) -> None:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            if trainer.is_global_zero:
                sys.stderr.write("\nStopping after this step; Ctrl-C again stops at once, without saving.\n")
                os.kill(os.getpid(), signal.SIGTERM)

        self._before = signal.signal(signal.SIGINT, stop)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Give Ctrl-C back."""
        self._restore()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Give Ctrl-C back."""
        self._restore()

    def _restore(self) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
            self._before = None
