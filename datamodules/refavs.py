"""Ref-AVS Bench as clips: 10-second clips with sound, ten frames each, one sentence per row of ``metadata.csv``.

The folder of a clip is named by the row's ``uid`` without its last two fields, not by ``vid``: the two differ on null
rows, whose ``vid`` leads to the unchanged clip with a real target. A uid occurs more than once with different targets,
so clips are told apart by row number. Differences from the official loader: sentences are cleaned (see
`datamodules.clean`), rows that say nothing are left out of training, and the frame decides the size of a mask.

Reference:
    Ref-AVS: Refer and Segment Objects in Audio-Visual Scenes, arXiv:2407.10957; GeWu-Lab/Ref-AVS.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from datamodules.audio import read_audio
from datamodules.clean import clean_expression, is_useless
from datamodules.masks import MaskTrack
from datamodules.media import FolderFrames, read_mask_track, unreadable
from datamodules.reader import ClipReader
from datamodules.records import SAMPLE_RATE, Clip, FrameBudget
from datamodules.thinning import spread
from datamodules.tree import Tree

SPLITS = ("train", "val", "test_s", "test_u", "test_n")
"""Splits of the benchmark. The table also has rows marked TODO, left over from annotation; they belong to none."""

LEFTOVER = "TODO"
COLUMNS = ("vid", "uid", "split", "fid", "exp")
FRAME_COUNT = 10
NULL = "null"
MUTED = "null_m-"
"""Beginning of the folder names of clips whose sound was taken away."""

TREE = Tree(
    command="refavs",
    title="Ref-AVS Bench",
    picture="""
<root>/metadata.csv                                     columns vid,uid,split,fid,exp
<root>/media/<clip>/frames/0.jpg ... 9.jpg
<root>/media/<clip>/audio.wav                           (or media_cross/<clip>/audio.wav)
<root>/gt_mask/<clip>/fid_<fid>/00000.png ... 00009.png
""",
    markers=("metadata.csv",),
    folders=("REFAVS", "RefAVSBench"),
)


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table.

    Attributes:
        number: Position among the data rows of the table, 0-based; the only key of a row.
        vid: The raw clip that this one was made from; where null rows come from, not where their files are.
        uid: The table's name of the row; not unique.
        split: As in the table.
        fid: The target within the clip.
        text: The sentence as annotated.
    """

    number: int
    vid: str
    uid: str
    split: str
    fid: int
    text: str

    @property
    def folder(self) -> str:
        """Name of the clip's folders: the uid without category and counter."""
        return self.uid.rsplit("_", 2)[0]

    @property
    def name(self) -> str:
        """Category and counter, the rest of the uid."""
        return self.uid[len(self.folder) + 1 :]

    @property
    def is_null(self) -> bool:
        """True when the target is not in the clip."""
        return self.name.rsplit("_", 1)[0] == NULL


def read_table(base: Path) -> list[Row]:
    """Read every row of ``metadata.csv``, whatever its split.

    Args:
        base: Folder that holds the table.

    Raises:
        DataLayoutError: The table lacks columns, is no UTF-8 text, or has rows that cannot be read; names them all.
    """
    path = base / "metadata.csv"
    # A spreadsheet program may have put a byte order mark in front; newline="" leaves line ends to the csv module.
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            table = csv.DictReader(file)
            missing = [column for column in COLUMNS if column not in (table.fieldnames or ())]
            if missing:
                raise TREE.error(base, [f"metadata.csv has no column {', '.join(missing)}; found {table.fieldnames}"])
            raw = [(table.line_num, record) for record in table]
    except (UnicodeDecodeError, csv.Error) as error:
        raise TREE.error(base, [f"metadata.csv is not readable as UTF-8 comma-separated text: {error}"]) from error
    rows, problems = [], []
    for number, (line, record) in enumerate(raw):
        problem = _row_problem(record)
        if problem:
            problems.append(f"metadata.csv line {line}: {problem}")
        else:
            rows.append(Row(number, record["vid"], record["uid"], record["split"], int(record["fid"]), record["exp"]))
    if problems:
        raise TREE.error(base, problems)
    return rows


def _row_problem(record: dict[str, str]) -> str:
    if None in record or None in record.values():
        return f"expected {len(COLUMNS)} fields, found other than that"
    if not record["fid"].isdecimal():
        return f"fid is {record['fid']!r}, expected a whole number"
    if record["uid"].count("_") < 2:
        return f"uid is {record['uid']!r}, expected <clip>_<category>_<n>"
    if "/" in record["uid"] or "\\" in record["uid"]:
        return f"uid is {record['uid']!r}, expected no path separators"
    if record["split"] not in (*SPLITS, LEFTOVER):
        return f"split is {record['split']!r}, expected one of {', '.join(SPLITS)}"
    return ""


