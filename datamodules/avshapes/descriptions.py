"""Whether a description picks out the right things of a generated clip; for checks alone, never for rewards."""

from __future__ import annotations

import re
from collections.abc import Sequence

from datamodules.avshapes.truth import TruthThing
from datamodules.avshapes.world import COLORS, SHAPES

_WORD = re.compile(r"[a-z]+")


def described_things(description: str, things: Sequence[TruthThing]) -> frozenset[int]:
    """The things that every color word and every shape word of a description fits; plural forms count.

    Args:
        description: Any text. Words other than colors and shapes are passed over, so one without any fits everything.
        things: Everything in the picture.
    """
    words = {word.removesuffix("s") for word in _WORD.findall(description.lower())}
    colors, shapes = words & set(COLORS), words & set(SHAPES)
    return frozenset(
        index
        for index, thing in enumerate(things)
        if (not colors or thing.color in colors) and (not shapes or thing.shape in shapes)
    )


def is_right_description(description: str, things: Sequence[TruthThing], targets: Sequence[int]) -> bool:
    """Whether a description fits the targets and nothing else; False when there is no target."""
    return bool(targets) and described_things(description, things) == frozenset(targets)


def group_words(color: str = "", shape: str = "") -> str:
    """A description of all things of one color, or of one shape.

    Raises:
        ValueError: Not exactly one of the two is given.
    """
    if bool(color) == bool(shape):
        raise ValueError(f"expected a color or a shape that the group shares, found {color!r} and {shape!r}")
    return f"the {color} things" if color else f"the {shape}s"
