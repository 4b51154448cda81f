"""Where a thing is and how large, frame by frame: presence, movement and scale."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from datamodules.avshapes.outlines import EXTENT
from datamodules.avshapes.world import Presence, World

_SLIDE = 0.15
"""How long sliding in or out takes, as a share of the clip."""
_ENTER = (0.2, 0.6)
_LEAVE = (0.4, 0.7)
"""When the middle of the slide may fall, as a share of the clip: away for two of ten frames, there for three."""


@dataclass(frozen=True)
class Track:
    """One thing's course.

    Attributes:
        presence: Whether it stays, enters or leaves.
        moves: Whether it moves all the time.
        path: Center per frame, fractions of the side.
        radius: Radius per frame, fraction of the side.
        from_s: From when on it is entirely there, ignoring what covers it, in seconds.
        to_s: Until when, in seconds.
    """

    presence: Presence
    moves: bool
    path: tuple[tuple[float, float], ...]
    radius: tuple[float, ...]
    from_s: float
    to_s: float


def sample_track(rng: np.random.Generator, world: World, shape: str) -> Track:
    """Draw one thing's course."""
    presence = _sample_presence(rng, world)
    moves = bool(rng.random() < world.moving_share)
    base = float(rng.uniform(world.min_radius, world.max_radius))
    duration, slide = world.duration_s, _SLIDE * world.duration_s
    times = np.arange(world.frames) / world.fps
    begin, end = 0.0, duration
    if presence == "enter":
        begin = float(rng.uniform(*_ENTER)) * duration + slide / 2
    if presence == "leave":
        end = float(rng.uniform(*_LEAVE)) * duration - slide / 2
    path = _sample_path(rng, world, moves=moves, margin=EXTENT[shape] * base)
    radius = base * _sample_scale(rng, world, times, begin, end)
    # Away by 1 before (after) the slide and by 0 once it is entirely there.
    away = np.clip(np.maximum(begin - times, times - end) / slide, 0, 1)
    if presence != "stay":
        anchor = np.argmin(np.abs(times - (begin if presence == "enter" else end)))
        path = _slide(path, away, path[anchor], 1.1 * EXTENT[shape] * base)
    return Track(
        presence=presence,
        moves=moves,
        path=tuple((round(float(x), 4), round(float(y), 4)) for x, y in path),
        radius=tuple(round(float(value), 4) for value in radius),
        from_s=begin,
        to_s=end,
    )


def _sample_presence(rng: np.random.Generator, world: World) -> Presence:
    draw = rng.random()
    if draw < world.enter_share:
        return "enter"
    return "leave" if draw < world.enter_share + world.leave_share else "stay"


def _sample_path(
    rng: np.random.Generator, world: World, *, moves: bool, margin: float
) -> Float[np.ndarray, "frames 2"]:
    """A fixed place, or a straight line that bounces off the borders."""
    room = 1 - 2 * margin
    start = rng.uniform(0, room, size=2)
    speed, angle = rng.uniform(world.min_speed, world.max_speed), rng.uniform(0, 2 * np.pi)
    velocity = np.array([np.cos(angle), np.sin(angle)]) * (speed if moves else 0)
    steps = np.arange(world.frames)[:, None] / world.fps
    folded = np.mod(start + velocity * steps, 2 * room)
    return np.asarray(margin + np.minimum(folded, 2 * room - folded))


def _sample_scale(
    rng: np.random.Generator, world: World, times: Float[np.ndarray, "frames"], begin: float, end: float
) -> Float[np.ndarray, "frames"]:
    """1 throughout, or a straight rise and fall around a peak at the start, at the end or in between."""
    scales = rng.random() < world.scaling_share
    smallest = world.smallest_scale * rng.uniform(0.9, 1.1)
    peak = float(rng.choice([begin, end, rng.uniform(begin, end)]))
    if not scales:
        return np.ones(len(times))
    # The last frame is shown before the clip ends; a peak at the very end would never be seen.
    peak = min(peak, float(times[-1]))
    lean = np.abs(times - peak) / max(peak - begin, end - peak)
    return np.asarray(np.clip(1 - (1 - smallest) * lean, min(smallest, 1), 1))


def _slide(
    path: Float[np.ndarray, "frames 2"],
    away: Float[np.ndarray, "frames"],
    anchor: Float[np.ndarray, "2"],
    clearance: float,
) -> Float[np.ndarray, "frames 2"]:
    """Lead the path over the edge that is nearest to where the slide begins or ends."""
    gaps = np.array([anchor[0], 1 - anchor[0], anchor[1], 1 - anchor[1]])
    edge = int(np.argmin(gaps))
    axis, outside = edge // 2, (-clearance if edge % 2 == 0 else 1 + clearance)
    bent = path.copy()
    bent[:, axis] = (1 - away) * path[:, axis] + away * outside
    return bent
