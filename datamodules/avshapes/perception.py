"""What the towers of a tiny reasoner are taught: which words fit each patch of picture and each moment of sound.

Every visual token covers a cell of the frame over a pair of frames, every sound token a fifth of a second. Its labels
are the words of what is there: color and shape of things in the picture; shape (by timbre), pitch and loudness of
sounds. A recipe reads scenes directly; training and evaluation of policies never do.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8
from torch.utils.data import IterableDataset

from datamodules.avshapes.outlines import EXTENT
from datamodules.avshapes.render import render_frames
from datamodules.avshapes.scene import COLORS, LOUDNESS, PITCHES, SHAPES, Scene, Thing, World, sample_scene
from datamodules.avshapes.sound import render_audio

PITCH_WORDS = ("deep", "low", "high", "shrill")
"""Word of every pitch level, low to high."""

LOUDNESS_WORDS = ("quiet", "medium", "loud")
"""Word of every loudness level."""

MOTION_WORDS = ("moves", "appears", "leaves")
"""Words for what happens between the two frames of a visual token."""

SEEN_WORDS = (*COLORS, *SHAPES, *MOTION_WORDS)
"""Words that describe a visual token."""

HEARD_WORDS = (*SHAPES, *PITCH_WORDS, *LOUDNESS_WORDS)
"""Words that describe a sound token."""

_SURE = 0.35
"""A cell that a thing covers at least this much is labeled with it."""
_UNSURE = 0.08
_MOVED = 0.02
"""A cell that it covers less than this is not; what lies between is left out."""


@dataclass(frozen=True)
class PerceptionBatch:
    """Pairs of frames and whole sounds with the words of every token.

    Attributes:
        frames: (B, 2, S, S, 3) RGB.
        seen: (B, cells, words) True where a word of `SEEN_WORDS` fits the cell, row by row.
        seen_known: (B, cells, words) False where a thing only grazes the cell.
        sounds: (C, samples).
        heard: (C, tokens, words) True where a word of `HEARD_WORDS` fits the moment.
        heard_known: (C, tokens, words) False at the edges of a sound.
    """

    frames: UInt8[np.ndarray, "pairs 2 side side 3"]
    seen: Bool[np.ndarray, "pairs cells words"]
    seen_known: Bool[np.ndarray, "pairs cells words"]
    sounds: Float32[np.ndarray, "clips samples"]
    heard: Bool[np.ndarray, "clips tokens words"]
    heard_known: Bool[np.ndarray, "clips tokens words"]


class PerceptionStream(IterableDataset[PerceptionBatch]):
    """Endless batches of freshly drawn scenes: variety per step matters more here than anything else.

    Args:
        seed: First part of every scene's key.
        pairs: Frame pairs per batch, each from another scene.
        clips: Sounds per batch.
        side: Frame side in pixels.
        cells: Visual tokens per frame side.
        tokens: Sound tokens per clip.
        steps: Batches until the stream ends.
        world: The dials.
        unseen_share: Share of the scenes that hold a look or a tone of the benchmark's unseen split.
    """

    def __init__(
        self,
        *,
        seed: int,
        pairs: int,
        clips: int,
        side: int,
        cells: int,
        tokens: int,
        steps: int,
        world: World,
        unseen_share: float = 0.0,
    ) -> None:
        self.seed, self.pairs, self.clips, self.side = seed, pairs, clips, side
        self.cells, self.tokens, self.steps, self.world = cells, tokens, steps, world
        self.unseen_share = unseen_share

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[PerceptionBatch]:
        for step in range(self.steps):
            yield self.draw(step)

    def draw(self, step: int) -> PerceptionBatch:
        """The batch of one step; the same for the same step."""
        rng = np.random.default_rng((self.seed, step))
        frames, seen, known = [], [], []
        sounds, heard, heard_known = [], [], []
        for index in range(self.pairs):
            unseen = bool(rng.random() < self.unseen_share)
            scene = sample_scene((self.seed, step, index), self.world, unseen=unseen)
            first = 2 * int(rng.integers(self.world.frames // 2))
            pair, masks = render_frames(scene, frames=[first, first + 1], size=self.side)
            frames.append(pair)
            words, sure = label_cells(scene, first, masks, self.cells)
            seen.append(words)
            known.append(sure)
            if index < self.clips:
                sounds.append(render_audio(scene))
                words, sure = label_sounds(scene, self.tokens)
                heard.append(words)
                heard_known.append(sure)
        return PerceptionBatch(
            np.stack(frames),
            np.stack(seen),
            np.stack(known),
            np.stack(sounds),
            np.stack(heard),
            np.stack(heard_known),
        )


def label_cells(
    scene: Scene, first: int, masks: Bool[np.ndarray, "2 things side side"], cells: int
) -> tuple[Bool[np.ndarray, "cells words"], Bool[np.ndarray, "cells words"]]:
    """Words of every cell over the pair of frames `first` and `first + 1`, and which of them are certain."""
    share = cover_cells(masks, cells)
    words = np.zeros((cells * cells, len(SEEN_WORDS)), dtype=bool)
    unsure = np.zeros_like(words)
    for thing, covered in zip(scene.things, share, strict=True):
        fits = covered >= _SURE
        if covered.max() >= _UNSURE:
            fits[covered.argmax()] = True
        for word in (thing.color, thing.shape, *motion_words(thing, first)):
            column = SEEN_WORDS.index(word)
            words[:, column] |= fits
            unsure[:, column] |= ~fits & (covered >= _UNSURE)
    return words, words | ~unsure


def cover_cells(masks: Bool[np.ndarray, "2 things side side"], cells: int) -> Float[np.ndarray, "things cells"]:
    """Share of every cell that every thing covers on the better of two frames, 0..1, cells row by row."""
    side = masks.shape[-1] // cells
    share = masks.reshape(*masks.shape[:2], cells, side, cells, side).mean(axis=(3, 5)).max(axis=0)
    return np.asarray(share.reshape(masks.shape[1], -1))


def motion_words(thing: Thing, first: int) -> tuple[str, ...]:
    """Which `MOTION_WORDS` fit a thing between two neighboring frames: moves, and appears or leaves over an edge."""
    before, after = np.array(thing.path[first]), np.array(thing.path[first + 1])
    words = ["moves"] if np.abs(after - before).max() > _MOVED else []
    if thing.presence == "enter" and _is_over_edge(thing, first):
        words.append("appears")
    if thing.presence == "leave" and _is_over_edge(thing, first + 1):
        words.append("leaves")
    return tuple(words)


def _is_over_edge(thing: Thing, frame: int) -> bool:
    """Whether a part of it lies outside of the frame, or all of it."""
    reach = 0.9 * EXTENT[thing.shape] * thing.radius[frame]
    return not all(reach <= place <= 1 - reach for place in thing.path[frame])


def label_sounds(
    scene: Scene, tokens: int
) -> tuple[Bool[np.ndarray, "tokens words"], Bool[np.ndarray, "tokens words"]]:
    """Words of every moment of sound, and which of them are certain."""
    length_s = scene.world.duration_s / tokens
    edges_s = np.arange(tokens + 1) * length_s
    words = np.zeros((tokens, len(HEARD_WORDS)), dtype=bool)
    known = np.ones_like(words)
    for thing in scene.things:
        if thing.sound is None:
            continue
        overlap = np.minimum(edges_s[1:], thing.sound.end_s) - np.maximum(edges_s[:-1], thing.sound.start_s)
        names = (thing.shape, PITCH_WORDS[thing.sound.pitch], LOUDNESS_WORDS[thing.sound.loudness])
        columns = [HEARD_WORDS.index(name) for name in names]
        words[np.ix_(overlap >= length_s / 2, columns)] = True
        known[(overlap > 0.1 * length_s) & (overlap < 0.5 * length_s)] = False
    return words, known


if len(PITCH_WORDS) != len(PITCHES) or len(LOUDNESS_WORDS) != len(LOUDNESS):
    raise RuntimeError("every pitch and loudness level needs a word")