class RefAVS(ClipReader):
    """One split of Ref-AVS Bench, in the order of the table."""

    def __init__(
        self,
        root: Path | str,
        *,
        split: str,
        fps: float = 1.0,
        frame_count: int = FRAME_COUNT,
        clip_frames: int | None = None,
        budget: FrameBudget | None = None,
    ) -> None:
        """Read the table; no media is opened.

        Args:
            root: The benchmark's folder, or the one that an archive wrapped it in.
            split: train, val, test_s (seen), test_u (unseen) or test_n (null). Rows of `train` that say nothing are
                left out.
            fps: Frames per second that the stored frames stand for.
            frame_count: Frames stored per clip.
            clip_frames: Most frames of a clip, spread evenly, the pace lowered to match; None serves every frame.
            budget: How much of a clip each system may look at; None takes the defaults.

        Raises:
            DataLayoutError: There is no readable table.
            ValueError: There is no such split.
        """
        if split not in SPLITS:
            raise ValueError(f"Ref-AVS has no split {split!r}; it has {', '.join(SPLITS)}.")
        self.base = TREE.find(Path(root))
        self.split = split
        self.rows = tuple(row for row in read_table(self.base) if row.split == split and _is_asked(row))
        self._fps = fps
        self._frame_count = frame_count
        self._kept = spread(frame_count, clip_frames)
        self._budget = budget or FrameBudget()

    @cached_property
    def nulls(self) -> tuple[bool, ...]:
        """For each row, whether its target is not in the clip."""
        return tuple(row.is_null for row in self.rows)

    def clip(self, index: int, *, visit: int = 0) -> Clip:
        """The clip of one row; every visit is the same.

        Args:
            index: Position among the rows of this split that are asked.
            visit: Not used.
        """
        row = self.rows[index]
        clip_id = f"refavs/{row.split}/{row.number}:{row.uid}"
        folder = self.base / "media" / row.folder
        files = [folder / "frames" / f"{frame}.jpg" for frame in self._kept]
        frames = FolderFrames(files, fps=self._fps * len(files) / self._frame_count, clip_id=clip_id)
        return Clip(
            id=clip_id,
            task="refavs",
            split=row.split,
            kind=NULL if row.is_null else ("unseen" if row.split == "test_u" else "seen"),
            expression=clean_expression(row.text),
            frames=frames,
            budget=self._budget,
            video=row.folder,
            expression_id=f"{row.number:05d}_{row.name}",
            frame_names=tuple(f"{frame:05d}" for frame in self._kept),
            group=row.split,
            position=row.number,
            is_null=row.is_null,
            audio_source=partial(_read_sound, self.base, row, frames),
            mask_source=partial(_read_masks, self.base, row, frames, self._kept),
        )


def _is_asked(row: Row) -> bool:
    return row.split != "train" or not is_useless(clean_expression(row.text))


def _read_sound(base: Path, row: Row, frames: FolderFrames) -> Float32[np.ndarray, "samples"]:
    places = [base / media / row.folder / "audio.wav" for media in ("media", "media_cross")]
    found = next((path for path in places if path.is_file()), None)
    if found is None and not row.folder.startswith(MUTED):
        # The sound of the raw clip would change the question, so it is never taken instead.
        raise unreadable("sound", places[0], frames.clip_id, f"{places[1]} is not there either")
    sound = None if found is None else read_audio(found, clip_id=frames.clip_id)
    # Silence, not "no sound": the prompt must have the same form as the others, or its form is the answer.
    silence = np.zeros(round(SAMPLE_RATE * frames.count / frames.fps), dtype=np.float32)
    return silence if sound is None else sound


def _read_masks(base: Path, row: Row, frames: FolderFrames, kept: Sequence[int]) -> MaskTrack:
    if row.is_null:
        # Never gt_mask/<vid>/fid_0: most raw clips have a real object 0, and its masks are not empty.
        return MaskTrack.empty(frames.count, frames.size)
    folder = base / "gt_mask" / row.folder / f"fid_{row.fid}"
    files = [folder / f"{frame:05d}.png" for frame in kept]
    return read_mask_track(files, frames.size, clip_id=frames.clip_id)


@dataclass(frozen=True)
class SplitCount:
    """Size of one split of the table, leftover rows and useless sentences included.

    Attributes:
        rows: Rows.
        videos: Distinct vids.
        clips: Distinct clip folders.
        targets: Distinct pairs of clip folder and target.
        null_rows: Rows whose target is not in the clip.
        null_clips: Distinct clip folders of such rows.
    """

    rows: int
    videos: int
    clips: int
    targets: int
    null_rows: int
    null_clips: int


def count_table(root: Path | str) -> dict[str, SplitCount]:
    """Count ``metadata.csv`` per split, in the order in which splits appear.

    Args:
        root: The benchmark's folder, or the one that an archive wrapped it in.

    Raises:
        DataLayoutError: There is no readable table.
    """
    splits: dict[str, list[Row]] = {}
    for row in read_table(TREE.find(Path(root))):
        splits.setdefault(row.split, []).append(row)
    return {split: _count(rows) for split, rows in splits.items()}


def _count(rows: Sequence[Row]) -> SplitCount:
    nulls = [row for row in rows if row.is_null]
    return SplitCount(
        rows=len(rows),
        videos=len({row.vid for row in rows}),
        clips=len({row.folder for row in rows}),
        targets=len({(row.folder, row.fid) for row in rows}),
        null_rows=len(nulls),
        null_clips=len({row.folder for row in nulls}),
    )
