"""What is to be scored for each benchmark: one job per expression, in the order of the table."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from datamodules import mevis, refavs, revos_meta
from datamodules.errors import DataLayoutError
from datamodules.findings import Findings
from datamodules.layout import check_masks
from datamodules.refavs import Row
from datamodules.revos_meta import Video
from datamodules.tree import Tree
from metrics.score.answers import Answer
from metrics.score.clips import ClipJob, answer_folders, other_names, score_row
from metrics.score.folder import check_predictions, ignored_inside, lacks_all, some
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
        DataLayoutError: The benchmark cannot be read, the folder holds no predictions for it, or splits are named that
            no official number is of together.
    """
    if len(set(splits)) < len(splits):
        raise DataLayoutError(f"--splits: expected every split once, found {', '.join(splits)}.")
    if benchmark == "revos" and len(splits) > 1:
        raise DataLayoutError(
            f"--splits: the averages of revos are of one split; found {', '.join(splits)}. Score them one by one."
        )
    if benchmark == "refavs":
        return _plan_refavs(root, predictions, splits)
    return _plan_videos(benchmark, root, predictions, splits or SPLITS[benchmark])


def _plan_refavs(root: Path, predictions: Path, splits: Sequence[str]) -> Plan:
    base = refavs.TREE.find(root)
    rows = _clip_rows(base, splits)
    places = {split: _split_folder(predictions, split) for split in rows}
    given = {
        split
        for split, place in places.items()
        if any(folder.is_dir() for row in rows[split] for folder in answer_folders(place, row))
    }
    others = {split: other_names(predictions, places[split], rows[split]) for split in rows if split not in given}
    if not given:
        raise DataLayoutError(_no_clips(predictions, places, rows, others))
    chosen = tuple(split for split in rows if split in given or split in splits)
    remarks = [
        f"no predictions for {split}: it was left out{'; ' if text else ''}{text}"
        for split, text in others.items()
        if split not in chosen
    ]
    asked = sorted((row for split in chosen for row in rows[split]), key=lambda row: row.number)
    remarks += _shared_folders(asked, places) + _unknown_clips(base, places.values())
    jobs = tuple(ClipJob(row, base, places[row.split]) for row in asked)
    return Plan(chosen, jobs, score_row, tuple(remarks))


def _clip_rows(base: Path, splits: Sequence[str]) -> dict[str, list[Row]]:
    """Rows of the splits that were named, or of those test splits that the table has."""
    wanted, rows = splits or SPLITS["refavs"], defaultdict[str, list[Row]](list)
    for row in refavs.read_table(base):
        rows[row.split].append(row)
    lacking = [split for split in wanted if split not in rows]
    if lacking and (splits or len(lacking) == len(wanted)):
        raise DataLayoutError(
            f"--splits: {base / 'metadata.csv'} has no rows of {', '.join(lacking)};"
            f" it has {', '.join(sorted(rows)) or 'none at all'}."
        )
    return {split: found for split, found in rows.items() if split in wanted}


def _no_clips(
    predictions: Path, places: Mapping[str, Path], rows: Mapping[str, Sequence[Row]], others: Mapping[str, str]
) -> str:
    """What a folder without a single prediction holds: clips with other names inside, or none of the clips anywhere."""
    text = next((text for text in others.values() if text), "")
    if text:
        return (
            f"--predictions: {predictions} holds folders of clips of refavs, but none of any expression;"
            f" {text}.\nName the folders by row, category and number, as docs/evaluation.md says."
        )
    clips = defaultdict[Path, dict[str, None]](dict)
    for split, place in places.items():
        clips[place] |= dict.fromkeys(row.folder for row in rows[split])
    return "\n".join(lacks_all(place, list(names), benchmark="refavs") for place, names in clips.items())


def _shared_folders(rows: Sequence[Row], places: Mapping[str, Path]) -> list[str]:
    """A remark on uids that stand for several rows and have one folder."""
    repeated = {uid for uid, count in Counter(row.uid for row in rows).items() if count > 1}
    shared = [
        row.uid for row in rows if row.uid in repeated and not next(answer_folders(places[row.split], row)).is_dir()
    ]
    if not shared:
        return []
    return [
        f"{len(set(shared))} uids stand for {len(shared)} rows, some with other targets; a folder named by uid was"
        f" scored for each of them: {', '.join(dict.fromkeys(shared))}"
    ]


def _unknown_clips(base: Path, places: Iterable[Path]) -> list[str]:
    """A remark on folders that are named by no clip and no uid of the table, whatever its split."""
    known = {name for row in refavs.read_table(base) for name in (row.folder, row.uid, row.split)}
    unknown = {place: [path.name for path in sorted(place.iterdir()) if path.name not in known] for place in places}
    return [
        f"{len(names)} names in {place} belong to no clip and were ignored: {some(names)}"
        for place, names in unknown.items()
        if names
    ]


def _plan_videos(benchmark: Benchmark, root: Path, predictions: Path, splits: Sequence[str]) -> Plan:
    tree = revos_meta.TREE if benchmark == "revos" else mevis.TREE
    base = tree.find(root)
    jobs: list[VideoJob] = []
    remarks: list[str] = []
    for split in splits:
        folder = base if benchmark == "revos" else base / split
        videos = revos_meta.read_videos(base, split) if benchmark == "revos" else mevis.read_videos(base, split)
        if not videos:
            raise tree.error(base, [f"the table of {split} names no video"])
        masks, foreground = folder / revos_meta.MASKS, folder / revos_meta.FOREGROUND
        _check_masks(tree, base, masks, videos)
        place = _split_folder(predictions, split)
        ignored = check_predictions(place, [video.name for video in videos], benchmark=benchmark)
        if ignored:
            remarks.append(f"{len(ignored)} names in {place} belong to no video and were ignored: {some(ignored)}")
        inside = ignored_inside(place, {video.name: {one.id for one in video.questions} for video in videos})
        if inside:
            remarks.append(f"{len(inside)} names in {place} are no expressions of {split}: {some(inside)}")
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
