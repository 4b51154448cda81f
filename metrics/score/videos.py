"""Scores of predicted PNG folders for ReVOS and MeViS: `<predictions>/<video>/<expression>/<frame>.png`.

Nothing but the tables and masks of the benchmark is needed, no frames. As in the official programs, the first predicted
picture sets the size, overlapping instances of the ground truth add up in 8 bits, and all frames of a video count.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from pycocotools import mask as coco

from datamodules.errors import MediaError
from datamodules.json_index import Shape, open_index
from datamodules.masks import MaskTrack
from datamodules.revos_meta import Question, Video
from datamodules.rle import clean_counts
from metrics.revos import Level, levels
from metrics.score.answers import Answer, Oddity, Problem, UnusableAnswer
from metrics.score.pictures import read_picture
from metrics.video_parts import STORED, track_levels, video_parts

Size = tuple[int, int]


@dataclass(frozen=True)
class VideoJob:
    """One expression to score.

    Attributes:
        video: Its video.
        question: The expression.
        split: The benchmark's own name of the split.
        position: Place in the table.
        predictions: Folder that holds the videos' folders.
        masks: The file with one entry per object.
        foreground: The file with one entry per video; None where the benchmark has none.
    """

    video: Video
    question: Question
    split: str
    position: int
    predictions: Path
    masks: Path
    foreground: Path | None

    @property
    def name(self) -> str:
        """The expression, as `<video>/<expression>`."""
        return f"{self.video.name}/{self.question.id}"


def score_expression(job: VideoJob) -> Answer:
    """Score one expression.

    Args:
        job: Which one.

    Raises:
        MediaError: The ground truth is damaged; that is no fault of the predictions.
    """
    annotations = job.question.annotations or ()
    described = Answer(
        name=job.name,
        split=job.split,
        group=job.question.group,
        position=job.position,
        objects=len(annotations),
        frames=len(job.video.frames),
    )
    pictures = _Pictures(job)
    try:
        size = pictures.open()
        target = _track(job, annotations, size)
        areas = None if job.foreground is None else _areas(job, job.foreground, size)
        parts = video_parts(pictures.frames(), track_levels(target), size, areas)
    except UnusableAnswer as error:
        return _changed(described, problem=error.problem, detail=error.detail, oddities=pictures.oddities)
    return _changed(described, parts=parts, oddities=pictures.oddities)


def _changed(answer: Answer, **values: Any) -> Answer:  # noqa: ANN401
    oddities = tuple(values.pop("oddities").items())
    return Answer(**{**vars(answer), **values, "oddities": oddities})


@dataclass
class _Pictures:
    """The predicted pictures of one expression, each opened once.

    Attributes:
        job: Which expression.
        oddities: What was met so far, with the first file of each kind.
    """

    job: VideoJob
    oddities: dict[Oddity, str] = field(default_factory=dict)
    _first: UInt8[np.ndarray, "height width"] | None = None

    def open(self) -> Size:
        """Size of the first picture, which is the size of all."""
        folder = self.job.predictions / self.job.video.name
        if not folder.is_dir():
            raise UnusableAnswer(Problem.NO_VIDEO, str(folder))
        if not (folder / self.job.question.id).is_dir():
            raise UnusableAnswer(Problem.NO_EXPRESSION, str(folder / self.job.question.id))
        self._first = self._read(self.job.video.frames[0])
        return self._first.shape[0], self._first.shape[1]

    def frames(self) -> Iterator[list[Level]]:
        """Stored values of every frame."""
        if self._first is None:
            raise RuntimeError("the first picture sets the size; call open before frames")
        for index, frame in enumerate(self.job.video.frames):
            picture = self._read(frame) if index else self._first
            if picture.shape != self._first.shape:
                raise UnusableAnswer(
                    Problem.UNEVEN_SIZES, f"{self._file(frame)} is {_text(picture)}, the first one {_text(self._first)}"
                )
            found = levels(picture)
            if any(level.value != STORED for level in found):
                self.oddities.setdefault(Oddity.NOT_255, str(self._file(frame)))
            yield found

    def _file(self, frame: str) -> Path:
        return self.job.predictions / self.job.video.name / self.job.question.id / f"{frame}.png"

    def _read(self, frame: str) -> UInt8[np.ndarray, "height width"]:
        picture, oddities = read_picture(self._file(frame))
        for oddity in oddities:
            self.oddities.setdefault(oddity, str(self._file(frame)))
        return picture


def _text(picture: UInt8[np.ndarray, "height width"]) -> str:
    return f"{picture.shape[0]}x{picture.shape[1]}"


def _track(job: VideoJob, annotations: tuple[str, ...], size: Size) -> MaskTrack:
    """The targets' masks, one object per annotation."""
    frames = len(job.video.frames)
    if not annotations:
        return MaskTrack.empty(frames, size)
    columns = [_column(job.masks, name, "lists", frames, size, _changed_ns(job.masks)) for name in annotations]
    return MaskTrack(size, tuple(zip(*columns, strict=True)))


def _areas(job: VideoJob, path: Path, size: Size) -> list[int]:
    """Pixels of everything annotated, per frame."""
    column = _column(path, job.video.name, "objects", len(job.video.frames), size, _changed_ns(path))
    return [0 if one is None else int(coco.area({"size": list(size), "counts": one})) for one in column]


def _changed_ns(path: Path) -> int:
    return path.stat().st_mtime_ns


@lru_cache(maxsize=32)
def _column(path: Path, key: str, shape: Shape, frames: int, size: Size, changed_ns: int) -> tuple[bytes | None, ...]:
    """Checked run lengths of one entry; expressions about the same video share them."""
    del changed_ns  # It only tells versions of the file apart.
    try:
        entry = open_index(path, shape=shape).read(key)
    except KeyError:
        raise _damaged(path, key, "there is no such entry") from None
    except ValueError as error:
        raise _damaged(path, key, f"not valid JSON: {error}") from error
    masks = entry.get("masks_rle") if isinstance(entry, dict) else entry
    if not isinstance(masks, list) or len(masks) != frames:
        raise _damaged(path, key, f"expected one mask for each of the {frames} frames")
    return tuple(_counts(path, key, rle, size) for rle in masks)


def _counts(path: Path, key: str, rle: Any, size: Size) -> bytes | None:  # noqa: ANN401 (parsed JSON)
    """Run lengths of one mask; one of another size than the prediction is the prediction's problem."""
    if isinstance(rle, dict) and rle.get("size") != list(size):
        height, width = rle.get("size") or (0, 0)
        raise UnusableAnswer(
            Problem.WRONG_SIZE, f"pictures are {size[0]}x{size[1]}, the ground truth is {height}x{width}"
        )
    try:
        return clean_counts(rle, size)
    except ValueError as error:
        raise _damaged(path, key, str(error)) from error


def _damaged(path: Path, key: str, problem: str) -> MediaError:
    return MediaError(f"the ground truth in {path}, entry {key}, cannot be read: {problem}. Restore the file (--root).")
