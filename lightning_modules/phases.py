"""Which part of a step is running, and how long each took.

A step of GRPO spends its time in parts that have little in common, and a person who waits wants to know in which one.
Clocks are read between the parts without waiting for the device; each part ends by reading a result from it, which
comes to the same.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from torch import nn

from datamodules.records import Rollout

STEP_PHASES = ("rollout", "System 2", "rewards", "exchange", "update")
"""Parts of a training step, in their order."""
IDLE = "idle"
"""Name of the time between steps."""


class PhaseClock:
    """Names the running part and adds up seconds.

    Attributes:
        current: The running part: "rollout", "System 2", "rewards", "exchange", "update", or "idle".
        sample: Clips that the running part works on; empty between parts.
        passes: Passes through the language model so far; those who wait see by it that a long part goes on.
        listeners: Called with the new name at every change, such as by a progress bar.
    """

    def __init__(self) -> None:
        self.current = IDLE
        self.sample = ""
        self.passes = 0
        self.listeners: list[Callable[[str], None]] = []
        self._seconds: dict[str, float] = {}
        self._counted: nn.Module | None = None

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Run the block as this part; time spent in it adds to earlier visits since the last `lap`."""
        before, start = self.current, time.perf_counter()
        self._enter(name)
        try:
            yield
        finally:
            self._seconds[name] = self._seconds.get(name, 0.0) + time.perf_counter() - start
            self._enter(before)

    def look_at(self, *clip_ids: str) -> None:
        """Name the clips that are worked on, for those who wait."""
        self.sample = ", ".join(clip_ids)

    def through(self, groups: Iterable[Sequence[Rollout]]) -> Iterator[Sequence[Rollout]]:
        """Rollouts of one clip after another, each clip named while they are worked on."""
        for group in groups:
            self.look_at(*(rollout.clip.id for rollout in group[:1]))
            yield group

    def count_passes_of(self, embedding: nn.Module) -> None:
        """Count whenever tokens are embedded, which every pass begins with; a second call for the same changes nothing.

        Replays of a CUDA graph call no module, so that graphs begin behind the embedding.
        """
        if embedding is not self._counted:
            self._counted = embedding
            embedding.register_forward_pre_hook(self._count_pass)

    def _count_pass(self, *_: object) -> None:
        self.passes += 1

    def lap(self) -> dict[str, float]:
        """Seconds per part since the last call, by log key: "time/rollout_s", "time/system_2_s" and so on."""
        lap = {f"time/{name.lower().replace(' ', '_')}_s": seconds for name, seconds in self._seconds.items()}
        self._seconds = {}
        return lap

    def _enter(self, name: str) -> None:
        self.current, self.sample = name, ""
        for listener in self.listeners:
            listener(name)
