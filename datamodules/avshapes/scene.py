"""Draw scenes: which things are there, how they look, where they go, what they sound like, and when.

A scene depends on its key, the world and `unseen` alone, never on what was drawn before. `sample_scene` redraws until
everything that makes a question fair holds: every thing is seen almost whole and almost at full size on some frame,
is visible on three frames or more, and the sounds fit into the time in which their things are there.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from datamodules.avshapes.outlines import visible_shares
from datamodules.avshapes.tracks import Track, sample_track
from datamodules.avshapes.world import (
    COLORS,
    LOUDNESS,
    PITCHES,
    SHAPES,
    UNSEEN_LOOKS,
    UNSEEN_TONES,
    Presence,
    Scene,
    Sound,
    Stream,
    Thing,
    World,
    generator,
)

__all__ = [
    "COLORS",
    "DEFAULT_WORLD",
    "LOUDNESS",
    "PITCHES",
    "SHAPES",
    "UNSEEN_LOOKS",
    "UNSEEN_TONES",
    "Presence",
    "Scene",
    "Sound",
    "Thing",
    "World",
    "sample_scene",
]

DEFAULT_WORLD = World()

_ATTEMPTS = 500
_FULL_VIEW = 0.84
"""Share of the largest outline that must be visible once; the guarantee is 0.8, the rest is for the coarse grid."""
_GLIMPSE = 0.1
_GLIMPSES = 3
_GAP_S = 0.3
_STAGGER_S = 0.5
"""Least distance between the starts of two sounds when they may overlap."""


def sample_scene(key: tuple[int, ...], world: World = DEFAULT_WORLD, *, unseen: bool = False) -> Scene:
    """Draw the scene of a clip.

    Args:
        key: Non-negative integers that name the clip, such as (seed, split, index).
        world: The dials.
        unseen: Whether at least one thing carries a held-out look or tone; otherwise none does.

    Returns:
        The same scene for the same arguments. Every thing shows at least 80 % of its largest outline on some frame
        and is visible on at least 3 frames.

    Raises:
        RuntimeError: No acceptable scene was found in 500 draws: the world is too crowded or too loud for its length.
    """
    for attempt in range(_ATTEMPTS):
        scene = _draw(generator(key, Stream.SCENE, attempt), key, world, unseen=unseen)
        if scene is not None:
            return scene
    raise RuntimeError(
        f"No scene of key {key} was acceptable in {_ATTEMPTS} draws; this world is too crowded or too full of sound. "
        f"Lower world.max_things ({world.max_things}), world.max_radius ({world.max_radius:g}) or world.max_sound_s "
        f"({world.max_sound_s:g})."
    )


def _draw(rng: np.random.Generator, key: tuple[int, ...], world: World, *, unseen: bool) -> Scene | None:
    """One draw; None when it is not acceptable."""
    count = int(rng.integers(world.min_things, world.max_things + 1))
    held_out = _sample_held_out(rng, world, count) if unseen else ("",) * count
    looks = _sample_looks(rng, world, held_out)
    if looks is None:
        return None
    tracks = [sample_track(rng, world, shape) for _, shape in looks]
    sounds = _sample_sounds(rng, world, [shape for _, shape in looks], tracks, held_out)
    if sounds is None:
        return None
    things = tuple(
        Thing(shape, color, track.radius, track.path, track.presence, track.moves, sound)
        for (color, shape), track, sound in zip(looks, tracks, sounds, strict=True)
    )
    visible = visible_shares(things, world.frames)
    if not _is_fair(things, visible):
        return None
    tint = rng.integers(14, 46) + rng.integers(-10, 11, size=3)
    background = (int(tint[0]), int(tint[1]), int(tint[2]))
    rounded = tuple(tuple(round(float(share), 3) for share in row) for row in visible)
    return Scene(key, world, things, background, rounded)


def _is_fair(things: tuple[Thing, ...], visible: np.ndarray) -> bool:
    """Whether every thing is seen almost whole at almost full size once, and glimpsed often enough."""
    scale = np.array([[radius / max(thing.radius) for radius in thing.radius] for thing in things])
    full_views = (visible * scale**2).max(axis=1) >= _FULL_VIEW
    glimpses = (visible >= _GLIMPSE).sum(axis=1) >= _GLIMPSES
    return bool((full_views & glimpses).all())


def _sample_held_out(rng: np.random.Generator, world: World, count: int) -> tuple[str, ...]:
    """Per thing: "look" or "tone" if it must carry a held-out pair, "" if it must not; never all ""."""
    kinds = ["look", "tone"] if sum(world.sounding[1:]) > 0 else ["look"]
    carries = rng.random(count) < 0.5
    carries[rng.integers(count)] = True
    return tuple(str(rng.choice(kinds)) if carrier else "" for carrier in carries)


def _sample_looks(rng: np.random.Generator, world: World, held_out: tuple[str, ...]) -> list[tuple[str, str]] | None:
    """Distinct (color, shape) pairs; None if the pairs run out for a shape."""
    count = len(held_out)
    order = rng.permutation(len(SHAPES))[:count] if world.distinct_shapes else rng.integers(len(SHAPES), size=count)
    looks: list[tuple[str, str]] = []
    for index, kind in zip(order, held_out, strict=True):
        shape = SHAPES[index]
        pairs = [(color, shape) for color in COLORS if ((color, shape) in UNSEEN_LOOKS) == (kind == "look")]
        free = [color for color, _ in pairs if (color, shape) not in looks]
        copies = [color for color, _ in looks if color in free]
        if not free:
            return None
        pool = copies if copies and rng.random() < world.shared_color else free
        looks.append((pool[rng.integers(len(pool))], shape))
    return looks


def _sample_sounds(
    rng: np.random.Generator, world: World, shapes: list[str], tracks: list[Track], held_out: tuple[str, ...]
) -> list[Sound | None] | None:
    """One sound or silence per thing; None if pitches or times do not fit."""
    drawn = int(rng.choice(len(world.sounding), p=world.sounding))
    forced = [index for index, kind in enumerate(held_out) if kind == "tone"]
    others = [int(index) for index in rng.permutation(len(shapes)) if index not in forced]
    sounders = forced + others[: max(0, drawn - len(forced))]
    pitches = _sample_pitches(rng, shapes, sounders, forced)
    spans = _sample_spans(rng, world, [tracks[index] for index in sounders])
    if pitches is None or spans is None:
        return None
    sounds: list[Sound | None] = [None] * len(shapes)
    for index, (start_s, end_s) in zip(sounders, spans, strict=True):
        sounds[index] = Sound(start_s, end_s, pitches[index], int(rng.integers(len(LOUDNESS))))
    return sounds


def _sample_pitches(
    rng: np.random.Generator, shapes: list[str], sounders: list[int], forced: list[int]
) -> dict[int, int] | None:
    """Distinct pitch levels, held-out ones for the forced things and seen ones for the others."""
    pitches: dict[int, int] = {}
    for index in sounders:
        levels = [
            level
            for level in range(len(PITCHES))
            if ((shapes[index], level) in UNSEEN_TONES) == (index in forced) and level not in pitches.values()
        ]
        if not levels:
            return None
        pitches[index] = levels[rng.integers(len(levels))]
    return pitches


def _sample_spans(rng: np.random.Generator, world: World, tracks: list[Track]) -> list[tuple[float, float]] | None:
    """A (start, end) in seconds per sounding thing, inside the time in which it is there."""
    for _ in range(30):
        lengths = rng.uniform(world.min_sound_s, world.max_sound_s, size=len(tracks))
        slack = np.array([track.to_s - track.from_s for track in tracks]) - lengths - 0.2
        if (slack < 0).any():
            continue
        starts = np.array([track.from_s for track in tracks]) + 0.1 + rng.uniform(0, 1, size=len(tracks)) * slack
        spans = [(round(float(s), 2), round(float(s + n), 2)) for s, n in zip(starts, lengths, strict=True)]
        if _keep_apart(spans, overlapping=world.overlapping_sounds):
            return spans
    return None


def _keep_apart(spans: list[tuple[float, float]], *, overlapping: bool) -> bool:
    ordered = sorted(spans)
    pairs = list(pairwise(ordered))
    if overlapping:
        return all(later[0] - earlier[0] >= _STAGGER_S for earlier, later in pairs)
    return all(later[0] - earlier[1] >= _GAP_S for earlier, later in pairs)
