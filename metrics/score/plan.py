"""What is to be scored for each benchmark: one job per expression, in the order of the table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from datamodules import mevis, refavs, revos_meta
from datamodules.findings import Findings
from datamodules.layout import check_masks
from datamodules.revos_meta import Video
from datamodules.tree import Tree
from metrics.score.answers import Answer
from metrics.score.clips import ClipJob, answer_folders, score_row
from metrics.score.folder import check_predictions
from metrics.score.videos import VideoJob, score_expression

Benchmark = Literal["refavs", "revos", "mevis"]

SPLITS: dict[Benchmark, tuple[str, ...]] = {
    "refavs": ("test_s", "test_u", "test_n"),
    "revos": ("valid",),
    "mevis": ("valid_u",),
}
"""What is scored unless splits are named."""

KNOWN_SPLITS: dict[Benchmark, tuple[str, ...]] = {
    "refavs": refavs.SPLITS,
    "revos": revos_meta.SPLITS,
    "mevis": tuple(split for split in mevis.SPLITS if split not in mevis.WITHOUT_MASKS),
}


@dataclass(frozen=True)
class Plan:
    """What is to be scored.

    Attributes:
        splits: The splits, those without any prediction left out unless they were asked for.
        jobs: One per expression, in the order of the table.
        score: Scores one of them; may run in another process.
        remarks: What should be known about tables and folders, one line each.
    """

    splits: tuple[str, ...]
    jobs: tuple[Any, ...]
    score: Callable[[Any], Answer]
    remarks: tuple[str, ...]


def make_plan(benchmark: Benchmark, root: Path, predictions: Path, splits: Sequence[str] = ()) -> Plan:
    """Read the benchmark's tables and look at the folder of predictions.

    Args:
        benchmark: Which one.
        root: Its folder.
        predictions: The folder of predictions.
        splits: The benchmark's own names; none takes its test splits.

    Raises:
        DataLayoutError: The benchmark cannot be read, or the folder holds no predictions for it.
    """
    if benchmark == "refavs":
        return _plan_refavs(root, predictions, splits)
    return _plan_videos(benchmark, root, predictions, splits or SPLITS[benchmark])


def _plan_refavs(root: Path, predictions: Path, splits: Sequence[str]) -> Plan:
    base = refavs.TREE.find(root)
    rows = [row for row in refavs.read_table(base) if row.split in (splits or SPLITS["refavs"])]
    places = {split: _split_folder(predictions, split) for split in dict.fromkeys(row.split for row in rows)}
    given = {
        split
        for split, place in places.items()
        if any(folder.is_dir() for row in rows if row.split == split for folder in answer_folders(place, row))
    }
    if not given:
        check_predictions(predictions, list(dict.fromkeys(row.folder for row in rows)), benchmark="refavs")
    chosen = tuple(split for split in places if split in given or split in splits)
    rows = [row for row in rows if row.split in chosen]
    repeated = {uid: count for uid, count in Counter(row.uid for row in rows).items() if count > 1}
    remarks = [f"no predictions for {split}: it was left out" for split in places if split not in chosen]
    shared = [
        row.uid for row in rows if row.uid in repeated and not next(answer_folders(places[row.split], row)).is_dir()
    ]
    if shared:
        remarks.append(
            f"{len(set(shared))} uids stand for {len(shared)} rows, some with other targets; a folder named by uid was"
            f" scored for each of them: {', '.join(dict.fromkeys(shared))}"
        )
    jobs = tuple(ClipJob(row, base, places[row.split]) for row in rows)
    return Plan(chosen, jobs, score_row, tuple(remarks))


def _plan_videos(benchmark: Benchmark, root: Path, predictions: Path, splits: Sequence[str]) -> Plan:
    tree = revos_meta.TREE if benchmark == "revos" else mevis.TREE
    base = tree.find(root)
    jobs: list[VideoJob] = []
    remarks: list[str] = []
    for split in splits:
        folder = base if benchmark == "revos" else base / split
        videos = revos_meta.read_videos(base, split) if benchmark == "revos" else mevis.read_videos(base, split)
        masks, foreground = folder / revos_meta.MASKS, folder / revos_meta.FOREGROUND
        _check_masks(tree, base, masks, videos)
        place = _split_folder(predictions, split)
        ignored = check_predictions(place, [video.name for video in videos], benchmark=benchmark)
        if ignored:
            remarks.append(f"{len(ignored)} names in {place} belong to no video and were ignored: {_some(ignored)}")
        has_foreground = benchmark == "revos" and foreground.is_file()
        if benchmark == "revos" and not has_foreground:
            remarks.append(f"there is no {revos_meta.FOREGROUND}: R was left out")
        asked = [(video, question) for video in videos for question in video.questions]
        jobs += [
            VideoJob(video, question, split, position, place, masks, foreground if has_foreground else None)
            for position, (video, question) in enumerate(asked)
        ]
    return Plan(tuple(splits), tuple(jobs), score_expression, tuple(remarks))


def _check_masks(tree: Tree, base: Path, masks: Path, videos: Sequence[Video]) -> None:
    found = Findings()
    check_masks(masks, videos, found)
    found.refuse(tree, base)


def _split_folder(predictions: Path, split: str) -> Path:
    """Predictions of several splits may lie in a folder each; those of one, in the folder itself."""
    return predictions / split if (predictions / split).is_dir() else predictions


def _some(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
