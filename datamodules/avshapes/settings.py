"""What one generated benchmark is made from: the benchmark, the seed, the sizes and the world."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Literal

from datamodules.avshapes.world import World
from datamodules.errors import ConfigError

Benchmark = Literal["refavs", "revos", "mevis", "refcocog"]

BENCHMARKS: tuple[Benchmark, ...] = ("refavs", "revos", "mevis", "refcocog")

FORMAT_VERSION = 2
"""Raised whenever the same settings give other bytes, so that no cached tree is mistaken for a new one."""

WORLDS: dict[Benchmark, World] = {
    "refavs": World(),
    "revos": World(distinct_shapes=False, sounding=(1.0,)),
    "mevis": World(distinct_shapes=False, sounding=(1.0,), min_things=3, max_things=5),
    "refcocog": World(distinct_shapes=False, sounding=(1.0,)),
}
"""The world of each benchmark; only RefAVS has sound, and MeViS has more things to tell apart."""


@dataclass(frozen=True, kw_only=True)
class RefavsSizes:
    """How much RefAVS is written.

    Attributes:
        train: Training clips.
        val: Validation clips.
        test_s: Test clips of seen looks and tones.
        test_u: Test clips in which every target has a held-out look or tone.
        test_n: Test folders in which no target is there, 4 rows each; they reuse pictures of test_s.
        null_train: The same among the training clips.
        null_val: The same among the validation clips.
        expressions: Most rows per ordinary clip; fewer where a clip has fewer valid expressions.
    """

    train: int = 400
    val: int = 100
    test_s: int = 100
    test_u: int = 100
    test_n: int = 40
    null_train: int = 30
    null_val: int = 8
    expressions: int = 4


@dataclass(frozen=True, kw_only=True)
class RevosSizes:
    """How much ReVOS is written.

    Attributes:
        train: Training videos.
        valid: Validation videos.
        referring: Most referring expressions per video.
        reasoning: Most reasoning expressions per video.
        non_existent_every: Every so many-th video has one expression without a target; 0 for none.
    """

    train: int = 300
    valid: int = 120
    referring: int = 3
    reasoning: int = 3
    non_existent_every: int = 2


@dataclass(frozen=True, kw_only=True)
class MevisSizes:
    """How much MeViS is written.

    Attributes:
        train: Training videos.
        valid_u: Validation videos with masks, which scores are computed on.
        valid: Validation videos without masks, which answers are submitted for.
        expressions: Most expressions per video; fewer where a video has fewer valid ones.
    """

    train: int = 300
    valid_u: int = 80
    valid: int = 20
    expressions: int = 4


@dataclass(frozen=True, kw_only=True)
class RefcocogSizes:
    """How much RefCOCOg is written.

    Attributes:
        train: Pictures, with one expression each.
        annotations: 1 writes masks beside the table, as RefCOCOg itself has them; the set that is imitated has none.
    """

    train: int = 300
    annotations: int = 0


Sizes = RefavsSizes | RevosSizes | MevisSizes | RefcocogSizes

SIZES: dict[Benchmark, type[RefavsSizes] | type[RevosSizes] | type[MevisSizes] | type[RefcocogSizes]] = {
    "refavs": RefavsSizes,
    "revos": RevosSizes,
    "mevis": MevisSizes,
    "refcocog": RefcocogSizes,
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that the bytes of a generated tree depend on.

    Attributes:
        benchmark: Whose layout.
        seed: Non-negative.
        sizes: How much; the type belongs to the benchmark.
        world: The dials.
    """

    benchmark: Benchmark
    seed: int
    sizes: Sizes
    world: World

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits that differ whenever a setting or the format differs."""
        text = json.dumps({**asdict(self), "format": FORMAT_VERSION}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def make_settings(
    benchmark: str, *, seed: int = 0, sizes: Mapping[str, int] | None = None, world: World | None = None
) -> Settings:
    """Fill in defaults and check everything, before anything is written.

    Args:
        benchmark: One of `BENCHMARKS`.
        seed: Non-negative.
        sizes: Fields of the benchmark's sizes, such as `RefavsSizes`, that differ from the defaults.
        world: The dials; None is the benchmark's own world.

    Raises:
        ConfigError: An unknown benchmark, a negative seed or size, an unknown size, nothing to write, or a world that
            does not fit into the benchmark's layout; all problems in one message.
    """
    known = next((name for name in BENCHMARKS if name == benchmark), None)
    if known is None:
        raise ConfigError(f"benchmark must be one of {', '.join(BENCHMARKS)}, found {benchmark!r}.")
    chosen_world = world or WORLDS[known]
    changes = dict(sizes or {})
    problems = _size_problems(known, changes)
    if seed < 0:
        problems.append(f"seed must be 0 or more, found {seed}.")
    if known == "refavs" and (chosen_world.frames, chosen_world.fps) != (10, 1.0):
        problems.append(
            f"RefAVS clips have exactly 10 frames, one per second; found world.frames {chosen_world.frames} and "
            f"world.fps {chosen_world.fps:g}. Leave both at their defaults, or use revos."
        )
    if problems:
        raise ConfigError(f"These AVShapes settings ({known}) cannot be written: " + " ".join(problems))
    return Settings(benchmark=known, seed=seed, sizes=SIZES[known](**changes), world=chosen_world)


def _size_problems(benchmark: Benchmark, changes: dict[str, int]) -> list[str]:
    """A sentence for every unknown or negative size, and one if no clip is left."""
    valid = {field.name: field.default for field in fields(SIZES[benchmark])}
    unknown = sorted(set(changes) - set(valid))
    problems = [f"Unknown size {name!r}; {benchmark} has {', '.join(valid)}." for name in unknown]
    problems += [f"size {name} must be 0 or more, found {count}." for name, count in changes.items() if count < 0]
    splits = [name for name in valid if name in ("train", "val", "valid", "valid_u") or name.startswith("test")]
    if not any({**valid, **changes}[name] for name in splits):
        problems.append(f"Every split is empty; set one of {', '.join(splits)} above 0.")
    return problems
