"""What is true of every expression of a generated benchmark, kept in `truth.jsonl` beside the tree.

The tiny-weight recipes and the description-accuracy check read it. Readers, prompts, rewards, rollouts and metrics
never do: the real benchmarks have no such file.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from datamodules.avshapes.expressions import AudioSource, Expression, Kind
from datamodules.avshapes.world import Presence, Scene
from datamodules.errors import DataLayoutError

TRUTH_FILE = "truth.jsonl"


@dataclass(frozen=True)
class TruthThing:
    """One thing of the picture.

    Attributes:
        shape: Shape word.
        color: Color word.
        presence: Whether it stays, enters or leaves.
        moves: Whether it moves all the time.
        areas: Visible area per frame as a share of the frame, 0..1.
        object_id: Its fid (RefAVS) or anno_id (ReVOS).
        same_color: Indices of the other things of its color.
        same_shape: Indices of the other things of its shape.
    """

    shape: str
    color: str
    presence: Presence
    moves: bool
    areas: tuple[float, ...]
    object_id: int
    same_color: tuple[int, ...]
    same_shape: tuple[int, ...]

    @property
    def name(self) -> str:
        """Color and shape, such as "red circle"."""
        return f"{self.color} {self.shape}"


@dataclass(frozen=True)
class TruthSound:
    """One sound that is heard.

    Attributes:
        shape: The shape that its timbre belongs to.
        start_s: Start in seconds.
        end_s: End in seconds.
        pitch: Pitch level, 0 the lowest.
        loudness: Loudness level, 0 the quietest.
    """

    shape: str
    start_s: float
    end_s: float
    pitch: int
    loudness: int


@dataclass(frozen=True)
class Truth:
    """What is true of one expression.

    Attributes:
        split: The split that it belongs to.
        clip: The clip's folder (RefAVS) or video name (ReVOS).
        expression_id: 0-based row of metadata.csv (RefAVS) or expression id (ReVOS), as text.
        text: The expression as written, final punctuation included.
        evidence: What must be looked at or listened to.
        variant: Which question of that evidence.
        kind: Whether the text names its target, implies it, or has none.
        targets: Indices into `things`; () when nothing fits.
        color: The color that is named or implied, or "".
        shape: The shape that is named or implied, or "".
        audio: Whether the clip's own sound is heard, none, or another clip's.
        scene_key: The key that the scene was drawn from.
        things: Everything in the picture, in draw order.
        sounds: Everything that is heard, in order of time.
    """

    split: str
    clip: str
    expression_id: str
    text: str
    evidence: str
    variant: str
    kind: Kind
    targets: tuple[int, ...]
    color: str
    shape: str
    audio: AudioSource
    scene_key: tuple[int, ...]
    things: tuple[TruthThing, ...]
    sounds: tuple[TruthSound, ...]


def describe_things(
    scene: Scene, areas: Float[np.ndarray, "frames things"], object_ids: Iterable[int]
) -> tuple[TruthThing, ...]:
    """The things of a scene as they are written to the truth file."""
    things = scene.things
    return tuple(
        TruthThing(
            shape=thing.shape,
            color=thing.color,
            presence=thing.presence,
            moves=thing.moves,
            areas=tuple(round(float(area), 5) for area in areas[:, index]),
            object_id=object_id,
            same_color=tuple(i for i, other in enumerate(things) if i != index and other.color == thing.color),
            same_shape=tuple(i for i, other in enumerate(things) if i != index and other.shape == thing.shape),
        )
        for index, (thing, object_id) in enumerate(zip(things, object_ids, strict=True))
    )


def describe_sounds(scene: Scene | None) -> tuple[TruthSound, ...]:
    """The sounds of the scene that is heard, in order of time; () for None, a muted clip."""
    heard = [
        TruthSound(thing.shape, thing.sound.start_s, thing.sound.end_s, thing.sound.pitch, thing.sound.loudness)
        for thing in (scene.things if scene else ())
        if thing.sound is not None
    ]
    return tuple(sorted(heard, key=lambda sound: sound.start_s))


def make_truth(
    expression: Expression,
    *,
    split: str,
    clip: str,
    audio: AudioSource,
    scene: Scene,
    things: tuple[TruthThing, ...],
    sounds: tuple[TruthSound, ...],
    expression_id: str = "",
) -> Truth:
    """Join an expression with its clip; a RefAVS row number is filled in once all rows are known."""
    return Truth(
        split=split,
        clip=clip,
        expression_id=expression_id,
        text=expression.text,
        evidence=expression.evidence,
        variant=expression.variant,
        kind=expression.kind,
        targets=expression.targets,
        color=expression.color,
        shape=expression.shape,
        audio=audio,
        scene_key=scene.key,
        things=things,
        sounds=sounds,
    )


def write_truth(root: Path, lines: Iterable[Truth]) -> None:
    """Write the truth file of a tree."""
    with (root / TRUTH_FILE).open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(asdict(line)) + "\n" for line in lines)


def read_truth(root: Path) -> list[Truth]:
    """Read the truth file of a tree.

    Args:
        root: Root of a generated benchmark.

    Raises:
        DataLayoutError: There is no truth file, as in every real download.
    """
    path = root / TRUTH_FILE
    if not path.is_file():
        raise DataLayoutError(
            f"Expected a generated benchmark with a {TRUTH_FILE}, found none in {root}. Real downloads have no such "
            "file; write a tree with `python -m datamodules.avshapes --benchmark refavs --out DIR`."
        )
    with path.open(encoding="utf-8") as file:
        return [_parse(line) for line in file]


def _parse(line: str) -> Truth:
    fields = json.loads(line)
    things = [{**thing, **{key: tuple(thing[key]) for key in _LISTS}} for thing in fields["things"]]
    fields["things"] = tuple(TruthThing(**thing) for thing in things)
    fields["sounds"] = tuple(TruthSound(**sound) for sound in fields["sounds"])
    return Truth(**{**fields, "targets": tuple(fields["targets"]), "scene_key": tuple(fields["scene_key"])})


_LISTS = ("areas", "same_color", "same_shape")
