"""Check a benchmark's folder before anything long begins; also ``python -m datamodules.layout refavs FOLDER``.

All problems are collected and raised as one error. By default folders, sound files and tables are looked at; every
single frame and mask only when asked. Nothing is decoded: broken files are the business of `on_bad_sample`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from datamodules import mevis, refavs, refcocog_table, revos_meta
from datamodules.errors import DataLayoutError
from datamodules.findings import Findings
from datamodules.json_index import JsonIndex, open_index
from datamodules.refavs import Row
from datamodules.revos import frame_folder
from datamodules.revos_meta import Video


@dataclass(frozen=True)
class LayoutReport:
    """What a check found in a folder that can be used.

    Attributes:
        base: Where the tree begins.
        facts: What is there, one line each.
        warnings: What is odd but usable, and its consequence, one line each.
    """

    base: Path
    facts: tuple[str, ...]
    warnings: tuple[str, ...] = ()


def check_refavs(
    root: Path | str, *, splits: Sequence[str] = refavs.SPLITS, every_file: bool = False, may_skip: bool = False
) -> LayoutReport:
    """Check a folder of Ref-AVS Bench.

    Args:
        root: The benchmark's folder, or the one that an archive wrapped it in.
        splits: Which splits must be usable.
        every_file: Look for each frame and each mask, not only for their folders.
        may_skip: Clips that lack files will be left out: as long as most are whole, that is a warning.

    Raises:
        DataLayoutError: The splits cannot be used; names everything that is wrong.
    """
    base = refavs.TREE.find(Path(root))
    rows = [row for row in refavs.read_table(base) if row.split in splits]
    found = Findings(may_skip=may_skip)
    found.problems += [
        f"metadata.csv has no row of split {split}" for split in splits if not any(row.split == split for row in rows)
    ]
    clips = list(dict.fromkeys(row.folder for row in rows))
    targets = list(dict.fromkeys((row.folder, row.fid) for row in rows if not row.is_null))
    masks = [base / "gt_mask" / folder / f"fid_{fid}" for folder, fid in targets]
    frames = [base / "media" / folder / "frames" for folder in clips]
    found.missing("clips have no frames", frames)
    found.missing("clips have no sound", _sounds(base, rows), Path.is_file)
    found.missing("targets have no masks", masks)
    if every_file:
        numbers = range(refavs.FRAME_COUNT)
        found.missing(
            "frames are not there", [folder / f"{number}.jpg" for folder in frames for number in numbers], Path.is_file
        )
        found.missing(
            "masks are not there",
            [folder / f"{number:05d}.png" for folder in masks for number in numbers],
            Path.is_file,
        )
    found.refuse(refavs.TREE, base)
    facts = [
        f"{split}: {count.rows} rows, {count.videos} videos, {count.clips} clips, {count.targets} targets,"
        f" {count.null_rows} null rows of {count.null_clips} clips"
        for split, count in refavs.count_table(base).items()
    ]
    return LayoutReport(base, tuple(facts), tuple(found.warnings))


def _sounds(base: Path, rows: Iterable[Row]) -> list[Path]:
    """The sound file of every clip that must have one; where it is only in the second place, that one."""
    sounds = []
    for folder in dict.fromkeys(row.folder for row in rows if not row.folder.startswith(refavs.MUTED)):
        first, second = (base / media / folder / "audio.wav" for media in ("media", "media_cross"))
        sounds.append(second if not first.is_file() and second.is_file() else first)
    return sounds


def check_revos(
    root: Path | str, *, splits: Sequence[str] = revos_meta.SPLITS, every_file: bool = False, may_skip: bool = False
) -> LayoutReport:
    """Check a folder of ReVOS.

    Args:
        root: The benchmark's folder, or the one that an archive wrapped it in.
        splits: Which splits must be usable.
        every_file: Look for each frame, not only for each video's first one.
        may_skip: Clips that lack files will be left out: as long as most are whole, that is a warning.

    Raises:
        DataLayoutError: The splits cannot be used; names everything that is wrong.
    """
    base = revos_meta.TREE.find(Path(root))
    tables = {split: revos_meta.read_videos(base, split) for split in splits}
    videos = [video for split in splits for video in tables[split]]
    found = Findings(may_skip=may_skip)
    found.problems += [f"the table of split {split} has no video" for split, table in tables.items() if not table]
    files = [
        frame_folder(base, video.name) / f"{frame}.jpg"
        for video in videos
        for frame in (video.frames if every_file else video.frames[:1])
    ]
    found.missing("frames are not there", files, Path.is_file)
    check_masks(base / revos_meta.MASKS, videos, found)
    found.refuse(revos_meta.TREE, base)
    facts = tuple(_revos_fact(split, table) for split, table in tables.items())
    return LayoutReport(base, facts, (*found.warnings, *_revos_warnings(base, videos)))


def check_mevis(
    root: Path | str, *, splits: Sequence[str] | None = None, every_file: bool = False, may_skip: bool = False
) -> LayoutReport:
    """Check a folder of MeViS.

    Args:
        root: The benchmark's folder, or the one that an archive wrapped it in.
        splits: Which splits must be usable; None takes those that are there.
        every_file: Look for each frame, not only for each video's first one.
        may_skip: Clips that lack files will be left out: as long as most are whole, that is a warning.

    Raises:
        DataLayoutError: The splits cannot be used; names everything that is wrong.
    """
    base = mevis.TREE.find(Path(root))
    there = [split for split in mevis.SPLITS if (base / split / mevis.META).is_file()]
    tables = {split: mevis.read_videos(base, split) for split in (there if splits is None else splits)}
    found = Findings(may_skip=may_skip)
    for split, videos in tables.items():
        if not videos:
            found.problems.append(f"the table of split {split} has no video")
        files = [
            base / split / "JPEGImages" / video.name / f"{frame}.jpg"
            for video in videos
            for frame in (video.frames if every_file else video.frames[:1])
        ]
        found.missing(f"frames of {split} are not there", files, Path.is_file)
        if split not in mevis.WITHOUT_MASKS:
            check_masks(base / split / mevis.MASKS, videos, found, name=f"{split}/{mevis.MASKS}")
    found.refuse(mevis.TREE, base)
    warnings = [warning for videos in tables.values() for warning in _video_warnings(videos)]
    return LayoutReport(base, tuple(_mevis_fact(*item) for item in tables.items()), (*found.warnings, *warnings))


def _mevis_fact(split: str, videos: Sequence[Video]) -> str:
    kinds = [mevis.question_kind(question) for video in videos for question in video.questions]
    counts = ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(sorted(kinds, reverse=True)))
    return f"{split}: {len(videos)} videos, {len(kinds)} expressions ({counts})"


def check_refcocog(
    root: Path | str, *, splits: Sequence[str] = refcocog_table.SPLITS, every_file: bool = False, may_skip: bool = False
) -> LayoutReport:
    """Check a folder of refCOCOg_2k_840.

    Args:
        root: The folder, or the one that an archive wrapped it in.
        splits: There is one split, train; every row of it is looked at.
        every_file: Not used: the pictures lie in the table.
        may_skip: Pictures without their annotations will be left out: as long as most are whole, that is a warning.

    Raises:
        DataLayoutError: The table or its annotations cannot be used; names everything that is wrong.
    """
    base = refcocog_table.TREE.find(Path(root))
    rows = refcocog_table.read_rows(base)
    wanted = {one for row in rows for one in row.annotations}
    masks = refcocog_table.read_annotations(base, wanted)
    found = Findings(may_skip=may_skip)
    found.problems += [] if rows else ["the table has no row"]
    if masks is not None:
        gone = [str(one) for one in sorted(wanted - set(masks))]
        found.lacking(f"annotations are not in {refcocog_table.ANNOTATIONS}", gone, len(wanted))
    found.refuse(refcocog_table.TREE, base)
    truth = "boxes alone" if masks is None else f"masks of {len(masks)} annotations"
    return LayoutReport(base, (f"train: {len(rows)} pictures, {truth}",), tuple(found.warnings))


def check_masks(path: Path, videos: Sequence[Video], found: Findings, *, name: str = revos_meta.MASKS) -> None:
    """Say what is wrong with a file of masks.

    Args:
        path: The file.
        videos: Whose questions it must answer.
        found: Where it is said.
        name: What the file is called there.
    """
    if not path.is_file():
        found.problems.append(f"there is no {name}")
        return
    index = open_index(path, shape="lists")
    wanted = dict.fromkeys(
        one for video in videos for question in video.questions for one in question.annotations or ()
    )
    lacking = [one for one in wanted if one not in index]
    found.lacking(f"objects that are asked about are not in {name}", lacking, len(wanted))
    if _is_cut_off(index):
        found.problems.append(f"{name} is cut off: its last entry is not complete. Copy or download it again")


def _is_cut_off(index: JsonIndex) -> bool:
    if not len(index):
        return False
    try:
        index.read(list(index)[-1])
    except ValueError:
        return True
    return False


def _revos_fact(split: str, videos: Sequence[Video]) -> str:
    kinds = [question.kind for video in videos for question in video.questions]
    counts = ", ".join(f"{kinds.count(kind)} {kind}" for kind in revos_meta.KINDS)
    return f"{split}: {len(videos)} videos, {len(kinds)} expressions ({counts})"


def _video_warnings(videos: Sequence[Video]) -> Iterator[str]:
    unsorted = [video.name for video in videos if list(video.frames) != sorted(video.frames)]
    if unsorted:
        yield (
            f"{len(unsorted)} videos list their frames out of order (first: {unsorted[0]}); the table's order is used,"
            " while the official training code sorts them"
        )
    short = [video.name for video in videos if len(video.frames) < 2]
    if short:
        yield f"{len(short)} videos have fewer than two frames (first: {short[0]}); training leaves them out"


def _revos_warnings(base: Path, videos: Sequence[Video]) -> Iterator[str]:
    yield from _video_warnings(videos)
    doubtful = [
        f"{video.name}/{question.id}"
        for video in videos
        for question in video.questions
        if question.is_null and question.annotations
    ]
    if doubtful:
        yield (
            f"{len(doubtful)} non-existent expressions list annotated objects (first: {doubtful[0]}); they are served"
            " without a target"
        )
    if not (base / revos_meta.FOREGROUND).is_file():
        yield f"there is no {revos_meta.FOREGROUND}; the robustness score cannot be computed"


CHECKS: dict[str, Callable[..., LayoutReport]] = {
    "refavs": check_refavs,
    "revos": check_revos,
    "mevis": check_mevis,
    "refcocog": check_refcocog,
}
"""The check of each benchmark, by the name that the command line uses."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Check a folder from the command line.

    Args:
        arguments: What was typed; None takes the process's own.

    Returns:
        Exit status: 0 when the folder can be used, 1 when not.
    """
    parser = argparse.ArgumentParser(prog="python -m datamodules.layout", description="Check a benchmark's folder.")
    parser.add_argument("benchmark", choices=sorted(CHECKS))
    parser.add_argument("root", type=Path, help="folder to check")
    parser.add_argument(
        "--every-file", action="store_true", help="look for each frame and each mask (slow on networks)"
    )
    typed = parser.parse_args(arguments)
    try:
        report = CHECKS[typed.benchmark](typed.root, every_file=typed.every_file)
    except DataLayoutError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    lines = [f"{report.base} can be used.", *report.facts, *(f"Warning: {line}" for line in report.warnings)]
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
