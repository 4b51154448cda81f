"""The order of training prompts from several sources: one source per step, whatever the number of processes.

Prompts of one benchmark have similar lengths and ask for the same work, so processes that share a step do not wait for
each other. Sources take turns in proportion to what they have in an epoch: the next step belongs to the source that is
furthest behind. Which one that is depends on how much of each was used and on nothing else, so a run that is resumed
goes on exactly, and with larger or smaller steps it still asks every prompt at most once per epoch.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from datamodules.errors import ConfigError
from datamodules.order import OrderState, TrainOrder
from datamodules.serving import ClipSet, Place, Prompts, Served


class MixtureState(OrderState):
    """Where a mixture's order stands.

    Attributes:
        parts: Prompts of this epoch that were handed out, by source.
        shares: Prompts per epoch, by source.
    """

    parts: dict[str, int]
    shares: dict[str, int]


@dataclass(frozen=True)
class Share:
    """What an epoch takes of one source.

    Attributes:
        size: Prompts to choose from.
        taken: Prompts per epoch; at most `size`.
    """

    size: int
    taken: int


class MixtureOrder(TrainOrder):
    """A new permutation of every source for every epoch, and sources that take turns.

    Places count through the sources one after the other. Of a source that has more prompts than an epoch takes, each
    epoch draws others. What is left of a source at the end and fills no step is left out.
    """

    def __init__(
        self, shares: Mapping[str, Share], *, batch_size: int, rank: int = 0, world_size: int = 1, seed: int = 0
    ) -> None:
        """Fix the order.

        Args:
            shares: What an epoch takes of each source, by name; the names decide nothing but messages.
            batch_size: Prompts per step in this process.
            rank: Number of this process, 0-based.
            world_size: Number of processes.
            seed: Non-negative; decides the permutations.

        Raises:
            ConfigError: A source has too few prompts for one step; names all of them.
        """
        self.shares = dict(shares)
        self._parts = dict.fromkeys(shares, 0)
        step = batch_size * world_size
        small = [f"{name} ({share.taken})" for name, share in self.shares.items() if share.taken < step]
        if small:
            raise ConfigError(
                f"data.prompts_per_step is {batch_size} on each of {world_size} processes, and a step takes prompts of"
                f" one source; too few per epoch: {', '.join(small)}. Lower --data.prompts_per_step, raise"
                " --data.sources.<name>.weight, or drop the source with weight 0."
            )
        size = sum(share.taken for share in self.shares.values())
        super().__init__(size, batch_size=batch_size, rank=rank, world_size=world_size, seed=seed)

    def __len__(self) -> int:
        """Steps per epoch."""
        return sum(share.taken // self.step_size for share in self.shares.values())

    def __iter__(self) -> Iterator[list[Place]]:
        """This process's part of each step that the epoch has left."""
        starts = dict(zip(self.shares, accumulate((s.size for s in self.shares.values()), initial=0), strict=False))
        orders = {
            name: starts[name] + np.random.default_rng([self.seed, self.epoch, number]).permutation(share.size)
            for number, (name, share) in enumerate(self.shares.items())
        }
        parts = dict(self._parts)
        while (name := self._next(parts)) is not None:
            mine = orders[name][parts[name] : parts[name] + self.step_size][self.rank :: self.world_size]
            parts[name] += self.step_size
            yield [Place(self.epoch, int(position)) for position in mine]

    def _next(self, parts: Mapping[str, int]) -> str | None:
        """The source that is furthest behind its share among those that can fill a step; None when none can."""
        able = [name for name, share in self.shares.items() if share.taken - parts[name] >= self.step_size]
        return min(able, key=lambda name: (parts[name] + self.step_size / 2) / self.shares[name].taken, default=None)

    @property
    def is_used_up(self) -> bool:
        """Whether no source can fill another step."""
        return self._next(self._parts) is None

    def advance(self) -> None:
        """Count one step as handed out."""
        name = self._next(self._parts)
        if name is None:
            raise RuntimeError("the epoch has no step left to count")
        self._parts[name] += self.step_size
        super().advance()

    def restart(self) -> None:
        """Go back to the start of the epoch."""
        self._parts = dict.fromkeys(self.shares, 0)
        super().restart()

    def state_dict(self) -> MixtureState:
        """Where the order stands."""
        taken = {name: share.taken for name, share in self.shares.items()}
        return {**super().state_dict(), "parts": dict(self._parts), "shares": taken}

    def load_state_dict(self, state: OrderState) -> None:
        """Go on where another order stood, possibly on another number of processes.

        Args:
            state: From `state_dict`.

        Raises:
            ConfigError: The sources, their sizes or the seed are others.
        """
        shares: object = state.get("shares")
        now = {name: share.taken for name, share in self.shares.items()}
        if shares != now or state["seed"] != self.seed:
            raise ConfigError(
                f"the checkpoint was written with the sources {shares or 'of another data module'} (prompts per epoch)"
                f" and seed {state['seed']}; now there are {now} and seed {self.seed}. Restore the data settings"
                " (--data.sources, --data.seed, --data.root) to resume, or start a new run from the exported adapter."
            )
        parts: dict[str, int] = state["parts"]  # type: ignore[typeddict-item]
        self.epoch, self.used, self._parts = state["epoch"], state["used"], dict(parts)


class MixedClips(Prompts):
    """The prompts of several sources, one after the other; a broken clip is replaced by one of its own source."""

    def __init__(self, sources: Sequence[ClipSet]) -> None:
        """Join the sources.

        Args:
            sources: In the order of the places.
        """
        self._sources = tuple(sources)
        self._starts = list(accumulate((len(source) for source in sources), initial=0))

    def __len__(self) -> int:
        """Prompts of all sources."""
        return self._starts[-1]

    @property
    def fingerprint(self) -> str:
        """Those of the sources, in their order."""
        return "/".join(source.fingerprint for source in self._sources)

    def __getitem__(self, place: Place) -> Served:
        """Serve one place.

        Args:
            place: Epoch, and position counted through the sources.

        Raises:
            MediaError: A file is broken and must not be skipped, or every clip of its source is broken.
        """
        number = bisect_right(self._starts, place.position) - 1
        return self._sources[number][Place(place.epoch, place.position - self._starts[number])]
