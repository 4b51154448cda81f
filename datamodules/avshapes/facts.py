"""What can be said about a scene: which words pick out exactly one thing (or one group), and which pick out nothing.

A `Fact` is a question before it is put into words. A fact is stated only where it is clear-cut: extremes win by a
margin that can be heard or seen, and a sound names a thing only where no other thing has the same timbre.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from datamodules.avshapes.outlines import UNIT_AREA
from datamodules.avshapes.world import COLORS, SHAPES, UNSEEN_LOOKS, Scene, Thing

_STAGGER_S = 0.5
_SIZE_RATIO = 1.35
_SIDE_GAP = 0.12
IN_VIEW = 0.3
"""Visible share of its outline from which on a thing counts as plainly there."""

SOUND_VARIANTS: tuple[tuple[str, str], ...] = (
    ("order", "first"),
    ("order", "last"),
    ("time", "beginning"),
    ("time", "middle"),
    ("time", "end"),
    ("pitch", "highest"),
    ("pitch", "lowest"),
    ("loudness", "loudest"),
    ("loudness", "quietest"),
)
"""Every (evidence, variant) that asks which thing makes a certain sound."""


@dataclass(frozen=True)
class Fact:
    """One question about a scene, not yet in words.

    Attributes:
        evidence: What must be looked at or listened to: looks, order, time, pitch, loudness, silence, motion, size,
            position or plural.
        variant: Which question of that kind, such as "first".
        targets: Indices into `Scene.things`; () when nothing fits.
        color: The color that is named, or "".
        shape: The shape that is named, or "".
    """

    evidence: str
    variant: str
    targets: tuple[int, ...]
    color: str = ""
    shape: str = ""


def looks_facts(scene: Scene) -> list[Fact]:
    """Each thing by color and shape; by its shape or its color alone where no other thing shares it."""
    facts = []
    for index, thing in enumerate(scene.things):
        facts.append(Fact("looks", "full", (index,), thing.color, thing.shape))
        if _alone(scene, thing, lambda other: other.shape):
            facts.append(Fact("looks", "shape", (index,), shape=thing.shape))
        if _alone(scene, thing, lambda other: other.color):
            facts.append(Fact("looks", "color", (index,), color=thing.color))
    return facts


def sound_facts(scene: Scene) -> list[Fact]:
    """Order, time, pitch, loudness and silence."""
    sounds = {index: thing.sound for index, thing in enumerate(scene.things) if thing.sound is not None}
    third = scene.world.duration_s / 3
    found: list[tuple[str, str, int | None]] = []
    if len(sounds) > 1:
        found += [
            ("order", "first", _greatest({i: -sound.start_s for i, sound in sounds.items()}, _STAGGER_S)),
            ("order", "last", _last(scene)),
            ("pitch", "highest", _greatest({i: sound.pitch for i, sound in sounds.items()}, 1)),
            ("pitch", "lowest", _greatest({i: -sound.pitch for i, sound in sounds.items()}, 1)),
            ("loudness", "loudest", _greatest({i: sound.loudness for i, sound in sounds.items()}, 1)),
            ("loudness", "quietest", _greatest({i: -sound.loudness for i, sound in sounds.items()}, 1)),
        ]
    for number, part in enumerate(("beginning", "middle", "end")):
        found.append(("time", part, _only_within(scene, number * third, (number + 1) * third)))
    silent = [index for index, thing in enumerate(scene.things) if thing.sound is None]
    found.append(("silence", "silent", silent[0] if sounds and len(silent) == 1 else None))
    return [
        Fact(evidence, variant, (target,))
        for evidence, variant, target in found
        if target is not None and _alone(scene, scene.things[target], lambda other: other.shape)
    ]


def motion_facts(scene: Scene) -> list[Fact]:
    """The one thing that appears later, leaves, moves or stands still."""
    things = scene.things
    enter = [index for index, thing in enumerate(things) if thing.presence == "enter"]
    leave = [index for index, thing in enumerate(things) if thing.presence == "leave"]
    in_motion = [index for index, thing in enumerate(things) if thing.in_motion]
    still = [index for index, thing in enumerate(things) if not thing.in_motion]
    facts = []
    if len(enter) == 1 and _others_in_view(scene, enter, 0):
        facts.append(Fact("motion", "appears", tuple(enter)))
    if len(leave) == 1 and _others_in_view(scene, leave, -1):
        facts.append(Fact("motion", "leaves", tuple(leave)))
    if len(in_motion) == 1 and things[in_motion[0]].moves:
        facts.append(Fact("motion", "moves", tuple(in_motion)))
    if len(still) == 1:
        facts.append(Fact("motion", "still", tuple(still)))
    return facts


def absent_motion_facts(scene: Scene) -> list[Fact]:
    """Motions that nobody in the scene makes."""
    facts = []
    if all(thing.presence != "enter" for thing in scene.things) and _others_in_view(scene, [], 0):
        facts.append(Fact("motion", "appears", ()))
    if all(thing.presence != "leave" for thing in scene.things) and _others_in_view(scene, [], -1):
        facts.append(Fact("motion", "leaves", ()))
    if not any(thing.in_motion for thing in scene.things):
        facts.append(Fact("motion", "moves", ()))
    if all(thing.moves for thing in scene.things):
        facts.append(Fact("motion", "still", ()))
    return facts


def possible_looks(scene: Scene) -> list[tuple[str, str]]:
    """(color, shape) of everything that may be there: held-out looks only where a look or a tone is held out.

    Asked about anywhere else, they would only ever be absent, and it would be learned that they do not exist.
    """
    left_out = frozenset() if any(thing.is_held_out for thing in scene.things) else UNSEEN_LOOKS
    return [(color, shape) for color in COLORS for shape in SHAPES if (color, shape) not in left_out]


def absent_looks_facts(scene: Scene) -> list[Fact]:
    """Possible looks that no thing has: every pair, shape and color of which nothing is there."""
    present = {(thing.color, thing.shape) for thing in scene.things}
    colors, shapes = {color for color, _ in present}, {shape for _, shape in present}
    facts = [
        Fact("looks", "full", (), color, shape)
        for color, shape in possible_looks(scene)
        if (color, shape) not in present
    ]
    facts += [Fact("looks", "shape", (), shape=shape) for shape in SHAPES if shape not in shapes]
    return facts + [Fact("looks", "color", (), color=color) for color in COLORS if color not in colors]


def size_facts(scene: Scene) -> list[Fact]:
    """The thing that is larger (smaller) than every other whenever both are there, by a third or more."""
    areas = [[UNIT_AREA[thing.shape] * radius**2 for radius in thing.radius] for thing in scene.things]
    facts = []
    for index in range(len(areas)):
        others = [other for other in range(len(areas)) if other != index]
        if all(_outgrows(scene, areas, index, other) for other in others):
            facts.append(Fact("size", "largest", (index,)))
        if all(_outgrows(scene, areas, other, index) for other in others):
            facts.append(Fact("size", "smallest", (index,)))
    return facts


def position_facts(scene: Scene) -> list[Fact]:
    """The thing farthest to the left (right) on the first frame, where two or more things are plainly there."""
    there = [index for index, thing in enumerate(scene.things) if thing.presence != "enter"]
    if len(there) < 2 or any(scene.visible[index][0] < IN_VIEW for index in there):
        return []
    places = {index: scene.things[index].path[0][0] for index in there}
    found = [
        ("leftmost", _greatest({index: -x for index, x in places.items()}, _SIDE_GAP)),
        ("rightmost", _greatest(places, _SIDE_GAP)),
    ]
    return [Fact("position", variant, (target,)) for variant, target in found if target is not None]


def plural_facts(scene: Scene) -> list[Fact]:
    """Groups of two or more things of one color or one shape."""
    facts = []
    for color in COLORS:
        group = tuple(index for index, thing in enumerate(scene.things) if thing.color == color)
        if len(group) > 1:
            facts.append(Fact("plural", "color", group, color=color))
    for shape in SHAPES:
        group = tuple(index for index, thing in enumerate(scene.things) if thing.shape == shape)
        if len(group) > 1:
            facts.append(Fact("plural", "shape", group, shape=shape))
    return facts


def _alone(scene: Scene, thing: Thing, trait: Callable[[Thing], str]) -> bool:
    return sum(trait(other) == trait(thing) for other in scene.things) == 1


def _greatest(values: Mapping[int, float | int], margin: float | int) -> int | None:
    """The index whose value beats every other by the margin; None if there is none."""
    ranked = sorted(values, key=lambda index: values[index], reverse=True)
    return ranked[0] if values[ranked[0]] - values[ranked[1]] >= margin else None


def _last(scene: Scene) -> int | None:
    """The thing that starts to sound after every other; it must also be the last to fall silent."""
    sounds = {index: thing.sound for index, thing in enumerate(scene.things) if thing.sound is not None}
    latest = _greatest({index: sound.start_s for index, sound in sounds.items()}, _STAGGER_S)
    return latest if latest == max(sounds, key=lambda index: sounds[index].end_s) else None


def _only_within(scene: Scene, begin_s: float, end_s: float) -> int | None:
    """The one thing that sounds inside an interval, all of its sound inside and every other sound outside."""
    touching = [
        (index, thing.sound)
        for index, thing in enumerate(scene.things)
        if thing.sound is not None and thing.sound.start_s < end_s and thing.sound.end_s > begin_s
    ]
    if len(touching) != 1:
        return None
    index, sound = touching[0]
    return index if begin_s <= sound.start_s and sound.end_s <= end_s else None


def _others_in_view(scene: Scene, except_for: Sequence[int], frame: int) -> bool:
    """Whether every other thing is plainly there on a frame, so that none of them seems to come or go."""
    return all(row[frame] >= IN_VIEW for index, row in enumerate(scene.visible) if index not in except_for)


def _outgrows(scene: Scene, areas: list[list[float]], index: int, other: int) -> bool:
    """Whether one thing is clearly larger than another on every frame that shows both, and at its largest."""
    together: Iterable[tuple[float, float]] = (
        (large, small)
        for large, small, here, there in zip(
            areas[index], areas[other], scene.visible[index], scene.visible[other], strict=True
        )
        if here > 0 and there > 0
    )
    peak = max(areas[index]) >= _SIZE_RATIO * max(areas[other])
    return peak and all(large >= _SIZE_RATIO * small for large, small in together)
