"""Builders of clips and rollouts: plain data, no model, no disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pytest
import torch

from datamodules.masks import MaskTrack
from datamodules.records import Clip, FrameGrounding, Frames, Grounding, Keyframe, ParseReport, Plan, Rollout


@dataclass
class BlankFrames(Frames):
    """Frames of which only number, rate and size matter."""

    count: int
    fps: float
    height: int
    width: int

    @property
    def size(self) -> tuple[int, int]:
        return self.height, self.width

    def read(self, indices: Sequence[int], *, max_pixels: int | None = None) -> np.ndarray:
        return np.zeros((len(indices), *self.size, 3), np.uint8)


def build_clip(
    masks: np.ndarray | None = None, *, frames: int = 10, fps: float = 1.0, is_null: bool = False, clip_id: str = "c"
) -> Clip:
    """A clip with dense (T, O, H, W) masks, or without ground truth."""
    count, height, width = (frames, 8, 8) if masks is None else (masks.shape[0], *masks.shape[2:])
    source = None if masks is None else lambda: MaskTrack.from_dense(masks)
    blank = BlankFrames(count, fps, height, width)
    return Clip(clip_id, "refavs", "train", "seen", "it", blank, is_null=is_null, mask_source=source)


def build_plan(
    picks: Sequence[int | tuple[float, float]] | Literal["absent", "unparsable"],
    clip: Clip,
    *,
    repeats: int = 0,
    objects: int | None = None,
    complete: int | None = None,
    in_clip: int | None = None,
    moments: int | None = None,
    is_well_formed: bool = True,
) -> Plan:
    """A plan of frames or (start_s, end_s) segments; the report counts the picks and repeats unless told otherwise."""
    keyframes = []
    for pick in [] if isinstance(picks, str) else picks:
        start, end = pick if isinstance(pick, tuple) else (pick / clip.frames.fps, pick / clip.frames.fps)
        keyframes.append(Keyframe(clip.frame_at((start + end) / 2), "it", start, end))
    named = 1 if picks == "absent" else len(keyframes) + repeats
    complete = (0 if picks == "absent" else named) if complete is None else complete
    report = ParseReport(
        is_well_formed=is_well_formed,
        objects=named if objects is None else objects,
        complete=complete,
        in_clip=complete if in_clip is None else in_clip,
        moments=len(keyframes) if moments is None else moments,
    )
    return Plan(tuple(keyframes), picks == "absent", report, repeats)


def build_rollout(
    clip: Clip,
    picks: Sequence[int | tuple[float, float]] | Literal["absent", "unparsable"] = "unparsable",
    *,
    boxes: Sequence[Sequence[Sequence[float]]] | None = None,
    masks: np.ndarray | None = None,
    tokens: int = 3,
    index: int = 0,
    **report: int | bool,
) -> Rollout:
    """A rollout whose plan picks frames; boxes are given per pick, masks dense as (T, O, H, W)."""
    plan = build_plan(picks, clip, **report)
    grounding = None
    if boxes is not None:
        found = [np.array(items, np.float32).reshape(-1, 4) for items in boxes]
        grounding = Grounding(
            tuple(
                FrameGrounding(keyframe.frame, items, np.ones(len(items), np.float32))
                for keyframe, items in zip(plan.keyframes, found, strict=True)
            )
        )
    track = None if masks is None else MaskTrack.from_dense(masks)
    ids = torch.zeros(tokens, dtype=torch.int64)
    return Rollout(clip, index, "", ids, torch.zeros(tokens), False, plan, grounding, track)


@pytest.fixture
def make_clip() -> Callable[..., Clip]:
    return build_clip


@pytest.fixture
def make_rollout() -> Callable[..., Rollout]:
    return build_rollout


@pytest.fixture
def two_squares() -> np.ndarray:
    """(4, 2, 8, 8): object 0 is 4x4 at the top left corner on frames 0 and 1; object 1 is 2x2 at (4..6, 4..6) on 1.

    Union areas per frame: 16, 20, 0, 0.
    """
    masks = np.zeros((4, 2, 8, 8), bool)
    masks[0:2, 0, 0:4, 0:4] = True
    masks[1, 1, 4:6, 4:6] = True
    return masks
