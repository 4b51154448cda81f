"""Questions and answers that teach a tiny reasoner the world well and the task only roughly.

`small_questions` covers the world: what is there, what is heard, when, how loud, how high, what moves, and for every
expression whether it fits a thing and whether it fits anything at all. `demonstrate` shows the answer form the way a
general model would use it before any training for the task: any frame, the target in view or not, a true but often
vague description, and an absent target noticed only now and then. Choosing well is left to reinforcement learning.

Recipes read scenes directly; training and evaluation of policies never do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from datamodules.avshapes.descriptions import group_words
from datamodules.avshapes.expressions import Expression
from datamodules.avshapes.facts import possible_looks
from datamodules.avshapes.perception import LOUDNESS_WORDS, PITCH_WORDS
from datamodules.avshapes.scene import COLORS, SHAPES, Scene, Thing
from datamodules.lessons import Demonstration, Turn
from datamodules.records import Segment

NOT_THERE = "it is not there"
"""What the world questions answer about something that is not in the clip."""

MOTION = frozenset(
    {"world/moves", "world/appears", "world/leaves", "world/there at"}
    | {f"world/what {what}" for what in ("moves", "does not move", "appears later", "leaves")}
)
"""World questions about what changes over the clip."""

_IN_VIEW = 0.3
_DESCRIPTION_FORMS = (("full", 0.25), ("color", 0.45), ("vague", 0.15), ("shape", 0.15))
_SEGMENTS = (0.6, 0.3, 0.1)


def small_questions(scene: Scene, heard: tuple[Thing, ...], rng: np.random.Generator) -> list[Turn]:
    """One question of every world kind.

    Args:
        scene: What is seen.
        heard: Things that sound in the clip; another scene's for exchanged sound, () for a muted clip.
        rng: Chooses what is asked about.
    """
    return [turn for make in (_seen_questions, _moving_questions) for turn in make(scene, rng)] + _heard_questions(
        scene, heard, rng
    )


def expression_questions(scene: Scene, expression: Expression) -> list[Turn]:
    """Does it fit anything, and what does it fit: the evidence that the task rests on.

    The shape comes before the color: what is heard names a shape, and only then can its color be looked up.

    Args:
        scene: What is seen.
        expression: With its right targets; () when nothing fits.
    """
    text = clean(expression.text)
    tag = expression.evidence if expression.targets else f"null {expression.evidence}"
    found = _spelled_out([scene.things[index] for index in expression.targets])
    return [
        Turn(f"{text} : is it there", "yes" if expression.targets else "no", f"there/{tag}"),
        Turn(f"{text} : what is it", found or NOT_THERE, f"what/{tag}"),
    ]


def demonstrate(
    scene: Scene, expression: Expression, rng: np.random.Generator, *, noticed_absence: float
) -> Demonstration:
    """A rough answer to an expression; no segments say that the target is absent.

    Args:
        scene: What is seen.
        expression: With its right targets.
        rng: Chooses frames and words.
        noticed_absence: Probability that an absent target is answered as such, 0..1; else some thing is named.
    """
    text = clean(expression.text)
    targets = expression.targets
    if not targets:
        if rng.random() < noticed_absence:
            return Demonstration(text, NOT_THERE, ())
        targets = (int(rng.integers(len(scene.things))),)
    thing = scene.things[targets[int(rng.integers(len(targets)))]]
    thought = _spelled_out([scene.things[index] for index in targets])
    count = 1 + int(rng.choice(len(_SEGMENTS), p=_SEGMENTS))
    picked = sorted(rng.choice(scene.world.frames, size=count, replace=False))
    form = str(rng.choice([name for name, _ in _DESCRIPTION_FORMS], p=[share for _, share in _DESCRIPTION_FORMS]))
    is_whole_group = form == "full" and len(targets) > 1
    description = group_words(expression.color, expression.shape) if is_whole_group else describe(thing, form, rng)
    fps = scene.world.fps
    segments = tuple(Segment(int(frame) / fps, (int(frame) + 1) / fps, description) for frame in picked)
    return Demonstration(text, thought, segments)


def describe(thing: Thing, form: str, rng: np.random.Generator) -> str:
    """A true description: full, color or shape alone, or vague."""
    if form == "full":
        return f"the {thing.name}"
    if form == "shape":
        return f"the {thing.shape}"
    if form == "color":
        return f"the {thing.color} one"
    return "the object" if rng.random() < 0.5 else "the thing"


def clean(text: str) -> str:
    """An expression as the readers serve it."""
    return text.strip().rstrip(".").strip().lower()


def moment(frame: int, fps: float) -> str:
    """The time of a frame in the answer's own form."""
    hundredths = round(frame / fps * 100)
    return f"{hundredths // 6000:02d}:{hundredths % 6000 // 100:02d}.{hundredths % 100:02d}"


