"""Expressions about motion, as MeViS asks them: one thing or several, told apart by what they do, not by their looks.

A group is asked for only where every other thing plainly does not belong to it: what slides in is "not there at first"
and neither moving all the time nor standing still.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from datamodules.avshapes.expressions import Expression
from datamodules.avshapes.facts import IN_VIEW
from datamodules.avshapes.world import SHAPES, Scene, Thing

_GROWTH = 1.4
"""Ratio of the last to the first radius from which on a thing plainly grows, or its inverse shrinks."""
_STEADY = 1.1
"""Largest ratio of any two radii of a thing that plainly keeps its size."""

Verdict = bool | None
"""Whether a thing belongs; None where one could argue."""

PHRASES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "moves": (
        ("the moving {noun}", "the {noun} that keeps changing its place", "the {noun} moving around"),
        ("the moving {noun}s", "all {noun}s that keep changing their place", "the {noun}s moving around"),
    ),
    "still": (
        ("the {noun} that stays in place", "the {noun} not moving at all"),
        ("the {noun}s that stay in place", "all {noun}s not moving at all"),
    ),
    "appears": (
        ("the {noun} that comes into view", "the {noun} entering later"),
        ("the {noun}s that come into view", "all {noun}s entering later"),
    ),
    "leaves": (
        ("the {noun} that goes out of view", "the {noun} leaving before the end"),
        ("the {noun}s that go out of view", "all {noun}s leaving before the end"),
    ),
    "grows": (
        ("the {noun} that gets bigger", "the {noun} growing over time"),
        ("the {noun}s that get bigger", "all {noun}s growing over time"),
    ),
    "shrinks": (
        ("the {noun} that gets smaller", "the {noun} shrinking over time"),
        ("the {noun}s that get smaller", "all {noun}s shrinking over time"),
    ),
}
"""What is done to phrases for one thing and for several."""


@dataclass(frozen=True)
class MotionFact:
    """A group of things that alone do something.

    Attributes:
        variant: What they do, a key of `PHRASES`.
        targets: Indices into `Scene.things`.
        shape: The shape that the group is limited to, or "" for all things.
    """

    variant: str
    targets: tuple[int, ...]
    shape: str = ""


def motion_groups(scene: Scene) -> list[MotionFact]:
    """Every group that can be asked for, among all things and among those of one shape; never all of these."""
    facts = []
    for variant, verdict in _VERDICTS.items():
        verdicts = [verdict(scene, index) for index in range(len(scene.things))]
        for shape in ("", *SHAPES):
            among = [index for index, thing in enumerate(scene.things) if shape in ("", thing.shape)]
            targets = tuple(index for index in among if verdicts[index])
            is_clear = None not in [verdicts[index] for index in among]
            if is_clear and 0 < len(targets) < len(among):
                facts.append(MotionFact(variant, targets, shape))
    return facts


def motion_expressions(scene: Scene, rng: np.random.Generator) -> list[Expression]:
    """One paraphrase of every group that can be asked for.

    Args:
        scene: The scene.
        rng: Chooses the paraphrases.
    """
    return [_express(fact, rng) for fact in motion_groups(scene)]


def choose_targets(expressions: list[Expression], count: int, rng: np.random.Generator) -> list[Expression]:
    """Choose at random, about half of them with several targets where there are enough.

    Args:
        expressions: What to choose from.
        count: How many; fewer are returned when there are fewer.
        rng: The random numbers.
    """
    shuffled = [expressions[index] for index in rng.permutation(len(expressions))]
    several = [expression for expression in shuffled if len(expression.targets) > 1]
    single = [expression for expression in shuffled if len(expression.targets) == 1]
    kept = several[: max(count // 2, count - len(single))]
    return [*kept, *single[: count - len(kept)]]


def _express(fact: MotionFact, rng: np.random.Generator) -> Expression:
    options = PHRASES[fact.variant][len(fact.targets) > 1]
    text = options[int(rng.integers(len(options)))].format(noun=fact.shape or "thing")
    return Expression(text, fact.targets, "motion", "referring", fact.variant, shape=fact.shape)


def _moves(scene: Scene, index: int) -> Verdict:
    thing = scene.things[index]
    return None if thing.in_motion and not thing.moves else thing.moves


def _still(scene: Scene, index: int) -> Verdict:
    return not scene.things[index].in_motion


def _appears(scene: Scene, index: int) -> Verdict:
    return _presence(scene, index, "enter", frame=0)


def _leaves(scene: Scene, index: int) -> Verdict:
    return _presence(scene, index, "leave", frame=-1)


def _presence(scene: Scene, index: int, presence: str, *, frame: int) -> Verdict:
    """What is covered on the first frame could be said to appear too."""
    if scene.things[index].presence == presence:
        return True
    return False if scene.visible[index][frame] >= IN_VIEW else None


def _grows(scene: Scene, index: int) -> Verdict:
    return _scales(scene.things[index], lambda first, last: last / first)


def _shrinks(scene: Scene, index: int) -> Verdict:
    return _scales(scene.things[index], lambda first, last: first / last)


def _scales(thing: Thing, ratio: Callable[[float, float], float]) -> Verdict:
    steps = [ratio(first, last) for first, last in zip(thing.radius, thing.radius[1:], strict=False)]
    if min(steps) >= 1 and ratio(thing.radius[0], thing.radius[-1]) >= _GROWTH:
        return True
    is_steady = max(thing.radius) <= _STEADY * min(thing.radius)
    is_opposite = max(steps) <= 1
    return False if is_steady or is_opposite else None


_VERDICTS: dict[str, Callable[[Scene, int], Verdict]] = {
    "moves": _moves,
    "still": _still,
    "appears": _appears,
    "leaves": _leaves,
    "grows": _grows,
    "shrinks": _shrinks,
}
