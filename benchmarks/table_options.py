"""What a table of trainings is asked for, how much that is of the whole, and where it is written.

The whole table, at its full size, has its own places. Anything less never takes them: it is written beside its runs.
What counts are values, however they were spelled.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from side_by_side import ROOT, weights_digest
from speed.results import machine

FREE = ("quick", "processes", "folder", "cache", "page", "picture", "json")
"""Options that change nothing of what is measured; `--quick` does so through what it stands for."""


@dataclass(frozen=True)
class Size:
    """How large a table is.

    Attributes:
        seeds: Of weights, sampling and the drawn prompts.
        prompts: Training prompts.
        clips: Most test clips.
    """

    seeds: tuple[int, ...]
    prompts: int
    clips: int


WHOLE = Size((0, 1, 2), prompts=256, clips=120)
QUICK = Size((0,), prompts=96, clips=40)


def table_parser(description: str, *, runs: str, prompts: str, clips: str) -> argparse.ArgumentParser:
    """The options that all tables have; see `fill_in` for those that are not given.

    Args:
        description: What the table is about.
        runs: Folder of the runs, below `runs`.
        prompts: What the number of prompts counts.
        clips: What the number of clips counts.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="one seed, fewer prompts, fewer test clips")
    for name, of in (("prompts", prompts), ("clips", clips)):
        usual, small = getattr(WHOLE, name), getattr(QUICK, name)
        parser.add_argument(f"--{name}", type=int, help=f"{of} (default: {usual}, with --quick {small})")
    parser.add_argument("--seeds", nargs="+", type=int, help="default: 0 1 2, with --quick 0")
    parser.add_argument("--processes", type=int, default=2, help="runs side by side")
    parser.add_argument("--folder", type=Path, help=f"where the run folders go (default: runs/{runs} or ..._quick)")
    parser.add_argument("--weights", type=Path, default=ROOT / "weights" / "tiny")
    return parser


def fill_in(options: argparse.Namespace, runs: str) -> argparse.Namespace:
    """Put in what was not asked for, leave out what was asked for twice, and make paths absolute.

    Args:
        options: Of `table_parser`; changed.
        runs: Folder of the runs, below `runs`.
    """
    for name, value in vars(QUICK if options.quick else WHOLE).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    options.seeds = tuple(dict.fromkeys(options.seeds))
    options.folder = (options.folder or ROOT / "runs" / (f"{runs}_quick" if options.quick else runs)).resolve()
    options.weights = options.weights.resolve()
    return options


def differences(options: argparse.Namespace, whole: argparse.Namespace, extra: Sequence[str]) -> list[str]:
    """What makes a table another than the whole one, at its full size; nothing if it is that.

    Args:
        options: As filled in.
        whole: As they are when none is given.
        extra: Flags that are passed on to every command.
    """
    asked = [(name, value) for name, value in vars(options).items() if name not in FREE]
    other = [(name, value) for name, value in asked if _plain(value) != _plain(getattr(whole, name))]
    return [*(f"--{name.replace('_', '-')} {_shown(value)}".strip() for name, value in other), *extra]


def _plain(value: object) -> object:
    return set(value) if isinstance(value, list | tuple) else value


def _shown(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def say_if_less(less: Sequence[str]) -> None:
    """Say why a table does not take the usual places.

    Args:
        less: See `differences`; what has failed belongs to it as well.
    """
    if less:
        print(f"This is not the whole table, which alone takes the usual places: {', '.join(less)}")


def usual_or_beside(asked: Path | None, usual: str, folder: Path, *, is_whole: bool) -> Path:
    """Where a file of results goes: parts of a table never take the place of the whole one.

    Args:
        asked: Path on the command line, which wins.
        usual: Place of the whole table, below the root.
        folder: Where the run folders are; parts of a table go there.
        is_whole: Whether all rows and seeds are there, at their full size.
    """
    return asked or (ROOT / usual if is_whole else folder / Path(usual).name)


def made_with(script: str, arguments: Sequence[str] | None, options: argparse.Namespace) -> dict[str, str]:
    """What has to be named beside the numbers of a table, but for the commits of its runs.

    Args:
        script: File name of the script.
        arguments: On its command line; None for those of this process.
        options: As filled in.
    """
    given = sys.argv[1:] if arguments is None else arguments
    return {
        "command": " ".join(["python", f"benchmarks/{script}", *given]),
        "machine": f"{machine()}, {options.processes} runs side by side",
        "weights": weights_digest(options.weights),
    }