def _seen_questions(scene: Scene, rng: np.random.Generator) -> list[Turn]:
    things, fps = scene.things, scene.world.fps
    names = {thing.name for thing in things}
    shapes, colors = {thing.shape for thing in things}, {thing.color for thing in things}
    looks = [f"{color} {shape}" for color, shape in possible_looks(scene)]
    pair = _half_present(sorted(names), looks, rng, near=_one_word_shared(names))
    shape = _half_present(sorted(shapes), SHAPES, rng)
    color = _half_present(sorted(colors), COLORS, rng)
    turns = [
        Turn(f"is there a {pair}", _yes(pair in names), "world/pair"),
        Turn(f"is there a {shape}", _yes(shape in shapes), "world/shape"),
        Turn(f"is there something {color}", _yes(color in colors), "world/color"),
        Turn("what is there", _listing(things), "world/list"),
    ]
    asked = str(rng.choice(SHAPES))
    fitting = [thing for thing in things if thing.shape == asked]
    colors_of = " and ".join(thing.color for thing in fitting)
    turns.append(Turn(f"what color is the {asked}", f"it is {colors_of}" if fitting else NOT_THERE, "world/color of"))
    asked = str(rng.choice(list(COLORS)))
    fitting = [thing for thing in things if thing.color == asked]
    turns.append(Turn(f"which things are {asked}", _listing(fitting) if fitting else "none", "world/shape of"))
    frame = int(rng.integers(scene.world.frames))
    there = [thing for thing, row in zip(things, scene.visible, strict=True) if row[frame] > _IN_VIEW]
    turns.append(Turn(f"what is there at {moment(frame, fps)}", _listing(there) or "nothing", "world/at"))
    return turns + _timed_questions(scene, rng)


def _timed_questions(scene: Scene, rng: np.random.Generator) -> list[Turn]:
    """The same thing is asked for at two moments, one at which it is there and one at which it is not."""
    changing = [index for index, thing in enumerate(scene.things) if thing.presence != "stay"]
    index = int(rng.choice(changing if changing else len(scene.things)))
    thing, row = scene.things[index], scene.visible[index]
    turns = []
    for is_there in (True, False):
        frames = [frame for frame, share in enumerate(row) if (share > _IN_VIEW if is_there else share == 0)]
        if frames:
            asked = moment(int(rng.choice(frames)), scene.world.fps)
            turns.append(Turn(f"is the {thing.name} there at {asked}", _yes(is_there), "world/there at"))
    return turns


def _moving_questions(scene: Scene, rng: np.random.Generator) -> list[Turn]:
    """What moves, comes and goes, asked of two things and of all; when one of them comes, goes and is largest."""
    things, fps = scene.things, scene.world.fps
    turns = []
    for index in rng.permutation(len(things))[:2]:
        thing = things[index]
        turns += [
            Turn(f"does the {thing.name} move", _yes(thing.in_motion), "world/moves"),
            Turn(f"does the {thing.name} appear later", _yes(thing.presence == "enter"), "world/appears"),
            Turn(f"does the {thing.name} leave", _yes(thing.presence == "leave"), "world/leaves"),
        ]
    for question, fitting in (
        ("what moves", [thing for thing in things if thing.in_motion]),
        ("what does not move", [thing for thing in things if not thing.in_motion]),
        ("what appears later", [thing for thing in things if thing.presence == "enter"]),
        ("what leaves", [thing for thing in things if thing.presence == "leave"]),
    ):
        turns.append(Turn(question, _listing(fitting) or "nothing", f"world/{question}"))
    index = int(rng.integers(len(things)))
    visible = np.flatnonzero(np.array(scene.visible[index]) > _IN_VIEW)
    area = np.array(scene.visible[index]) * np.array(things[index].radius) ** 2
    name = things[index].name
    return [
        *turns,
        Turn(f"when does the {name} come", moment(int(visible[0]), fps), "world/when"),
        Turn(f"when does the {name} go", moment(int(visible[-1]), fps), "world/when"),
        Turn(f"when is the {name} largest", moment(int(area.argmax()), fps), "world/largest"),
    ]


