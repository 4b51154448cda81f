"""Write a generated benchmark, or a picture of one: `python -m datamodules.avshapes --help`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

from datamodules.avshapes.make import ensure_avshapes, write_tree
from datamodules.avshapes.report import describe_tree
from datamodules.avshapes.settings import BENCHMARKS, WORLDS, Benchmark, make_settings
from datamodules.avshapes.world import World
from datamodules.errors import ConfigError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: Without the program's name; None reads them from the command line.

    Returns:
        0, or 2 with one line on the error stream when the arguments do not make sense.
    """
    options = _parser().parse_args(arguments)
    try:
        text = _draw_picture(options) if options.command == "picture" else _write_benchmark(options)
    except (ConfigError, FileExistsError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(f"{text}\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m datamodules.avshapes", description="Write AVShapes, the generated benchmark."
    )
    parser.add_argument("command", nargs="?", choices=("write", "picture"), default="write", help="what to make")
    parser.add_argument("--benchmark", choices=BENCHMARKS, default="refavs", help="whose layout (default: refavs)")
    parser.add_argument("--out", type=Path, help="the new folder, or the picture's file (default for trees: the cache)")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same bytes (default: 0)")
    parser.add_argument("--size", action="append", default=[], metavar="NAME=N", help="such as train=40; repeatable")
    parser.add_argument(
        "--world", action="append", default=[], metavar="DIAL=X", help="such as max_things=3; repeatable"
    )
    parser.add_argument("--workers", type=int, help="processes that write (default: one per core, at most 8)")
    return parser


def _write_benchmark(options: argparse.Namespace) -> str:
    """Write a tree where asked, or into the cache; return its counts."""
    benchmark: Benchmark = options.benchmark
    sizes = {name: int(_number(name, value, int)) for name, value in _pairs("--size", options.size)}
    world = _read_world(benchmark, options.world)
    if options.out is None:
        root = ensure_avshapes(benchmark, seed=options.seed, sizes=sizes, world=world, workers=options.workers)
        return describe_tree(root)
    settings = make_settings(benchmark, seed=options.seed, sizes=sizes, world=world)
    if options.out.exists():
        raise FileExistsError(f"--out must name a new folder, found {options.out}. Remove it or choose another name.")
    write_tree(settings, options.out, workers=options.workers)
    return describe_tree(options.out)


def _draw_picture(options: argparse.Namespace) -> str:
    from datamodules.avshapes.picture import draw_picture

    out = options.out or Path("avshapes.png")
    draw_picture(out, seed=options.seed)
    return str(out)


def _pairs(flag: str, items: Sequence[str]) -> list[tuple[str, str]]:
    wrong = [item for item in items if "=" not in item]
    if wrong:
        raise ConfigError(f"{flag} takes NAME=VALUE, found {', '.join(map(repr, wrong))}.")
    return [(name, value) for name, _, value in (item.partition("=") for item in items)]


def _number(name: str, value: str, kind: type[int] | type[float]) -> int | float:
    try:
        return kind(value)
    except ValueError:
        raise ConfigError(f"{name} takes {'a whole number' if kind is int else 'a number'}, found {value!r}.") from None


def _read_world(benchmark: Benchmark, items: Sequence[str]) -> World:
    """The benchmark's world with the dials that were given."""
    world = WORLDS[benchmark]
    known = [field.name for field in fields(World)]
    changes: dict[str, object] = {}
    for name, value in _pairs("--world", items):
        if name not in known:
            raise ConfigError(f"Unknown dial --world {name}; there are {', '.join(known)}.")
        current = getattr(world, name)
        if isinstance(current, bool):
            changes[name] = _switch(name, value)
        elif name == "evidence":
            changes[name] = tuple(value.split(","))
        elif isinstance(current, tuple):
            changes[name] = tuple(float(_number(name, part, float)) for part in value.split(","))
        else:
            changes[name] = _number(name, value, type(current))
    return replace(world, **changes)  # type: ignore[arg-type]


def _switch(name: str, value: str) -> bool:
    if value.lower() not in ("true", "false"):
        raise ConfigError(f"{name} takes true or false, found {value!r}.")
    return value.lower() == "true"


if __name__ == "__main__":
    sys.exit(main())
