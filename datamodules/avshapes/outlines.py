"""Outlines of the four shapes as signed distances, and where a thing's pixels are in a frame.

Every shape is given by closed formulas, evaluated inside its bounding box only; a pixel belongs to a shape when its
center does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from datamodules.avshapes.world import Thing

EXTENT: dict[str, float] = {"circle": 1.0, "square": 0.87, "triangle": 1.25, "star": 1.25}
"""Farthest reach of every shape along an axis, in radii."""

_SQUARE = 0.87
_TRIANGLE = 1.25
_STAR_TIP = 1.25
_STAR_NOTCH = 0.6
_SIN36, _COS36 = math.sin(math.pi / 5), math.cos(math.pi / 5)

UNIT_AREA: dict[str, float] = {
    "circle": math.pi,
    "square": 4 * _SQUARE**2,
    "triangle": 3 * math.sqrt(3) / 4 * _TRIANGLE**2,
    "star": 5 * _STAR_TIP * _STAR_NOTCH * _SIN36,
}
"""Area of every shape in squared radii."""


@dataclass(frozen=True)
class Stamp:
    """Where one thing falls in one frame, before anything covers it.

    Attributes:
        rows: Rows of its bounding box.
        columns: Columns of its bounding box.
        distance: Signed distance of every pixel center of the box to the outline in pixels, positive inside.
    """

    rows: slice
    columns: slice
    distance: Float[np.ndarray, "rows columns"]


def signed_distance(
    shape: str, dx: Float[np.ndarray, "..."], dy: Float[np.ndarray, "..."], radius: float
) -> Float[np.ndarray, "..."]:
    """Distance to the outline's nearest edge line, positive inside.

    Args:
        shape: One of `SHAPES`.
        dx: Horizontal offset from the center, to the right, any unit.
        dy: Vertical offset from the center, down, same unit; triangle and star point up.
        radius: The thing's radius, same unit.
    """
    if shape == "circle":
        return np.asarray(radius - np.hypot(dx, dy))
    if shape == "square":
        return np.asarray(_SQUARE * radius - np.maximum(np.abs(dx), np.abs(dy)))
    if shape == "triangle":
        inner = _TRIANGLE / 2 * radius
        return np.asarray(np.minimum(inner - dy, inner - math.sqrt(3) / 2 * np.abs(dx) + dy / 2))
    return _star_distance(dx, dy, radius)


def _star_distance(
    dx: Float[np.ndarray, "..."], dy: Float[np.ndarray, "..."], radius: float
) -> Float[np.ndarray, "..."]:
    """A star's ten edges are one edge mirrored: fold the plane until only that edge is left."""
    x, y = np.broadcast_arrays(np.abs(dx), -dy)
    for side in (_COS36, -_COS36):
        beyond = 2 * np.maximum(side * x - _SIN36 * y, 0)
        x, y = x - side * beyond, y + _SIN36 * beyond
    across, along = _STAR_NOTCH * _SIN36, _STAR_NOTCH * _COS36 - _STAR_TIP
    length = math.hypot(across, along)
    return np.asarray((np.abs(x) * along - (y - _STAR_TIP * radius) * across) / length)


def stamp(thing: Thing, frame: int, size: int) -> Stamp | None:
    """Where a thing falls in a frame.

    Args:
        thing: The thing.
        frame: Which frame, 0-based.
        size: Side of the frame in pixels.

    Returns:
        The stamp, or None when the thing is entirely outside.
    """
    x, y = thing.path[frame][0] * size, thing.path[frame][1] * size
    radius = thing.radius[frame] * size
    reach = EXTENT[thing.shape] * radius + 1
    left, right = max(0, int(x - reach)), min(size, int(x + reach) + 1)
    top, bottom = max(0, int(y - reach)), min(size, int(y + reach) + 1)
    if left >= right or top >= bottom:
        return None
    dx = np.arange(left, right, dtype=np.float32)[None] + np.float32(0.5 - x)
    dy = np.arange(top, bottom, dtype=np.float32)[:, None] + np.float32(0.5 - y)
    return Stamp(slice(top, bottom), slice(left, right), signed_distance(thing.shape, dx, dy, radius))


def visible_masks(
    things: Sequence[Thing], frames: Sequence[int], size: int
) -> Bool[np.ndarray, "frames things size size"]:
    """Pixels of every thing that lie inside the frame and are not covered by a later thing."""
    masks = np.zeros((len(frames), len(things), size, size), dtype=bool)
    for row, frame in zip(masks, frames, strict=True):
        for index, thing in enumerate(things):
            found = stamp(thing, frame, size)
            if found is None:
                continue
            inside = found.distance > 0
            row[index, found.rows, found.columns] = inside
            row[:index, found.rows, found.columns] &= ~inside
    return masks


def visible_shares(things: Sequence[Thing], frames: int, size: int = 64) -> Float[np.ndarray, "things frames"]:
    """Visible share of every thing's own full outline, 0..1, on a coarse grid."""
    areas = visible_masks(things, range(frames), size).sum(axis=(2, 3)).T
    full = np.array([[UNIT_AREA[thing.shape] * (radius * size) ** 2 for radius in thing.radius] for thing in things])
    return np.asarray(np.clip(areas / full, 0, 1))