def _heard_questions(scene: Scene, heard: tuple[Thing, ...], rng: np.random.Generator) -> list[Turn]:
    sounding = sorted((thing for thing in heard if thing.sound), key=lambda thing: thing.sound.start_s)  # type: ignore[union-attr]
    order = ", ".join(f"the {thing.shape}" for thing in sounding)
    shape = _half_present(sorted({thing.shape for thing in sounding}), SHAPES, rng)
    turns = [
        Turn("what is heard", order or "nothing", "world/heard"),
        Turn(f"is a {shape} heard", _yes(shape in {thing.shape for thing in sounding}), "world/is heard"),
    ]
    asked = str(rng.choice(SHAPES))
    match = [thing.sound for thing in sounding if thing.shape == asked and thing.sound]
    how = f"{PITCH_WORDS[match[0].pitch]} and {LOUDNESS_WORDS[match[0].loudness]}" if match else "it is silent"
    when = moment(int(match[0].start_s), 1.0) if match else "never"
    turns += [
        Turn(f"how does the {asked} sound", how, "world/tone"),
        Turn(f"when does the {asked} sound", when, "world/sound time"),
    ]
    keys: dict[str, Callable[[Thing], float]] = {
        "first": lambda thing: -thing.sound.start_s if thing.sound else 0,
        "last": lambda thing: thing.sound.start_s if thing.sound else 0,
        "highest": lambda thing: thing.sound.pitch if thing.sound else 0,
        "lowest": lambda thing: -thing.sound.pitch if thing.sound else 0,
        "loudest": lambda thing: thing.sound.loudness if thing.sound else 0,
        "quietest": lambda thing: -thing.sound.loudness if thing.sound else 0,
    }
    for word, key in keys.items():
        best = max(map(key, sounding), default=0.0)
        winners = [thing for thing in sounding if key(thing) == best]
        named = ", ".join(f"the {thing.shape}" for thing in winners)
        turns.append(Turn(f"which sound is {word}", named or "none", f"world/{word}"))
    visible = {thing.shape for thing in scene.things}
    if sounding:
        turns.append(
            Turn("is the first sound from a thing in view", _yes(sounding[0].shape in visible), "world/in view")
        )
    return turns


def _listing(things: tuple[Thing, ...] | list[Thing]) -> str:
    """Names in a fixed order, so that one picture has one answer."""
    order = sorted(things, key=lambda thing: (SHAPES.index(thing.shape), list(COLORS).index(thing.color)))
    return ", ".join(f"a {thing.name}" for thing in order)


def _half_present(
    present: list[str],
    every: Iterable[str],
    rng: np.random.Generator,
    *,
    near: Callable[[str], bool] = lambda _: True,
) -> str:
    """A present option in half of the cases, else an absent one, one that is easily mistaken if there is any."""
    absent = [option for option in every if option not in present]
    close = [option for option in absent if near(option)]
    pool = present if present and (rng.random() < 0.5 or not absent) else (close or absent)
    return str(rng.choice(pool))


def _one_word_shared(names: set[str]) -> Callable[[str], bool]:
    words = {word for name in names for word in name.split()}
    return lambda option: any(word in words for word in option.split())


def _spelled_out(things: list[Thing]) -> str:
    """Shape first, then color, as one finds out."""
    return " and ".join(f"the {thing.shape} that is {thing.color}" for thing in things)


def _yes(holds: bool) -> str:
    return "yes" if holds else "no"
