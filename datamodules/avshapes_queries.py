"""What the tiny detector is asked while it learns: descriptions of AVShapes things, from exact to vague.

Every query is text together with what it means to somebody who sees a single silent image: a color or none, a shape
or none. Sounds, times, motion and unknown words mean nothing there, so "the red thing that sounds first" asks for
every red thing, and "the loudest thing" for everything. The held-out looks never occur, neither as right nor as wrong
answers; otherwise the detector would be taught to reject them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from datamodules.avshapes.phrases import REFERRING
from datamodules.avshapes.world import COLORS, SHAPES, UNSEEN_LOOKS, Thing


@dataclass(frozen=True)
class Query:
    """A description and what it means on a single image.

    Attributes:
        text: What the detector reads.
        color: A key of `COLORS`, or None when any color will do.
        shape: One of `SHAPES`, or None when any shape will do.
    """

    text: str
    color: str | None = None
    shape: str | None = None

    def fits(self, thing: Thing) -> bool:
        """Whether the description is true of a thing."""
        return self.color in (None, thing.color) and self.shape in (None, thing.shape)


SEEN_LOOKS: tuple[tuple[str, str], ...] = tuple(
    (color, shape) for color in COLORS for shape in SHAPES if (color, shape) not in UNSEEN_LOOKS
)
"""(color, shape) pairs that training scenes may hold."""

_FULL = (
    ("the {color} {shape}",) * 6
    + ("{color} {shape}",) * 3
    + ("a {color} {shape}",) * 3
    + (
        "the {shape} that is {color}",
        "the {shape} in {color}",
        "a {shape} that is {color}",
        "{shape}, {color}",
        "the {color} one, a {shape}",
        "{color} {shape}s",
        "the {color} {shape}s",
        "all {color} {shape}s",
        "every {color} {shape}",
        "this {color} {shape}",
    )
)
_SHAPE = (
    ("the {shape}",) * 4
    + ("a {shape}", "{shape}") * 2
    + (
        "{shape}s",
        "the {shape}s",
        "all {shape}s",
        "all the {shape}s",
        "every {shape}",
        "each {shape}",
        "the {shape} shape",
        "the object shaped like a {shape}",
        "all objects shaped like a {shape}",
        "the thing that is a {shape}",
    )
)
_COLOR = (
    ("the {color} thing", "the {color} one", "the {color} object", "the {color} shape") * 2
    + ("{color}",) * 2
    + (
        "a {color} object",
        "a {color} thing",
        "{color} thing",
        "the thing that is {color}",
        "something {color}",
        "the {color} ones",
        "all {color} things",
        "{color} objects",
        "every {color} object",
        "all objects that are {color}",
    )
)
_VAGUE = (
    ("the object", "the thing", "the shape", "the one") * 4
    + ("object", "a thing", "shape", "an object", "things", "something", "everything", "it", "the target") * 2
    + ("all objects", "all things", "all the shapes", "every object", "each thing", "the objects", "anything")
    + tuple(text for (evidence, _), texts in REFERRING.items() for text in texts if "{" not in text)
)
_BEFORE = ("big", "small", "large", "bright", "loud", "quiet", "moving", "silent", "visible", "whole", "single")
_AFTER = (
    "that makes the first sound",
    "that sounds last",
    "that sounds",
    "making the highest sound",
    "with the lowest tone",
    "with the highest pitch",
    "heard at the start",
    "that is heard most loudly",
    "that stays silent",
    "on the left",
    "on the right side",
    "in the middle",
    "near the top",
    "at the bottom",
    "in the corner",
    "in the image",
    "in this video",
    "which moves to the right",
    "that is moving",
    "standing still",
    "that does not move",
    "that appears later",
    "that leaves before the end",
    "at the beginning",
    "close to the center",
    "that is the largest",
    "smaller than the others",
    "fully visible",
    "here",
)
_UNKNOWN = (
    "covered", "hundred", "tired", "colored", "starting", "circular", "greenish", "bluer", "squared", "whitest",
    "foreground", "clearly", "partly", "picture", "frame", "please", "target", "nearby", "described", "question",
    "which", "there", "while", "before", "other", "sharp", "dark", "background", "behind", "around", "second",
    "sounding", "keyframe", "shown", "answer", "find", "look", "exactly", "about", "very", "one", "two", "three",
)  # fmt: skip
_LETTERS = np.array(list("abcdefghijklmnopqrstuvwxyz"))
_DETERMINERS = ("the", "a", "an", "all", "every", "each", "this", "some")


def sample_query(rng: np.random.Generator, *, plain: bool = False) -> Query:
    """Draw a description.

    Args:
        rng: Source of randomness.
        plain: Leave out extra words; only the bare phrase.
    """
    kind = rng.choice(4, p=(0.55, 0.15, 0.18, 0.12))
    look = SEEN_LOOKS[rng.integers(len(SEEN_LOOKS))]
    color = look[0] if kind in (0, 2) else None
    shape = look[1] if kind in (0, 1) else None
    phrase = _pick(rng, (_FULL, _SHAPE, _COLOR, _VAGUE)[kind]).format(color=color, shape=shape)
    return Query(phrase if plain else _decorate(rng, phrase), color, shape)


def sample_queries(rng: np.random.Generator, count: int) -> list[Query]:
    """Draw descriptions, no two of them the same text."""
    found: dict[str, Query] = {}
    while len(found) < count:
        query = sample_query(rng, plain=bool(rng.random() < 0.5))
        found.setdefault(query.text, query)
    return list(found.values())


def corpus(seed: int = 0, lines: int = 8000) -> list[str]:
    """Text to train the detector's tokenizer on: descriptions, and its words once more on their own."""
    rng = np.random.default_rng(seed)
    words = [*COLORS, *SHAPES, *(f"{shape}s" for shape in SHAPES), *_UNKNOWN, *_BEFORE]
    return [sample_query(rng).text for _ in range(lines)] + words * 20


def _decorate(rng: np.random.Generator, phrase: str) -> str:
    """Add words that change nothing about what is asked for."""
    words = phrase.split()
    if rng.random() < 0.3:
        words.insert(int(words[0] in _DETERMINERS), _pick(rng, _BEFORE))
    if rng.random() < 0.45:
        words += _pick(rng, _AFTER).split()
    if rng.random() < 0.35:
        words.insert(int(rng.integers(len(words) + 1)), _pick(rng, _UNKNOWN))
    if rng.random() < 0.15:
        letters = rng.choice(_LETTERS, size=rng.integers(2, 8))
        words.insert(int(rng.integers(len(words) + 1)), "".join(letters))
    return " ".join(words) + ("." if rng.random() < 0.15 else "")


def _pick(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[rng.integers(len(options))]
