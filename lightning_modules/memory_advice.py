"""Which flags would make a run fit that needs too much memory.

All combinations of what saves memory are tried, those that cost the least time first, so that a few flags that cost
next to nothing come before a single one that makes a run crawl.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

from models.adapter import LoRA
from models.memory import Workload, host_gb, plan_memory
from models.sharding import gathers_mixed_types
from models.sizes import ReasonerSizes, sizes_of

SMALLER = "Qwen/Qwen2.5-Omni-3B"
"""What is advised where no flag makes the configured model fit."""


@dataclass(frozen=True)
class _Way:
    """One way to save memory.

    Attributes:
        cost: How much time it costs, in no unit; 1 is next to nothing.
        flags: What to set, by name.
        change: What becomes different in the plan.
    """

    cost: int = 0
    flags: Mapping[str, object] = field(default_factory=dict)
    change: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Advice:
    """What to set.

    Attributes:
        flags: Flags with their values; empty when nothing helps.
        host_gb: Memory of the host that each device then takes, in 1e9 bytes.
        newer: What costs less, or is all that helps, with a release of PyTorch that gathers mixed types; None where
            the installed one does.
    """

    flags: tuple[str, ...] = ()
    host_gb: float = 0.0
    newer: Advice | None = None

    def __str__(self) -> str:
        """As instructions."""
        what = f"Set {' '.join(self.flags)}" if self.flags else "Use more or larger devices"
        price = f". Each device then takes {self.host_gb:.0f} GB of the host's memory" if self.host_gb else ""
        return f"{what}{price}."


def advise(sizes: ReasonerSizes, load: Workload, card_gb: float) -> Advice:
    """The flags that make a run fit at the least cost; with the 3B model if there is no other way.

    Args:
        sizes: Of the reasoner.
        load: What does not fit.
        card_gb: Memory of a device, in 1e9 bytes.
    """
    if gathers_mixed_types():
        return _advise(sizes, load, card_gb, is_mixing=True)
    found, newer = (_advise(sizes, load, card_gb, is_mixing=is_mixing) for is_mixing in (False, True))
    return found if found == newer else replace(found, newer=newer)


def _advise(sizes: ReasonerSizes, load: Workload, card_gb: float, *, is_mixing: bool) -> Advice:
    found = _cheapest(sizes, load, card_gb, is_mixing=is_mixing)
    if found is not None:
        return found
    small = sizes_of(SMALLER, LoRA(r=sizes.rank) if sizes.rank else None)
    found = None if sizes.base <= small.base else _cheapest(small, load, card_gb, is_mixing=is_mixing)
    return Advice() if found is None else replace(found, flags=(f"--model.reasoner.path {SMALLER}", *found.flags))


def _cheapest(sizes: ReasonerSizes, load: Workload, card_gb: float, *, is_mixing: bool) -> Advice | None:
    """Among all combinations; without `is_mixing`, none that begins to gather two types together."""
    combinations = product(*((_Way(), *ways) for ways in _knobs(load)))
    for chosen in sorted(combinations, key=lambda ways: sum(way.cost for way in ways)):
        changed = replace(load, **{name: value for way in chosen for name, value in way.change.items()})
        is_possible = is_mixing or _is_mixed(load) or not _is_mixed(changed)
        if is_possible and plan_memory(sizes, changed).peak <= card_gb:
            flags = tuple(f"--{name} {value}" for way in chosen for name, value in way.flags.items())
            return Advice(flags, host_gb(sizes, changed))
    return None


def _is_mixed(load: Workload) -> bool:
    """A base in half precision is spread, and with it the adapter, which never is in half precision."""
    return load.is_sharded and load.base_bytes == 2


def _knobs(load: Workload) -> list[list[_Way]]:
    """Ways to save memory; those in one list exclude each other."""
    return [ways for ways in (*_of_the_work(load), _of_numbers(load), _of_spreading(load)) if ways]


def _of_the_work(load: Workload) -> list[list[_Way]]:
    """Doing less at a time."""
    segmenter, asking = load.segmenter, load.asking
    # The first divides prompts from each other; smaller ones divide groups, whose prompt is then computed again.
    passes = [
        _Way(cost, {"model.grpo.micro_batch_tokens": size}, {"micro_batch_tokens": size})
        for size, cost in ((8192, 1), (4096, 3), (2048, 6))
        if load.pass_tokens > size
    ]
    merged = _Way(1, {"model.grpo.merge_adapter": "null"}, {"is_merged": False})
    rows = _Way(2, {"model.grpo.rollout_rows": load.group_size}, {"rollout_rows": load.group_size})
    again = _Way(4, {"model.reasoner.gradient_checkpointing": "true"}, {"checkpointing": True})
    frames, questions = _Way(), _Way()
    if segmenter is not None:
        fewer = replace(segmenter, frames_per_encode=4)
        frames = _Way(1, {"model.propagator.frames_per_encode": 4}, {"segmenter": fewer})
    if asking is not None:
        questions = _Way(2, {"model.grounder.batch_size": 4}, {"asking": replace(asking, batch_size=4)})
    return [
        passes,
        [merged] * load.is_merged,
        [rows] * (load.groups_at_once > 1),
        [again] * (not load.checkpointing),
        [frames] * (segmenter is not None and segmenter.frames_per_encode > 4),
        [questions] * (asking is not None and asking.batch_size > 4),
    ]


def _of_numbers(load: Workload) -> list[_Way]:
    """Half as many bytes; a base in half precision has to be computed with in mixed precision."""
    mixed, half = {"trainer.precision": "bf16-mixed"}, {"model.reasoner.dtype": "bfloat16"}
    if load.compute_bytes == 2:
        return [_Way(4, half, {"base_bytes": 2})] * (load.base_bytes == 4)
    ways = [_Way(4, mixed, {"compute_bytes": 2})]
    return [*ways, *[_Way(5, half | mixed, {"base_bytes": 2, "compute_bytes": 2})] * (load.base_bytes == 4)]


def _of_spreading(load: Workload) -> list[_Way]:
    """The base over all devices, gathered layer by layer, in the host's memory; each for itself and together."""
    fsdp: dict[str, object] = {} if load.is_sharded else {"trainer.strategy": "fsdp"}
    everywhere: dict[str, object] = {"sharding.shard_size": "all"}
    layered: dict[str, object] = {"sharding.gather": "layer"}
    if load.is_merged:  # which is refused for layers that come and go
        layered["model.grpo.merge_adapter"] = "null"
    ways = []
    for is_wider, is_layered, is_offloaded in product((False, True), repeat=3):
        flags, change, cost = dict(fsdp), dict[str, Any](is_sharded=True), 0 if load.is_sharded else 8
        if not load.is_sharded:
            change["shards"] = load.devices
        if is_wider:
            flags, change, cost = flags | everywhere, change | {"shards": load.devices}, cost + 8
        if is_layered:
            flags, change, cost = flags | layered, change | {"gather": "layer", "is_merged": False}, cost + 40
        if is_offloaded:
            flags, change, cost = flags | {"sharding.offload": "true"}, change | {"offload": True}, cost + 80
        is_possible = (
            is_wider <= (load.is_sharded and load.shards < load.devices)
            and is_layered <= (load.gather == "model")
            and is_offloaded <= (not load.offload)
        )
        # Spreading over a single device saves nothing by itself.
        is_useful = is_wider or is_layered or is_offloaded or (not load.is_sharded and load.devices > 1)
        if is_possible and is_useful:
            ways.append(_Way(cost, flags, change))
    return ways
