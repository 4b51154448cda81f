"""A board on which the processes of a run write where they are, and read where the others are.

Collective operations only say that they have waited too long, and not for whom. Through the board, which is a key-value
store of its own beside the process group, a process that fails can say why, and one that waits can say for which other
process, in which part of the step and with which clip.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch.distributed as dist

from datamodules.errors import RunError
from lightning_modules.phases import STEP_PHASES

_FAILURE = "failure"


class RankError(RunError):
    """Another process of the run has failed, is gone, or does not come on.

    Args:
        text: Which one, and why.
        is_said: It has been printed already.
    """

    def __init__(self, text: str, *, is_said: bool = False) -> None:
        super().__init__(text)
        self.is_said = is_said


@dataclass(frozen=True)
class Position:
    """Where a process is.

    Attributes:
        step: Training batches before this one.
        phase: Part of the step, as the phase clock names it, or what else runs, such as "validate".
        sample: Clips that are worked on; empty when there are none.
        passes: Passes through the language model so far; not shown, but a process that makes some has moved.
    """

    step: int = 0
    phase: str = ""
    sample: str = ""
    passes: int = 0

    def __str__(self) -> str:
        return f"step {self.step}, {self.phase or 'starting'}{f', with {self.sample}' if self.sample else ''}"

    @property
    def order(self) -> tuple[int, int]:
        """Grows on the way through a run; equal where two places cannot be compared."""
        return self.step, STEP_PHASES.index(self.phase) if self.phase in STEP_PHASES else len(STEP_PHASES)


@dataclass(frozen=True)
class Sign:
    """What a process has last written.

    Attributes:
        position: Where it was.
        beat: Counts its signs; one that does not grow comes from a process that does not live.
        moved_s: Seconds for which it had been there.
        machine: Where the process number means something.
        process: Its number there.
        has_left: It has ended in good order.
    """

    position: Position
    beat: int
    moved_s: float
    machine: str
    process: int
    has_left: bool = False

    def dump(self) -> str:
        """As text."""
        return json.dumps(asdict(self))

    @classmethod
    def load(cls, text: str) -> Sign:
        """Undo `dump`."""
        fields = json.loads(text)
        return cls(**fields | {"position": Position(**fields["position"])})

    @property
    def is_dead(self) -> bool:
        """The process ran on this machine and does not any more."""
        return self.machine != "" and self.machine == this_machine() and not _is_running(self.process)


class RankBoard:
    """The board as one process sees it.

    Args:
        rank: Of this process; process 0 keeps the board.
        world_size: Number of processes.
        broadcast: Gives all processes the value of the first.
        patience: How long to wait for the board's keeper before it counts as gone.
    """

    def __init__(
        self,
        rank: int,
        world_size: int,
        broadcast: Callable[[tuple[str, int]], tuple[str, int]],
        *,
        patience: timedelta,
    ) -> None:
        self.rank, self.world_size = rank, world_size
        self._beat, self._position, self._since = 0, Position(), time.monotonic()
        host, port = os.environ.get("MASTER_ADDR", "127.0.0.1"), 0
        open_store: Any = dist.TCPStore  # type: ignore[attr-defined]  # not in torch's list of exports
        if rank == 0:
            self._store = open_store(host, 0, is_master=True, wait_for_workers=False, timeout=patience)
            port = self._store.port
            self._store.set(_FAILURE, "")
        host, port = broadcast((host, port))
        if rank:
            self._store = open_store(host, port, is_master=False, wait_for_workers=False, timeout=patience)
        self.write(Position())

    def write(self, position: Position, *, has_left: bool = False) -> None:
        """Give a sign of life.

        Raises:
            RankError: The process that keeps the board is gone.
        """
        now = time.monotonic()
        if position != self._position:
            self._position, self._since = position, now
        self._beat += 1
        sign = Sign(position, self._beat, now - self._since, this_machine(), os.getpid(), has_left)
        with self._asking():
            self._store.set(_key(self.rank), sign.dump())

    def read(self) -> dict[int, Sign]:
        """The newest signs of all processes that have given any.

        Raises:
            RankError: The process that keeps the board is gone.
        """
        with self._asking():
            known = [rank for rank in range(self.world_size) if self._store.check([_key(rank)])]
            texts: list[bytes] = self._store.multi_get([_key(rank) for rank in known])
        return {rank: Sign.load(text.decode()) for rank, text in zip(known, texts, strict=True)}

    def fail(self, reason: str) -> None:
        """Tell all processes why the run has to end; the first reason stays.

        Raises:
            RankError: The process that keeps the board is gone.
        """
        with self._asking():
            self._store.compare_set(_FAILURE, "", reason)

    @property
    def failure(self) -> str:
        """Why the run has to end; empty as long as it goes on.

        Raises:
            RankError: The process that keeps the board is gone.
        """
        with self._asking():
            reason: bytes = self._store.get(_FAILURE)
        return reason.decode()

    @contextlib.contextmanager
    def _asking(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:  # of which torch's own errors are kinds
            if self.rank == 0:
                raise
            raise RankError("rank 0 is gone: it does not answer any more") from error


def describe(signs: Mapping[int, Sign]) -> str:
    """Where everybody is, those who are behind first."""
    ranks = sorted(signs, key=lambda rank: (signs[rank].position.order, rank))
    return "; ".join(f"rank {rank}: {signs[rank].position} (for {signs[rank].moved_s:.0f} s)" for rank in ranks)


def this_machine() -> str:
    """A name that two processes share when their process numbers mean the same; empty where that is not known."""
    namespace = Path("/proc/self/ns/pid")
    return f"{socket.gethostname()} {namespace.readlink()}" if namespace.is_symlink() else ""


def _is_running(process: int) -> bool:
    """Whether a process of this machine lives; one that waits to be buried does not."""
    try:
        status = Path(f"/proc/{process}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] not in "ZX"


def _key(rank: int) -> str:
    return f"rank {rank}"
