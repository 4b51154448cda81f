"""Which clips each process sees when, and loaders that resume exactly where a checkpoint was written.

Every process follows the same order of global batches and takes its own part of each, so the prompts of a step do not
depend on how many processes share them. An epoch's order depends on the seed and the epoch alone. A training loader's
state counts what was handed to the trainer and not what workers had read ahead, and is the same in every process.

The loaders wrap PyTorch's and are no `DataLoader` themselves, on purpose: Lightning would give a `DataLoader` a
sampler of its own as soon as there are several processes, one that always shuffles and repeats clips.

Lightning asks for an iterator before it says which epoch begins, and restores the state in between. The order is
therefore fixed when the first batch is taken, not when the iterator is made.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterator
from typing import NotRequired, TypedDict

import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler

from datamodules.errors import ConfigError
from datamodules.lessons import Lesson
from datamodules.records import Clip
from datamodules.serving import FailuresServed, Place, Prompts, Served
from datamodules.workers import set_up_worker, start_method

_log = logging.getLogger(__name__)


class OrderState(TypedDict):
    """Where a training order stands.

    Attributes:
        epoch: 0-based.
        used: Prompts of this epoch that were handed out, over all processes.
        size: Prompts per epoch.
        seed: Seed of the order.
        prompts: `Prompts.fingerprint` of what the order is about; only a loader knows it.
    """

    epoch: int
    used: int
    size: int
    seed: int
    prompts: NotRequired[str]


class TrainOrder(Sampler[list[Place]]):
    """A new permutation for every epoch, cut into global batches; an incomplete last batch is left out.

    An epoch that is resumed with larger or smaller steps is cut anew from the prompt on at which it stood.

    Attributes:
        epoch: The epoch that comes next or is under way, 0-based.
        used: Prompts of this epoch that were handed to the trainer, over all processes.
    """

    def __init__(self, size: int, *, batch_size: int, rank: int = 0, world_size: int = 1, seed: int = 0) -> None:
        """Fix the order.

        Args:
            size: Prompts per epoch.
            batch_size: Prompts per step in this process.
            rank: Number of this process, 0-based.
            world_size: Number of processes.
            seed: Non-negative; decides the permutations.

        Raises:
            ConfigError: There are too few prompts for one step.
        """
        self.size = size
        self.batch_size = batch_size
        self.rank = rank
        self.world_size = world_size
        self.seed = seed
        self.epoch = 0
        self.used = 0
        if not len(self):
            raise ConfigError(
                f"data.prompts_per_step is {batch_size} on each of {world_size} processes, but the training set has"
                f" only {size} prompts. Lower --data.prompts_per_step or raise --data.train_size."
            )

    @property
    def step_size(self) -> int:
        """Prompts per step over all processes."""
        return self.batch_size * self.world_size

    def __len__(self) -> int:
        """Steps per epoch."""
        return self.size // self.step_size

    def __iter__(self) -> Iterator[list[Place]]:
        """This process's part of each step that the epoch has left."""
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.size)
        for start in range(self.used, self.size - self.step_size + 1, self.step_size):
            mine = order[start : start + self.step_size][self.rank :: self.world_size]
            yield [Place(self.epoch, int(position)) for position in mine]

    @property
    def is_used_up(self) -> bool:
        """Whether the epoch has no step left."""
        return self.size - self.used < self.step_size

    def advance(self) -> None:
        """Count one step as handed out."""
        self.used += self.step_size

    def restart(self) -> None:
        """Go back to the start of the epoch."""
        self.used = 0

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch comes; a new one begins at its start.

        Args:
            epoch: 0-based.
        """
        if epoch != self.epoch:
            self.epoch = epoch
            self.restart()

    def state_dict(self) -> OrderState:
        """Where the order stands."""
        return {"epoch": self.epoch, "used": self.used, "size": self.size, "seed": self.seed}

    def load_state_dict(self, state: OrderState) -> None:
        """Go on where another order stood, possibly on another number of processes.

        Args:
            state: From `state_dict`.

        Raises:
            ConfigError: The order is another one.
        """
        if (state["size"], state["seed"]) != (self.size, self.seed):
            raise ConfigError(
                f"the checkpoint was written after {state['used']} of {state['size']} prompts in the order of seed"
                f" {state['seed']}; now there are {self.size} prompts and the seed is {self.seed}. Restore the data"
                " settings (--data.seed, --data.train_size, --data.null_fraction, --data.root) to resume, or start a"
                " new run from the exported adapter."
            )
        self.epoch, self.used = state["epoch"], state["used"]


class EvalOrder(Sampler[list[Place]]):
    """All clips once, in order, in blocks of consecutive clips that processes take in turn.

    Every process gets the same number of batches, because each of them may involve all processes; a process for which
    no block is left gets empty batches at the end. Nothing is repeated to fill up. Blocks are the same for any number
    of processes, which matters where a score is defined per block of clips.
    """

    def __init__(self, size: int, *, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        """Fix the order.

        Args:
            size: Number of clips.
            batch_size: Clips per block.
            rank: Number of this process, 0-based.
            world_size: Number of processes.
        """
        self.size = size
        self.batch_size = batch_size
        self.rank = rank
        self.world_size = world_size

    def __len__(self) -> int:
        """Batches per process."""
        return -(-self.size // (self.batch_size * self.world_size))

    def __iter__(self) -> Iterator[list[Place]]:
        """This process's blocks, empty ones at the end where there are too few."""
        for turn in range(len(self)):
            start = (turn * self.world_size + self.rank) * self.batch_size
            yield [Place(0, position) for position in range(start, min(start + self.batch_size, self.size))]


