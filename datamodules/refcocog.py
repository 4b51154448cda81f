"""RefCOCOg pictures as clips that stand still: the set refCOCOg_2k_840 of Seg-Zero, which the method trains on.

Pictures are stored squashed to 840 x 840 pixels; boxes and points count in these pixels and are served in them. There
are no masks. Where the annotations of RefCOCOg lie beside the table (`instances.json` as in lichengunc/refer), masks
are taken from there by annotation id, brought to the size of the picture; their own size may differ from the
picture's original size by a pixel, which this evens out.

Reference:
    Seg-Zero, arXiv:2503.06520, its published training set; RefCOCOg (UMD), arXiv:1511.02283.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from pycocotools import mask as coco

from datamodules.clean import clean_expression
from datamodules.errors import MediaError
from datamodules.image_table import BROKEN_TABLE, Part
from datamodules.masks import BoxTrack, MaskTrack
from datamodules.media import BROKEN_IMAGE, check_indices, fit_size, shrink
from datamodules.reader import ClipReader
from datamodules.records import Clip, FrameBudget, Frames
from datamodules.refcocog_table import ANNOTATIONS, SIDE, TREE, Row, read_annotations, read_rows
from datamodules.rle import clean_counts


class TablePicture(Frames):
    """One picture of a table, as every frame of a clip."""

    def __init__(self, part: Part, place: int, *, count: int, fps: float, clip_id: str) -> None:
        """Name the picture; it is not read.

        Args:
            part: Where its row lies.
            place: Position of the row there.
            count: Frames of the clip.
            fps: Frames per second.
            clip_id: What error messages call the clip.
        """
        self.part, self.place, self.count, self.fps, self.clip_id = part, place, count, fps, clip_id

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels; the same for every picture of the set."""
        return SIDE, SIDE

    def read(
        self, indices: Sequence[int], *, max_pixels: int | None = None
    ) -> UInt8[np.ndarray, "frames height width 3"]:
        """The picture, once for every index, shrunk with antialiased bicubic interpolation where needed.

        Args:
            indices: From 0 to count - 1.
            max_pixels: As for all frames.

        Raises:
            IndexError: There is no such frame.
            MediaError: The picture cannot be decoded, or has another size than all of the set should have.
        """
        check_indices(indices, self.count, self.clip_id)
        shown = shrink(self._picture, fit_size(self.size, max_pixels))
        return np.stack([shown] * len(indices)) if indices else np.empty((0, *shown.shape), dtype=np.uint8)

    @cached_property
    def _picture(self) -> UInt8[np.ndarray, "height width 3"]:
        try:
            stored = self.part.read_cell(self.place, "image")["bytes"]
            with Image.open(io.BytesIO(stored)) as image:
                pixels = np.asarray(image.convert("RGB"))
        except (*BROKEN_IMAGE, *BROKEN_TABLE, TypeError, KeyError) as error:
            raise self._error(f"cannot be decoded ({type(error).__name__}: {error})") from error
        if pixels.shape[:2] != self.size:
            raise self._error(f"is {pixels.shape[0]}x{pixels.shape[1]} pixels, expected {SIDE}x{SIDE}")
        return pixels

    def _error(self, problem: str) -> MediaError:
        where = f"picture in {self.part.path}, group {self.part.group}, row {self.place}"
        return MediaError(f"{self.clip_id}: {where} {problem}. Restore the file or set --data.on_bad_sample skip.")


class RefCOCOg(ClipReader):
    """Every picture of the table with its expression, in the order of the table."""

    def __init__(
        self,
        root: Path | str,
        *,
        fps: float = 1.0,
        still_frames: int = 1,
        budget: FrameBudget | None = None,
        rows: Sequence[Row] | None = None,
    ) -> None:
        """Read the table and, where they are there, the annotations; no picture is opened.

        Args:
            root: The folder, or the one that an archive wrapped it in.
            fps: Frames per second: a picture stands for still_frames / fps seconds.
            still_frames: How many equal frames a picture is served as.
            budget: How much of a clip each system may look at; None takes the defaults.
            rows: Rows of the table to serve; None serves all.

        Raises:
            DataLayoutError: There is no readable table.
        """
        self.base = TREE.find(Path(root))
        self.rows = tuple(read_rows(self.base) if rows is None else rows)
        self._masks = read_annotations(self.base, {one for row in self.rows for one in row.annotations})
        self._fps, self._still_frames = fps, still_frames
        self._budget = budget or FrameBudget()

    @property
    def nulls(self) -> tuple[bool, ...]:
        """Every target is there."""
        return (False,) * len(self.rows)

    def clip(self, index: int, *, visit: int = 0) -> Clip:
        """The clip of one row; every visit is the same.

        Args:
            index: Position among the rows that are served.
            visit: Not used.
        """
        row, count = self.rows[index], self._still_frames
        clip_id = f"refcocog/train/{row.number}:{row.id}"
        return Clip(
            id=clip_id,
            task="refcocog",
            split="train",
            kind="image",
            expression=clean_expression(row.text),
            frames=TablePicture(row.part, row.place, count=count, fps=self._fps, clip_id=clip_id),
            budget=self._budget,
            video=row.id,
            expression_id=str(row.number),
            frame_names=tuple(map(str, range(count))),
            group="train",
            position=row.number,
            mask_source=self._mask_source(row, clip_id),
            box_source=partial(_boxes, row, count) if self._masks is None else None,
        )

    def _mask_source(self, row: Row, clip_id: str) -> Callable[[], MaskTrack] | None:
        """Only what belongs to the row travels with its clip."""
        if self._masks is None:
            return None
        objects = [self._masks.get(one) for one in row.annotations]
        return partial(_read_masks, objects, self._still_frames, self.base, clip_id)


def _boxes(row: Row, frames: int) -> BoxTrack:
    """Inclusive corners become half-open boxes."""
    boxes = tuple((float(x1), float(y1), float(x2 + 1), float(y2 + 1)) for x1, y1, x2, y2 in row.boxes)
    return BoxTrack((SIDE, SIDE), (boxes,) * frames)


def _read_masks(objects: Sequence[list[dict[str, Any]] | None], frames: int, base: Path, clip_id: str) -> MaskTrack:
    """Every annotation is one object; its pieces are joined, at the size of the stored picture."""
    counts: list[bytes | None] = []
    try:
        if not objects or None in objects:
            raise ValueError("an annotation is missing")
        for pieces in objects:
            found = [piece for one in pieces or () if (piece := clean_counts(one, (SIDE, SIDE))) is not None]
            merged = coco.merge([{"size": [SIDE, SIDE], "counts": piece} for piece in found]) if found else None
            counts.append(None if merged is None else bytes(merged["counts"]))
    except ValueError as error:
        problem = f"{clip_id}: masks in {base / ANNOTATIONS}: {error}."
        raise MediaError(f"{problem} Restore the file or set --data.on_bad_sample skip.") from error
    return MaskTrack((SIDE, SIDE), (tuple(counts),) * frames)
