"""Dense labels of a clip: what can be said at every visual and every sound token once everything before it is known.

A question has one answer and costs many tokens; a mark costs none, because the token is read anyway. Together they
teach what the questions then rest on: which second a token belongs to, whether its thing has been there from the start,
which color the thing has that is heard, which pitch the thing has that is seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from jaxtyping import Bool, Float, Int

from datamodules.avshapes.perception import PITCH_WORDS, cover_cells
from datamodules.avshapes.scene import COLORS, Scene, Thing
from datamodules.lessons import Mark

_FITS = 0.35
"""Share of a cell that a thing covers if it is the cell's thing."""
_DIGITS = tuple(str(digit) for digit in range(10))
_COURSE, _MOTION, _PITCH, _LOUDNESS = ("start", "later"), ("still", "moves"), ("low", "highest"), ("quiet", "loudest")
_SILENT = "silent"

MARK_WORDS = (*_COURSE, *_MOTION, *_PITCH, *_LOUDNESS, _SILENT, *PITCH_WORDS, *COLORS)
"""All words that marks choose from, digits aside; each has to be one token."""


def mark_clip(
    scene: Scene, heard: tuple[Thing, ...] | None, masks: Bool[np.ndarray, "frames things side side"], *, cells: int
) -> tuple[Mark, ...]:
    """All marks of a clip whose visual tokens cover two frames each.

    Args:
        scene: What is seen.
        heard: Things that sound, at most one at a time; None for a clip without sound tokens.
        masks: Visible pixels of every thing on every frame.
        cells: Visual tokens per frame side.
    """
    cover = np.stack([cover_cells(masks[first : first + 2], cells) for first in range(0, len(masks) - 1, 2)])
    marks = (_moments(len(cover), cells, 2 / scene.world.fps), *_courses(scene, cover))
    if heard is None:
        return marks
    tokens = round(scene.world.duration_s * _TOKENS_PER_S)
    sounding = sound_at(heard, tokens)
    return marks + _sounds(scene, heard, sounding, cover) + _heard_so_far(scene, heard, sounding, cover)


_TOKENS_PER_S = 5


def sound_at(heard: tuple[Thing, ...], tokens: int) -> Int[np.ndarray, "tokens"]:
    """Index of the thing that sounds at the middle of every sound token; -1 at silence."""
    middle_s = (np.arange(tokens) + 0.5) / _TOKENS_PER_S
    sounding = np.full(tokens, -1)
    for index, thing in enumerate(heard):
        if thing.sound is not None:
            sounding[(middle_s > thing.sound.start_s) & (middle_s < thing.sound.end_s)] = index
    return sounding


def _moments(pairs: int, cells: int, pair_s: float) -> Mark:
    """Second of every visual token."""
    return Mark("video", _DIGITS, np.repeat((np.arange(pairs) * pair_s).astype(int) % 10, cells * cells))


def _courses(scene: Scene, cover: Float[np.ndarray, "pairs things cells"]) -> tuple[Mark, ...]:
    """Whether the thing of a visual token was there in the first seconds, and whether it has moved so far."""
    owner = _owner(cover)
    at_start = (cover[0] > _FITS / 2).any(axis=1)
    came = [
        1 if thing.presence == "enter" else 0 if early else -1
        for thing, early in zip(scene.things, at_start, strict=True)
    ]
    moved = np.array([_has_moved(thing, len(cover)) for thing in scene.things])
    return (
        _by_thing(owner, _inside(_COURSE), lambda _, thing: came[thing]),
        _by_thing(owner, _inside(_MOTION), lambda pair, thing: int(moved[thing, pair])),
    )


def _sounds(
    scene: Scene,
    heard: tuple[Thing, ...],
    sounding: Int[np.ndarray, "tokens"],
    cover: Float[np.ndarray, "pairs things cells"],
) -> tuple[Mark, ...]:
    """At every sound token: second, how many sounds so far, highest and loudest so far, and the color of its thing."""
    tokens = np.arange(len(sounding))
    seen = (cover > _FITS).any(axis=2).cumsum(axis=0) > 0
    pair_of = np.minimum((tokens / _TOKENS_PER_S * scene.world.fps / 2).astype(int), len(cover) - 1)
    shown = {thing.shape: index for index, thing in enumerate(scene.things)}
    colors, order, highest, loudest = (np.full(len(sounding), -1) for _ in range(4))
    so_far: list[int] = []
    for token in tokens[sounding >= 0]:
        index = int(sounding[token])
        so_far += [index] if index not in so_far else []
        order[token] = len(so_far) - 1
        pitches = [heard[other].sound.pitch for other in so_far if heard[other].sound]  # type: ignore[union-attr]
        volumes = [heard[other].sound.loudness for other in so_far if heard[other].sound]  # type: ignore[union-attr]
        highest[token] = int(pitches[so_far.index(index)] == max(pitches))
        loudest[token] = int(volumes[so_far.index(index)] == max(volumes))
        visible = shown.get(heard[index].shape)
        if visible is not None and seen[pair_of[token], visible]:
            colors[token] = list(COLORS).index(scene.things[visible].color)
    return (
        Mark("audio", _DIGITS, tokens // _TOKENS_PER_S % 10),
        Mark("audio", _inside(COLORS), colors),
        Mark("audio", _DIGITS[1:5], order),
        Mark("audio", _inside(_PITCH), highest),
        Mark("audio", _inside(_LOUDNESS), loudest),
    )


def _heard_so_far(
    scene: Scene,
    heard: tuple[Thing, ...],
    sounding: Int[np.ndarray, "tokens"],
    cover: Float[np.ndarray, "pairs things cells"],
) -> tuple[Mark, ...]:
    """At every visual token of a thing: the pitch of its sound if it was heard before these frames, or silent."""
    per_pair = round(2 / scene.world.fps * _TOKENS_PER_S)
    options = _inside((_SILENT, *PITCH_WORDS))

    def pitch(pair: int, thing: int) -> int:
        before = {int(index) for index in sounding[: pair * per_pair] if index >= 0}
        found = [heard[i].sound for i in before if heard[i].shape == scene.things[thing].shape]
        return 1 + found[0].pitch if found and found[0] else 0

    return (_by_thing(_owner(cover), options, pitch),)


def _inside(words: Iterable[str]) -> tuple[str, ...]:
    """Words as they stand inside a sentence, after a space."""
    return tuple(f" {word}" for word in words)


def _owner(cover: Float[np.ndarray, "pairs things cells"]) -> Int[np.ndarray, "pairs cells"]:
    """The thing that covers most of every cell; -1 where none covers enough."""
    return np.where(cover.max(axis=1) >= _FITS, cover.argmax(axis=1), -1)


def _by_thing(
    owner: Int[np.ndarray, "pairs cells"], options: tuple[str, ...], answer: Callable[[int, int], int]
) -> Mark:
    """A mark of visual tokens that depends on the pair of frames and the thing alone."""
    answers = np.full_like(owner, -1)
    for pair in range(len(owner)):
        for thing in set(owner[pair].tolist()) - {-1}:
            answers[pair, owner[pair] == thing] = answer(pair, thing)
    return Mark("video", options, answers.reshape(-1))


def _has_moved(thing: Thing, pairs: int) -> Bool[np.ndarray, "pairs"]:
    """Whether it has changed its place by the end of every pair of frames."""
    path = np.array(thing.path[: 2 * pairs])
    steps = np.abs(np.diff(path, axis=0, prepend=path[:1])).max(axis=1) > 0.02
    return np.asarray(np.maximum.accumulate(steps)[1::2])