class ClipLoader:
    """Batches of clips, read ahead by worker processes.

    Attributes:
        clips: What is served.
        order: In which order.
        skipped: How often each clip with a broken file was left out in this process, by clip id.
        waited_s: Seconds that whoever takes batches has waited for the newest.
    """

    def __init__(self, clips: Prompts, order: TrainOrder | EvalOrder, *, num_workers: int = 0) -> None:
        """Join clips and order.

        Args:
            clips: What to serve.
            order: In which order.
            num_workers: Processes that read ahead; 0 reads in this process.
        """
        self.clips = clips
        self.order = order
        self.num_workers = num_workers
        self.skipped: Counter[str] = Counter()
        self.waited_s = 0.0

    def __len__(self) -> int:
        """Batches per epoch in this process."""
        return len(self.order)

    def __iter__(self) -> Iterator[list[Clip | Lesson]]:
        """Serve an epoch; nothing happens before the first batch is taken."""
        asked_s = time.perf_counter()
        for served in self._loader():
            batch = [item.clip for item in self._reported(served) if item.clip is not None]
            self.waited_s = time.perf_counter() - asked_s
            yield batch
            asked_s = time.perf_counter()

    def _loader(self) -> DataLoader[Served]:
        return DataLoader(
            FailuresServed(self.clips),
            batch_sampler=self.order,
            num_workers=self.num_workers,
            collate_fn=list,
            worker_init_fn=set_up_worker,
            multiprocessing_context=start_method(self.num_workers),
            # A generator of its own: otherwise each epoch draws from, and so changes, the global random state.
            generator=torch.Generator(),
        )

    def _reported(self, served: list[Served]) -> list[Served]:
        for failure in (item.failure for item in served if item.failure is not None):
            raise failure
        for clip_id, problem in (pair for item in served for pair in item.problems):
            if clip_id not in self.skipped:
                _log.warning("Left out, and will be whenever it comes up: %s", problem)
            self.skipped[clip_id] += 1
        return served


class ResumableLoader(ClipLoader):
    """A training loader whose place in the epoch is saved and restored; Lightning calls the two state methods.

    Attributes:
        sampler: The order, by the name under which Lightning looks for something to tell the epoch.
    """

    def __init__(self, clips: Prompts, order: TrainOrder, *, num_workers: int = 0) -> None:
        """Join clips and order.

        Args:
            clips: What to serve.
            order: In which order; also keeps the place.
            num_workers: Processes that read ahead; 0 reads in this process.
        """
        super().__init__(clips, order, num_workers=num_workers)
        self.sampler = order

    def __iter__(self) -> Iterator[list[Clip | Lesson]]:
        """Serve what the epoch has left; an epoch that is used up starts again."""
        order = self.sampler
        if order.is_used_up:
            order.restart()
        for batch in super().__iter__():
            order.advance()
            yield batch

    def state_dict(self) -> OrderState:
        """Where the epoch stands, and in which prompts."""
        return {**self.sampler.state_dict(), "prompts": self.clips.fingerprint}

    def load_state_dict(self, state: OrderState) -> None:
        """Go on where another loader stood.

        Args:
            state: From `state_dict`; one without `prompts` is not held against them.

        Raises:
            ConfigError: The state belongs to other data settings.
        """
        self.sampler.load_state_dict(state)
        if "prompts" in state:
            self.clips.check_fingerprint(state["prompts"])
