"""Whether a folder holds predictions for a benchmark at all, before anything is scored."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from datamodules.errors import DataLayoutError

_SHOWN = 5
_REVOS_SOURCES = {"MOSE", "MeViS", "LV-VIS", "OVIS", "TAO", "UVO"}
_LOOKS_LIKE: dict[str, Callable[[str], bool]] = {
    "refavs": lambda name: re.search(r".{11}_\d+_\d+", name) is not None,
    "mevis": lambda name: re.fullmatch(r"[0-9a-f]{12}", name) is not None,
    "revos": lambda name: name in _REVOS_SOURCES,
}


def check_predictions(predictions: Path, videos: Sequence[str], *, benchmark: str) -> tuple[str, ...]:
    """Refuse a folder that holds predictions for no video of a benchmark.

    Args:
        predictions: The folder.
        videos: Names of the benchmark's videos, or whatever folders are named by; with slashes.
        benchmark: What the command line calls the benchmark.

    Returns:
        Names in the folder that belong to no video; they are ignored.

    Raises:
        DataLayoutError: There is no such folder, or nothing in it fits; says what was found and what it looks like.
    """
    if not any((predictions / video).is_dir() for video in videos):
        raise DataLayoutError(lacks_all(predictions, videos, benchmark=benchmark))
    expected = {Path(video).parts[0] for video in videos}
    return tuple(name for name in _names(predictions) if name not in expected)


def ignored_inside(predictions: Path, known: Mapping[str, Collection[str]]) -> list[str]:
    """What lies in the folders of videos and is no expression of theirs.

    Args:
        predictions: The folder.
        known: Names of the expressions by that of the video.

    Returns:
        Paths from the folder on, without those of videos that have no folder.
    """
    return [
        f"{video}/{name}"
        for video, names in known.items()
        if (predictions / video).is_dir()
        for name in _names(predictions / video)
        if name not in names
    ]


def lacks_all(predictions: Path, videos: Sequence[str], *, benchmark: str) -> str:
    """Say of a folder without a video of a benchmark what was expected and found, and what to do, in some lines.

    Args:
        predictions: The folder; it need not be there.
        videos: Names of the benchmark's videos, as for `check_predictions`; at least one.
        benchmark: What the command line calls the benchmark.
    """
    if not predictions.is_dir():
        return f"--predictions: there is no folder {predictions}."
    names = _names(predictions)
    lines = [
        f"--predictions: {predictions} holds no folder of any of the {len(videos)} videos of {benchmark};"
        f" expected for example {videos[0]}/.",
        f"Found: {some(names) or 'an empty folder'}",
        *_hints(predictions, names, videos, benchmark),
    ]
    return "\n".join(lines)


def some(names: Sequence[str]) -> str:
    """Names for a message; a long list is cut."""
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _hints(predictions: Path, names: Sequence[str], videos: Sequence[str], benchmark: str) -> list[str]:
    inner = [name for name in names if any((predictions / name / video).is_dir() for video in videos)]
    if inner:
        return [f"The videos are in a folder below: set --predictions {predictions / inner[0]}"]
    others = [name for name, looks in _LOOKS_LIKE.items() if name != benchmark and any(map(looks, names))]
    return [f"These look like predictions for {' or '.join(others)}." if others else "Is this the right folder?"]
