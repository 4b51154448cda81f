"""Put facts into words: the expressions of RefAVS and of ReVOS for a scene.

Every ordinary expression has exactly one right answer (`facts` sees to that); a "non-existent" one has none. All valid
expressions are returned, one paraphrase each; the callers choose.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest
from typing import Literal, TypeVar

import numpy as np

from datamodules.avshapes.facts import (
    SOUND_VARIANTS,
    Fact,
    absent_looks_facts,
    absent_motion_facts,
    looks_facts,
    motion_facts,
    plural_facts,
    position_facts,
    size_facts,
    sound_facts,
)
from datamodules.avshapes.phrases import FORMS, HUES, REASONING, REFERRING
from datamodules.avshapes.world import COLORS, SHAPES, Scene

Kind = Literal["referring", "reasoning", "non-existent"]
AudioSource = Literal["own", "muted", "exchanged"]

_T = TypeVar("_T")
_ABSENT_PAIRS = 4


@dataclass(frozen=True)
class Expression:
    """A text and what it refers to.

    Attributes:
        text: As written to the tables, final punctuation included.
        targets: Indices into `Scene.things`; () when nothing in the clip fits.
        evidence: What must be looked at or listened to: looks, order, time, pitch, loudness, silence, motion, size,
            position or plural.
        kind: Whether the text names its target, implies it, or has none.
        variant: Which question of that evidence, such as "first" or "color".
        color: The color that is named or implied, or "".
        shape: The shape that is named or implied, or "".
    """

    text: str
    targets: tuple[int, ...]
    evidence: str
    kind: Kind
    variant: str = ""
    color: str = ""
    shape: str = ""


def refavs_expressions(scene: Scene, rng: np.random.Generator) -> list[Expression]:
    """All RefAVS expressions whose target is there; each ends with a full stop.

    Args:
        scene: The scene.
        rng: Chooses among the paraphrases.
    """
    facts = _asked(scene, looks_facts(scene) + sound_facts(scene) + motion_facts(scene))
    return [_refer(fact, rng, "referring", stop=".") for fact in facts]


def refavs_null_expressions(scene: Scene, rng: np.random.Generator, *, audio: AudioSource) -> list[Expression]:
    """RefAVS expressions whose target is not there, without a full stop, as in the real table.

    Args:
        scene: The scene that is seen.
        rng: Chooses the absent pairs and the paraphrases.
        audio: What is heard. "own" allows absent looks and motions only; "muted" and "exchanged" (the sound of a clip
            whose sounding shapes are not in this picture) add every question about who makes a certain sound.
    """
    facts = _sample_absent_looks(scene, rng) + absent_motion_facts(scene)
    if audio != "own":
        facts += [Fact(evidence, variant, ()) for evidence, variant in SOUND_VARIANTS]
    return [_refer(fact, rng, "non-existent", stop="") for fact in _asked(scene, facts)]


def revos_expressions(scene: Scene, rng: np.random.Generator) -> list[Expression]:
    """All ReVOS expressions: referring, reasoning and non-existent ones (plainly and implicitly absent).

    Args:
        scene: The scene.
        rng: Chooses the absent pairs and the paraphrases.
    """
    implied = looks_facts(scene) + size_facts(scene) + motion_facts(scene) + plural_facts(scene)
    named, implied = _asked(scene, implied + position_facts(scene)), _asked(scene, implied)
    absent = _sample_absent_looks(scene, rng) + absent_motion_facts(scene) + _absent_plurals(scene, rng)
    absent = _asked(scene, absent)
    expressions = [_refer(fact, rng, "referring", stop=".") for fact in named]
    expressions += [_imply(fact, rng, "reasoning") for fact in implied]
    expressions += [_refer(fact, rng, "non-existent", stop=".") for fact in absent]
    return expressions + [_imply(fact, rng, "non-existent") for fact in absent]


def choose_balanced(expressions: list[Expression], count: int, rng: np.random.Generator) -> list[Expression]:
    """Choose at random, taking turns over the kinds of evidence, so that the many ways to name a look do not prevail.

    Args:
        expressions: What to choose from.
        count: How many; fewer are returned when there are fewer.
        rng: The random numbers.
    """
    groups: dict[str, list[Expression]] = {}
    for index in rng.permutation(len(expressions)):
        groups.setdefault(expressions[index].evidence, []).append(expressions[index])
    order = [sorted(groups)[index] for index in rng.permutation(len(groups))]
    turns = zip_longest(*(groups[evidence] for evidence in order))
    return [expression for turn in turns for expression in turn if expression is not None][:count]


def _asked(scene: Scene, facts: list[Fact]) -> list[Fact]:
    """The facts that the scene's world lets expressions ask for."""
    return [fact for fact in facts if fact.evidence in scene.world.evidence]


def _refer(fact: Fact, rng: np.random.Generator, kind: Kind, *, stop: str) -> Expression:
    phrase = _pick(REFERRING[fact.evidence, fact.variant], rng).format(color=fact.color, shape=fact.shape)
    return _express(fact, phrase[0].upper() + phrase[1:] + stop, kind)


def _imply(fact: Fact, rng: np.random.Generator, kind: Kind) -> Expression:
    template = _pick(REASONING[fact.evidence, fact.variant], rng)
    hue = _pick(HUES[fact.color], rng) if fact.color else ""
    form, forms = _pick(FORMS[fact.shape], rng) if fact.shape else ("", "")
    return _express(fact, template.format(hue=hue, form=form, forms=forms), kind)


def _express(fact: Fact, text: str, kind: Kind) -> Expression:
    return Expression(text, fact.targets, fact.evidence, kind, fact.variant, fact.color, fact.shape)


def _pick(options: tuple[_T, ...], rng: np.random.Generator) -> _T:
    return options[int(rng.integers(len(options)))]


def _sample_absent_looks(scene: Scene, rng: np.random.Generator) -> list[Fact]:
    """Some absent looks: pairs whose words both occur in the scene first, one absent shape, one absent color."""
    facts = absent_looks_facts(scene)
    colors, shapes = {thing.color for thing in scene.things}, {thing.shape for thing in scene.things}
    chosen: list[Fact] = []
    for variant, count in (("full", _ABSENT_PAIRS), ("shape", 1), ("color", 1)):
        pool = [fact for fact in facts if fact.variant == variant]
        pool = [pool[index] for index in rng.permutation(len(pool))]
        if variant == "full":
            pool.sort(key=lambda fact: (fact.color in colors) + (fact.shape in shapes), reverse=True)
        chosen += pool[:count]
    return chosen


def _absent_plurals(scene: Scene, rng: np.random.Generator) -> list[Fact]:
    """One color and one shape that nothing has, asked for in the plural."""
    colors = sorted(set(COLORS) - {thing.color for thing in scene.things})
    shapes = sorted(set(SHAPES) - {thing.shape for thing in scene.things})
    facts = [Fact("plural", "color", (), color=_pick(tuple(colors), rng))] if colors else []
    return facts + ([Fact("plural", "shape", (), shape=_pick(tuple(shapes), rng))] if shapes else [])
