"""Ends a run of several processes as soon as one of them cannot go on, and says which one and why.

Without it a process that fails leaves the others waiting in a collective operation until that times out, half an hour
later, with a message that names nobody. Every process has a thread that writes where it is and reads where the others
are (`lightning_modules.rank_board`), and that ends the process when the run cannot go on. Checkpoints are complete at
any moment, so nothing but the steps since the last one is lost.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning as L
import torch.distributed as dist
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.exceptions import SIGTERMException

from lightning_modules.cli_resume import resume_command
from lightning_modules.rank_board import Position, RankBoard, RankError, Sign, describe

_ORDERLY = (SIGTERMException, KeyboardInterrupt, SystemExit)
_BROKEN_CONNECTION = re.compile(r"gloo|nccl|connection (closed|reset|refused)|broken pipe|process group", re.IGNORECASE)
_GRACE_S = 5.0
"""How long the main thread may take to notice by itself that the run has ended."""


class RankWatch(Callback):
    """Watches over the processes of a run; with one process it does nothing."""

    def __init__(
        self,
        *,
        enabled: bool = True,
        every_s: float = 1.0,
        lost_after_s: float = 30.0,
        stalled_after_s: float = 300.0,
        stop_after_s: float = 1500.0,
    ) -> None:
        """Keep the settings.

        Args:
            enabled: False watches nothing.
            every_s: Seconds between two signs of life.
            lost_after_s: Without a sign for so long, a process counts as gone.
            stalled_after_s: When no process has moved for so long, it is reported where each of them is.
            stop_after_s: When no process has moved for so long, the run ends; less than the time limit of collective
                operations, which do not say who is missing. Before the first movement it does not: weights may have
                to be downloaded, or read from a slow disk by many.
        """
        self.enabled = enabled
        self.every_s, self.lost_after_s = every_s, lost_after_s
        self.stalled_after_s, self.stop_after_s = stalled_after_s, stop_after_s
        self.verdict = ""
        self._board: RankBoard | None = None
        self._stop, self._noticed = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        self._seen: dict[int, tuple[int, float]] = {}
        self._moved: tuple[dict[int, Position], float] = ({}, time.monotonic())
        self._has_begun, self._reported_s = False, 0.0
        self._is_said = False

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Begin to watch; all processes come here together."""
        if not self.enabled or trainer.world_size < 2 or self._board is not None:
            return
        patience = timedelta(seconds=self.lost_after_s)
        self._board = RankBoard(trainer.global_rank, trainer.world_size, trainer.strategy.broadcast, patience=patience)
        self.verdict, self._is_said = "", False
        self._stop, self._noticed = threading.Event(), threading.Event()
        self._seen, self._moved, self._reported_s = {}, ({}, time.monotonic()), 0.0
        self._has_begun = False
        self._thread = threading.Thread(target=self._watch, args=(trainer, pl_module), daemon=True, name="rank-watch")
        self._thread.start()

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Leave in good order; the process that keeps the board leaves last."""
        board = self._end_thread()
        if board is None or self.verdict:
            return
        board.write(place(trainer, pl_module), has_left=True)
        deadline = time.monotonic() + 2 * self.lost_after_s
        while board.rank == 0 and time.monotonic() < deadline:
            if all(sign.has_left for sign in board.read().values()):
                break
            time.sleep(0.05)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Tell the others why this process ends, or find out why its connection to them has broken.

        Raises:
            RankError: This process ends because of another one, which is named.
        """
        board = self._board
        if board is not None and isinstance(exception, SIGTERMException) and trainer.state.fn == "fit":
            # All processes have agreed to stop, and saved; who ends first is not missed by the others.
            self.teardown(trainer, pl_module, "fit")
        if board is None or isinstance(exception, _ORDERLY):
            return
        self._noticed.set()
        is_broken = isinstance(exception, dist.DistError) or bool(_BROKEN_CONNECTION.search(str(exception)))
        if not (self.verdict or is_broken):
            reason = f"rank {board.rank} failed in {place(trainer, pl_module)}: {type(exception).__name__}: {exception}"
            self._end_thread()
            self.verdict = reason
            with contextlib.suppress(RankError):
                board.fail(reason)
            # The others have to read it before the board goes with this process.
            time.sleep(3 * self.every_s)
            return
        deadline = time.monotonic() + self.lost_after_s + 3 * self.every_s
        while not self.verdict and time.monotonic() < deadline:
            time.sleep(0.05)
        self._end_thread()
        if self.verdict:
            for logger in trainer.loggers:
                logger.finalize("failed")
            raise RankError(self.ending(trainer), is_said=self._is_said) from exception

    def ending(self, trainer: L.Trainer) -> str:
        """The verdict, and how to go on."""
        last = getattr(trainer.checkpoint_callback, "last_model_path", "")
        advice = f" Go on with: {resume_command(Path(last).parent.parent)}" if last else ""
        return f"{self.verdict}. All processes stop.{advice}"

    def _watch(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        board = self._board
        while board is not None and not self._stop.wait(self.every_s):
            try:
                board.write(place(trainer, module))
                self.verdict = board.failure or self._judge(board, board.read())
                if self.verdict:
                    board.fail(self.verdict)
            except RankError as error:
                self.verdict = f"{error}; this is rank {board.rank} in {place(trainer, module)}"
            if self.verdict:
                self._finish(trainer)
                return

    def _judge(self, board: RankBoard, signs: dict[int, Sign]) -> str:
        """Why the run cannot go on; empty when it can."""
        now = time.monotonic()
        for rank, sign in signs.items():
            beat, when = self._seen.get(rank, (0, now))
            self._seen[rank] = (sign.beat, now if sign.beat != beat else when)
            silent_s = now - self._seen[rank][1]
            if rank == board.rank or sign.has_left:
                continue
            if sign.is_dead or silent_s > self.lost_after_s:
                how = "its process has ended" if sign.is_dead else f"no sign of it for {silent_s:.0f} s"
                return f"rank {rank} is gone ({how}); it was last seen in {sign.position}"
        positions = {rank: sign.position for rank, sign in signs.items()}
        if positions != self._moved[0]:
            before, blank = self._moved[0], Position()
            # Every process begins at a blank place, and has left it before it reads weights.
            self._has_begun |= any(before.get(rank, blank) not in (blank, now_at) for rank, now_at in positions.items())
            self._moved, self._reported_s = (positions, now), 0.0
        still_s = now - self._moved[1]
        if self._has_begun and still_s > self.stop_after_s:
            return f"no process has moved for {still_s:.0f} s. {describe(signs)}"
        if board.rank == 0 and still_s > max(self.stalled_after_s, 2 * self._reported_s):
            self._reported_s = still_s
            sys.stderr.write(f"\nno process has moved for {still_s:.0f} s. {describe(signs)}\n")
        return ""

    def _finish(self, trainer: L.Trainer) -> None:
        """End this process, unless its main thread does so by itself.

        A thread that waits in a collective operation cannot be woken up, so there is no gentler way.
        """
        if self._noticed.wait(self.every_s):
            return
        self._is_said = True
        sys.stderr.write(f"\nerror: {self.ending(trainer)}\n")
        sys.stderr.flush()
        if self._noticed.wait(_GRACE_S):
            return
        for logger in trainer.loggers:
            logger.finalize("failed")
        os._exit(1)

    def _end_thread(self) -> RankBoard | None:
        board, self._board = self._board, None
        self._stop.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        self._thread = None
        return board


def place(trainer: L.Trainer, module: Any) -> Position:  # noqa: ANN401 (any module, with a phase clock or without)
    """Where this process is."""
    clock = getattr(module, "clock", None)
    phase = "idle" if clock is None else clock.current
    stage = trainer.state.stage
    running = "" if stage is None else str(stage.value)
    step = getattr(module, "rollout_step", trainer.global_step)
    if clock is None:
        return Position(step, running)
    if phase == "idle":
        return Position(step, running, passes=clock.passes)
    # Held-out clips go through the same phases; each of them is a movement.
    return Position(step, phase, clock.sample if running == "train" else f"{clock.sample} ({running})", clock.passes)
