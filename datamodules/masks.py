"""Masks of several objects over time, kept run-length encoded; boxes where a benchmark has nothing better."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int
from pycocotools import mask as coco


@dataclass(frozen=True)
class MaskTrack:
    """Masks of several objects over time, run-length encoded until asked for.

    Attributes:
        size: (height, width) of every mask, pixels of the original frame.
        counts: Per frame, per object: COCO compressed run lengths, or None where the object is not visible.
        stored: Where a benchmark keeps masks of another size than the frames, each frame's as they are kept, in a track
            of one frame; a score that is defined on those reads them here. Empty where there is no difference.
    """

    size: tuple[int, int]
    counts: tuple[tuple[bytes | None, ...], ...]
    stored: tuple[MaskTrack, ...] = ()

    @classmethod
    def from_dense(cls, masks: Bool[np.ndarray, "frames objects height width"]) -> MaskTrack:
        """Encode boolean masks; a mask without a pixel becomes None."""
        height, width = masks.shape[2:]
        rows = []
        for frame in masks:
            encoded = coco.encode(np.asfortranarray(frame.transpose(1, 2, 0).astype(np.uint8))) if len(frame) else []
            rows.append(tuple(rle["counts"] if mask.any() else None for rle, mask in zip(encoded, frame, strict=True)))
        return cls((height, width), tuple(rows))

    @classmethod
    def empty(cls, frames: int, size: tuple[int, int]) -> MaskTrack:
        """A track without any object: what an absent target looks like."""
        return cls(size, ((),) * frames)

    @property
    def frames(self) -> int:
        """Number of frames, T."""
        return len(self.counts)

    @property
    def objects(self) -> int:
        """Number of objects, O; 0 for an absent target."""
        return len(self.counts[0]) if self.counts else 0

    def dense(self, frames: Sequence[int] | None = None) -> Bool[np.ndarray, "frames objects height width"]:
        """Decode all frames, or the given ones in the given order."""
        chosen = range(self.frames) if frames is None else frames
        out = np.zeros((len(chosen), self.objects, *self.size), dtype=bool)
        for row, index in zip(out, chosen, strict=True):
            for mask, counts in zip(row, self.counts[index], strict=True):
                if counts is not None:
                    mask[:] = coco.decode(self._rle(counts))
        return out

    def union(self, frames: Sequence[int] | None = None) -> Bool[np.ndarray, "frames height width"]:
        """Pixels that belong to any object, per frame; all False where there is none."""
        chosen = range(self.frames) if frames is None else frames
        out = np.zeros((len(chosen), *self.size), dtype=bool)
        for mask, index in zip(out, chosen, strict=True):
            present = [self._rle(counts) for counts in self.counts[index] if counts is not None]
            if present:
                mask[:] = coco.decode(coco.merge(present))
        return out

    @cached_property
    def areas(self) -> Int[np.ndarray, "frames objects"]:
        """Visible pixels of every object on every frame."""
        rows = [[0 if counts is None else int(coco.area(self._rle(counts))) for counts in row] for row in self.counts]
        return np.array(rows, dtype=np.int64).reshape(self.frames, self.objects)

    def boxes(self, frame: int) -> Float[np.ndarray, "visible 4"]:
        """Tight boxes (xyxy, half-open) of the objects that are visible on a frame; shape (0, 4) if none is."""
        present = [self._rle(counts) for counts in self.counts[frame] if counts is not None]
        if not present:
            return np.zeros((0, 4))
        xywh = coco.toBbox(present)
        return np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)

    def subset(self, frames: Sequence[int]) -> MaskTrack:
        """The track of some frames only, in the given order."""
        stored = tuple(self.stored[index] for index in frames) if self.stored else ()
        return replace(self, counts=tuple(self.counts[index] for index in frames), stored=stored)

    def _rle(self, counts: bytes) -> dict[str, object]:
        return {"size": list(self.size), "counts": counts}


@dataclass(frozen=True)
class BoxTrack:
    """Boxes of several objects over time: the ground truth of a benchmark that labels boxes and no masks.

    Attributes:
        size: (height, width) of the frames in pixels.
        rows: Per frame, the boxes of the visible objects: xyxy, pixels of the original frame, half-open.
    """

    size: tuple[int, int]
    rows: tuple[tuple[tuple[float, float, float, float], ...], ...]

    @property
    def frames(self) -> int:
        """Number of frames, T."""
        return len(self.rows)

    def boxes(self, frame: int) -> Float[np.ndarray, "visible 4"]:
        """Boxes of the objects that are visible on a frame; shape (0, 4) if none is."""
        return np.array(self.rows[frame], dtype=np.float64).reshape(-1, 4)
