"""Is the tiny grounder good enough? Held-out AVShapes scenes through the very path that the pipeline uses.

Every question is put to a `Grounder` about a `Clip`, and its boxes are compared with the tight boxes of the visible
pixels. A keyframe of a thing is *good* when at least 90 % of its greatest visible area is visible on it, and *poor*
between 10 % and 50 %.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from jaxtyping import Bool, Float
from torchvision.ops import box_iou

from datamodules.avshapes.render import render_frames
from datamodules.avshapes.scene import COLORS, SHAPES, UNSEEN_LOOKS, Scene, Thing, sample_scene
from datamodules.avshapes_boxes import GATES, WORLDS, tight_box
from datamodules.avshapes_queries import SEEN_LOOKS, Query, sample_query
from datamodules.avshapes_video import SceneFrames
from datamodules.records import Clip, FrameGrounding
from models.grounder import Grounder, GroundingRequest

_LEAST_SHARE = 0.002
"""Share of the frame that a thing must fill to be expected among the answers to a vague question."""


@dataclass(frozen=True)
class GrounderGates:
    """Means over questions, all in 0..1; NaN where no question of the kind came up.

    Attributes:
        good_iou: IoU of the best box for the true description on a good keyframe; no box counts 0. The gate: 0.75.
        poor_iou: The same on a poor keyframe.
        worded_iou: The same as `good_iou` with extra and unknown words around the description.
        unseen_iou: The same as `good_iou` for things whose look was never trained on.
        missed: Share of true descriptions on good keyframes without any box.
        vague_recall: Share of the fitting things that some box overlaps by more than half, when several things fit.
        vague_precision: Share of the boxes that overlap some fitting thing by more than half, same questions.
        absent_false: Share of descriptions of looks that are not in the picture that got a box.
        absent_worst: The same for looks whose color and shape are both in the picture, on different things.
    """

    good_iou: float
    poor_iou: float
    worded_iou: float
    unseen_iou: float
    missed: float
    vague_recall: float
    vague_precision: float
    absent_false: float
    absent_worst: float

    def table(self) -> str:
        """One line per number."""
        return "\n".join(f"  {field.name:<16} {getattr(self, field.name):.3f}" for field in fields(self))


@dataclass(frozen=True)
class _Question:
    """A description with the right boxes, and what its answer is counted for."""

    kind: str
    request: GroundingRequest
    boxes: tuple[tuple[int, int, int, int], ...]


def measure_gates(grounder: Grounder, *, seed: int = 0, scenes: int = 200) -> GrounderGates:
    """Ask a grounder about held-out scenes.

    Args:
        grounder: Loaded.
        seed: Names the scenes; those of any seed are apart from all training scenes.
        scenes: Number of scenes without held-out looks; a third as many come on top for the held-out ones.
    """
    results: dict[str, list[float]] = defaultdict(list)
    for index in range(scenes + scenes // 3):
        is_unseen = index >= scenes
        key = (seed, GATES, int(is_unseen), index)
        rng = np.random.default_rng(key)
        scene = sample_scene(key, WORLDS[index % len(WORLDS)], unseen=is_unseen)
        _, masks = render_frames(scene)
        questions = _unseen_questions(scene, masks) if is_unseen else _questions(rng, scene, masks)
        answers = grounder.ground(scene_clip(scene), [question.request for question in questions])
        for question, answer in zip(questions, answers, strict=True):
            _count(results, question, answer)
    names = [field.name for field in fields(GrounderGates)]
    return GrounderGates(**{name: float(np.mean(results[name])) if results[name] else float("nan") for name in names})


def scene_clip(scene: Scene) -> Clip:
    """A silent clip of a scene, rendered when read, without ground truth."""
    name = "/".join(map(str, scene.key))
    frames = SceneFrames(scene, size=scene.world.size)
    return Clip(id=f"avshapes/{name}", task="video", split="held_out", kind="seen", expression="", frames=frames)


def _questions(
    rng: np.random.Generator, scene: Scene, masks: Bool[np.ndarray, "frames things height width"]
) -> list[_Question]:
    areas = masks.mean(axis=(2, 3))
    found = []
    for index, thing in enumerate(scene.things):
        good = _pick_frame(rng, areas[:, index], 0.9, 1.01)
        poor = _pick_frame(rng, areas[:, index], 0.1, 0.5)
        worded = Query("")
        while not (worded.color == thing.color and worded.shape == thing.shape):
            worded = sample_query(rng)
        for kind, frame, text in (
            ("good_iou", good, f"the {thing.name}"),
            ("poor_iou", poor, f"the {thing.name}"),
            ("worded_iou", good, worded.text),
        ):
            if frame is not None:
                found.append(_Question(kind, GroundingRequest(frame, text), (tight_box(masks[frame, index]),)))
    frame = int(rng.integers(len(masks)))
    visible = areas[frame] > 0
    shown = [thing for thing, is_visible in zip(scene.things, visible, strict=True) if is_visible]
    found += _vague_questions(rng, scene.things, masks[frame], frame)
    for kind, look in _absent_looks(rng, shown):
        found.append(_Question(kind, GroundingRequest(frame, f"the {look[0]} {look[1]}"), ()))
    return found


def _unseen_questions(scene: Scene, masks: Bool[np.ndarray, "frames things height width"]) -> list[_Question]:
    areas = masks.mean(axis=(2, 3))
    found = []
    for index, thing in enumerate(scene.things):
        if (thing.color, thing.shape) in UNSEEN_LOOKS:
            frame = int(areas[:, index].argmax())
            request = GroundingRequest(frame, f"the {thing.name}")
            found.append(_Question("unseen_iou", request, (tight_box(masks[frame, index]),)))
    return found


def _vague_questions(
    rng: np.random.Generator, things: Sequence[Thing], masks: Bool[np.ndarray, "things height width"], frame: int
) -> list[_Question]:
    """Of the texts that fit two or more of the things on a frame, one each of color, shape and neither."""
    options = [Query("the object"), Query("the thing"), Query("the shape")]
    options += [Query(f"the {color} one", color=color) for color in COLORS]
    options += [Query(f"the {shape}", shape=shape) for shape in SHAPES]
    found: dict[tuple[bool, bool], _Question] = {}
    for query in (options[i] for i in rng.permutation(len(options))):
        fitting = [mask for thing, mask in zip(things, masks, strict=True) if query.fits(thing)]
        boxes = tuple(tight_box(mask) for mask in fitting if mask.mean() >= _LEAST_SHARE)
        if len(boxes) >= 2:
            kind = (query.color is None, query.shape is None)
            found.setdefault(kind, _Question("vague", GroundingRequest(frame, query.text), boxes))
    return list(found.values())


def _absent_looks(rng: np.random.Generator, shown: Sequence[Thing]) -> list[tuple[str, tuple[str, str]]]:
    """Any look that no shown thing has, and one made of a color and a shape that are there on different things."""
    looks = {(thing.color, thing.shape) for thing in shown}
    absent = [look for look in SEEN_LOOKS if look not in looks]
    mixed = [look for look in absent if look[0] in {c for c, _ in looks} and look[1] in {s for _, s in looks}]
    named = [("absent_false", absent), ("absent_worst", mixed)]
    return [(kind, options[rng.integers(len(options))]) for kind, options in named if options]


def _pick_frame(rng: np.random.Generator, areas: Float[np.ndarray, "frames"], low: float, high: float) -> int | None:
    """A frame with at least `low` and less than `high` times the greatest area, or None."""
    fitting = np.flatnonzero((areas >= low * areas.max()) & (areas < high * areas.max()) & (areas >= _LEAST_SHARE))
    return int(rng.choice(fitting)) if len(fitting) else None


def _count(results: dict[str, list[float]], question: _Question, answer: FrameGrounding) -> None:
    if not question.boxes:
        results[question.kind].append(float(len(answer.boxes) > 0))
        return
    overlap = box_iou(torch.from_numpy(answer.boxes), torch.tensor(question.boxes).float()).numpy()
    if question.kind == "vague":
        results["vague_recall"] += [float(column.max(initial=0.0) > 0.5) for column in overlap.T]
        results["vague_precision"] += [float(row.max() > 0.5) for row in overlap]
        return
    results[question.kind].append(float(overlap[0, 0]) if len(overlap) else 0.0)
    if question.kind == "good_iou":
        results["missed"].append(float(len(overlap) == 0))
