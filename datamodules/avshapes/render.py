"""Turn a scene into frames and masks.

Frames are anti-aliased; masks are hard and hold the visible pixels only, so they never overlap. Any side length
renders the same scene.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, UInt8

from datamodules.avshapes.outlines import stamp, visible_masks
from datamodules.avshapes.world import COLORS, Scene, Stream, generator

_GRAIN_CELLS = 28


def render_frames(
    scene: Scene, *, frames: Sequence[int] | None = None, size: int | None = None
) -> tuple[UInt8[np.ndarray, "frames size size 3"], Bool[np.ndarray, "frames things size size"]]:
    """Draw frames and the masks of the visible pixels of every thing.

    Args:
        scene: The scene.
        frames: Which frames in which order, 0-based; None is all of them.
        size: Side in pixels; None is the world's own.

    Returns:
        RGB frames, and masks in the order of `Scene.things`; a mask is all False where its thing is away or covered.
    """
    chosen = range(scene.world.frames) if frames is None else frames
    side = size or scene.world.size
    pixels = np.repeat(_background(scene, side)[None], len(chosen), axis=0)
    for canvas, frame in zip(pixels, chosen, strict=True):
        for thing in scene.things:
            found = stamp(thing, frame, side)
            if found is not None:
                cover = np.clip(found.distance + 0.5, 0, 1)[..., None]
                region = canvas[found.rows, found.columns]
                region += cover * (np.array(COLORS[thing.color], dtype=np.float32) - region)
    return (pixels + np.float32(0.5)).astype(np.uint8), visible_masks(scene.things, chosen, side)


def visible_areas(scene: Scene, *, size: int | None = None) -> Float[np.ndarray, "frames things"]:
    """Visible area of every thing on every frame as a share of the frame, 0..1; 0 where it is away or covered.

    Args:
        scene: The scene.
        size: Side in pixels of the grid that is counted; None is the world's own.
    """
    side = size or scene.world.size
    masks = visible_masks(scene.things, range(scene.world.frames), side)
    return np.asarray(masks.sum(axis=(2, 3)) / side**2)


def _background(scene: Scene, side: int) -> Float[np.ndarray, "side side 3"]:
    """The scene's mean color under smooth, static noise, the same for every frame."""
    grain = scene.world.grain
    cells = generator(scene.key, Stream.BACKGROUND).uniform(-grain, grain, size=(_GRAIN_CELLS + 1, _GRAIN_CELLS + 1))
    place = (np.arange(side) + 0.5) / side * _GRAIN_CELLS
    low = place.astype(np.int64)
    weight = (place - low)[:, None]
    rows = cells[low] * (1 - weight) + cells[low + 1] * weight
    noise = rows[:, low] * (1 - weight.T) + rows[:, low + 1] * weight.T
    return np.clip(np.array(scene.background) + noise[..., None], 0, 255).astype(np.float32)
