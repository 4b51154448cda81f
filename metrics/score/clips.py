"""Scores of predicted PNG folders for Ref-AVS: `<predictions>/<clip>/<row>_<category>_<n>/<frame>.png`.

The benchmark's program keeps no predictions, so there is no layout of its own. This one has the form of the other
benchmarks'; the row number is in it because a uid may stand for two rows. Folders that are named by uid are taken too:
`<predictions>/<uid>` or `<predictions>/<clip>/<category>_<n>`. The pictures of an expression have one size, whichever:
the benchmark brings predictions and ground truth to 256 x 256, each from its own. Frames are called 00000 to 00009, or
0 to 9.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float32

from datamodules.media import read_mask
from datamodules.refavs import FRAME_COUNT, Row
from metrics.refavs import SIZE, hard_logits, resize_target
from metrics.refavs_scores import refavs_parts
from metrics.score.answers import Answer, Oddity, Problem, UnusableAnswer
from metrics.score.folder import some
from metrics.score.pictures import read_picture
from metrics.video_parts import STORED

_LOST = {
    Oddity.LOST_VALUES: "16 bits with values of 1 to 255, which 8 bits lose",
    Oddity.LOST_COLORS: "marks in the alpha channel or in colors next to black, which gray loses",
}


@dataclass(frozen=True)
class ClipJob:
    """One row of the table to score.

    Attributes:
        row: The row.
        base: Folder that holds `gt_mask`.
        predictions: Folder that holds the predictions of the row's split.
    """

    row: Row
    base: Path
    predictions: Path

    @property
    def name(self) -> str:
        """The expression, as `<clip>/<row>_<category>_<n>`."""
        return f"{self.row.folder}/{self.row.number:05d}_{self.row.name}"


def answer_folders(predictions: Path, row: Row) -> Iterator[Path]:
    """Where the prediction for a row may lie, the unambiguous place first."""
    yield predictions / row.folder / f"{row.number:05d}_{row.name}"
    yield predictions / row.folder / row.name
    yield predictions / row.uid


def other_names(predictions: Path, place: Path, rows: Iterable[Row]) -> str:
    """What lies in a clip's folder where its predictions should be, for a message.

    Args:
        predictions: The folder of predictions, which paths in the text begin in.
        place: Folder of the rows' split in it.
        rows: Rows without any prediction.

    Returns:
        What was expected and what was found, of the first clip that has a folder; empty when none has one.
    """
    row = next((row for row in rows if (place / row.folder).is_dir()), None)
    if row is None:
        return ""
    folder, expected = place / row.folder, next(answer_folders(place, row)) / "00000.png"
    found = some(sorted(path.name for path in folder.iterdir())) or "nothing"
    return (
        f"expected for example {expected.relative_to(predictions)}, found in {folder.relative_to(predictions)}: {found}"
    )


def score_row(job: ClipJob) -> Answer:
    """Score one row.

    Args:
        job: Which one.

    Raises:
        MediaError: The ground truth is damaged; that is no fault of the predictions.
    """
    row = job.row
    oddities: dict[Oddity, str] = {}
    described = {"split": row.split, "group": row.split, "position": row.number, "objects": int(not row.is_null)}
    answer = Answer(name=job.name, frames=FRAME_COUNT, **described)  # type: ignore[arg-type]
    try:
        pred = _predicted(job, oddities)
    except UnusableAnswer as error:
        found = {"problem": error.problem, "detail": error.detail}
        return Answer(**{**vars(answer), **found, "oddities": tuple(oddities.items())})
    # Never the masks on disk for a null row: the folder of its raw clip shows another, real object.
    target = torch.zeros(FRAME_COUNT, 1, SIZE, SIZE) if row.is_null else _truth(job, pred.shape[1:], oddities)
    parts = refavs_parts(hard_logits(resize_target(pred)), target)
    return Answer(**{**vars(answer), "parts": parts, "oddities": tuple(oddities.items())})


def _predicted(job: ClipJob, oddities: dict[Oddity, str]) -> Bool[np.ndarray, "frames height width"]:
    folder = next((path for path in answer_folders(job.predictions, job.row) if path.is_dir()), None)
    if folder is None:
        kind = Problem.NO_EXPRESSION if (job.predictions / job.row.folder).is_dir() else Problem.NO_VIDEO
        raise UnusableAnswer(kind, str(next(answer_folders(job.predictions, job.row))))
    masks: list[Bool[np.ndarray, "height width"]] = []
    for frame in range(FRAME_COUNT):
        long, short = folder / f"{frame:05d}.png", folder / f"{frame}.png"
        path = short if short.is_file() and not long.is_file() else long
        picture, found = read_picture(path)
        for oddity in found:
            oddities.setdefault(oddity, str(path))
            if oddity in _LOST:  # no program reads it so for this benchmark, and for S nothing is perfect
                raise UnusableAnswer(Problem.UNREADABLE, f"{path}: {_LOST[oddity]}")
        if masks and picture.shape != masks[0].shape:
            shapes = f"{picture.shape[0]}x{picture.shape[1]}, the first one {masks[0].shape[0]}x{masks[0].shape[1]}"
            raise UnusableAnswer(Problem.UNEVEN_SIZES, f"{path} is {shapes}")
        if ((picture != 0) & (picture != STORED)).any():
            oddities.setdefault(Oddity.NOT_255, str(path))
        masks.append(picture != 0)
    return np.stack(masks)


def _truth(
    job: ClipJob, predicted: tuple[int, ...], oddities: dict[Oddity, str]
) -> Float32[torch.Tensor, "frames 1 256 256"]:
    """The target's masks; predictions of another size are scored all the same, and named."""
    folder = job.base / "gt_mask" / job.row.folder / f"fid_{job.row.fid}"
    masks = [read_mask(folder / f"{frame:05d}.png", None, clip_id=job.name) for frame in range(FRAME_COUNT)]
    if masks[0].shape != predicted:
        sizes = "{}x{}, the ground truth {}x{}".format(*predicted, *masks[0].shape)
        oddities.setdefault(Oddity.RESIZED, f"{next(answer_folders(job.predictions, job.row))} has {sizes}")
    return torch.cat([resize_target(mask[None]) for mask in masks])
