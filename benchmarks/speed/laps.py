"""Clocks for measuring side by side on a machine that is not quiet."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Laps:
    """Adds up the seconds of named parts: processor time of this process on a CPU, time on the wall on a GPU.

    Processor time leaves out what else runs on the machine, but not that it takes its part of caches and memory: beside
    a busy core everything takes up to 1.4 times as long, on all sides alike. So ratios can be compared with those of
    another day, seconds cannot.

    Attributes:
        seconds: Per part, since the last `take`.
    """

    def __init__(self, device: torch.device) -> None:
        """Choose the clock.

        Args:
            device: What is waited for before the clock is read.
        """
        self._device = device
        self.seconds: dict[str, float] = defaultdict(float)

    def now(self) -> float:
        """Seconds on the clock, after everything that was launched is done."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
            return time.perf_counter()
        return time.process_time()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count the block under a name."""
        start = self.now()
        yield
        self.seconds[name] += self.now() - start

    def take(self) -> dict[str, float]:
        """What was counted, and begin anew."""
        taken, self.seconds = dict(self.seconds), defaultdict(float)
        return taken


def medians(rows: list[dict[str, float]]) -> dict[str, float]:
    """Median of every part over some rounds; a part that a round lacks counts as 0 there."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    return {name: statistics.median(row.get(name, 0.0) for row in rows) for name in names}
