"""An endless supply of lessons: freshly drawn scenes, seen and heard, with everything that is taught about them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from jaxtyping import Float32, UInt8
from torch.utils.data import IterableDataset

from datamodules.avshapes.expressions import (
    AudioSource,
    Expression,
    choose_balanced,
    refavs_expressions,
    refavs_null_expressions,
    revos_expressions,
)
from datamodules.avshapes.lessons import MOTION, demonstrate, expression_questions, small_questions
from datamodules.avshapes.marks import mark_clip
from datamodules.avshapes.render import render_frames
from datamodules.avshapes.scene import SHAPES, Scene, Thing, World, sample_scene
from datamodules.avshapes.sound import render_audio, render_silence
from datamodules.lessons import Lesson, Mark
from datamodules.records import Clip, FrameBudget, Frames

_SOUND_SOURCES: tuple[AudioSource, ...] = ("own", "muted", "exchanged")


class SceneFrames(Frames):
    """Frames of a scene, drawn instead of read.

    Args:
        scene: The scene.
        drawn: All of its frames at a small size, if they are drawn already.
    """

    def __init__(self, scene: Scene, drawn: UInt8[np.ndarray, "frames side side 3"] | None = None) -> None:
        self.scene = scene
        self.drawn = drawn
        self.count = scene.world.frames
        self.fps = scene.world.fps

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.scene.world.size, self.scene.world.size

    def read(
        self, indices: Sequence[int], *, max_pixels: int | None = None
    ) -> UInt8[np.ndarray, "frames height width 3"]:
        """Draw frames, directly at the reduced size when there is a limit."""
        side = self.scene.world.size
        if max_pixels is not None:
            side = min(side, int(max_pixels**0.5))
        if self.drawn is not None and self.drawn.shape[1] == side:
            return self.drawn[list(indices)]
        return render_frames(self.scene, frames=indices, size=side)[0]


class LessonStream(IterableDataset[list[Lesson]]):
    """Batches of lessons, half with sound as in RefAVS, half silent with repeated shapes as in ReVOS.

    Args:
        seed: First part of every scene's key.
        clips: Clips per batch.
        steps: Batches until the stream ends.
        world: The dials.
        expressions: Expressions per clip that are asked about.
        demonstrations: Of these, how many are also answered in the answer form.
        world_questions: Plain questions per clip, at most.
        null_share: Share of the expressions whose target is not there.
        noticed_absence: Share of the demonstrations for these that say so; the others name some thing.
        glance_side: Side of the frames in pixels.
        cells: Visual tokens per frame side; 0 leaves the marks out, and draws frames only when they are read.
        benchmarks: Which kinds of clips take turns: refavs, revos.
        unseen_share: Share of the scenes that hold a look or a tone of the benchmark's unseen split. They are asked
            about, and never demonstrated.
    """

    def __init__(
        self,
        *,
        seed: int,
        clips: int,
        steps: int,
        world: World,
        expressions: int = 5,
        demonstrations: int = 1,
        world_questions: int = 12,
        null_share: float = 0.4,
        noticed_absence: float = 0.3,
        glance_side: int = 112,
        cells: int = 4,
        benchmarks: Sequence[str] = ("refavs", "revos"),
        unseen_share: float = 0.0,
    ) -> None:
        self.seed, self.clips, self.steps = seed, clips, steps
        self.worlds = {
            "refavs": replace(world, distinct_shapes=True),
            "revos": replace(world, distinct_shapes=False, sounding=(1.0,)),
        }
        self.expressions, self.demonstrations = expressions, demonstrations
        self.world_questions, self.null_share = world_questions, null_share
        self.noticed_absence = noticed_absence
        self.budget = FrameBudget(world.frames, glance_side**2, world.size**2)
        self.cells = cells
        self.benchmarks = tuple(benchmarks)
        self.unseen_share = unseen_share

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[Lesson]]:
        for step in range(self.steps):
            yield [self.draw(step, index) for index in range(self.clips)]

    def draw(self, step: int, index: int) -> Lesson:
        """One lesson; the same for the same step and index."""
        benchmark = self.benchmarks[(step * self.clips + index) % len(self.benchmarks)]
        rng = np.random.default_rng((self.seed, step, index))
        unseen = bool(rng.random() < self.unseen_share)
        scene = sample_scene((self.seed, step, index), self.worlds[benchmark], unseen=unseen)
        heard: tuple[Thing, ...] = ()
        audio = None
        if benchmark == "refavs":
            source = _SOUND_SOURCES[int(rng.choice(3, p=(0.7, 0.15, 0.15)))]
            source, heard, audio = self._sound(scene, source, (step, index))
            # A sound that is not the picture's own says nothing true about the things in it.
            true = [e for e in refavs_expressions(scene, rng) if source == "own" or e.evidence in ("looks", "motion")]
            every = true + refavs_null_expressions(scene, rng, audio=source)
        else:
            every = revos_expressions(scene, rng)
        there = [expression for expression in every if expression.targets]
        absent = [expression for expression in every if not expression.targets]
        chosen = self._choose(there, absent, rng)
        frames, marks = self._mark(scene, None if audio is None else heard)
        clip = Clip(
            id=f"lesson/{benchmark}/{self.seed}/{step}/{index}",
            task="refavs" if benchmark == "refavs" else "revos",
            split="lesson",
            kind=benchmark,
            expression="",
            frames=SceneFrames(scene, frames),
            budget=self.budget,
            audio_source=None if audio is None else partial(_identity, audio),
        )
        questions = small_questions(scene, heard, rng)
        if benchmark == "revos":
            questions = [turn for turn in questions if turn.evidence not in _HEARD]
        # Motion takes comparing moments and is learned last, so it is asked about twice as often.
        weight = np.array([2.0 if turn.evidence in MOTION else 1.0 for turn in questions])
        count = min(self.world_questions, len(questions))
        kept = [questions[i] for i in rng.choice(len(questions), size=count, replace=False, p=weight / weight.sum())]
        turns = kept + [turn for expression in chosen for turn in expression_questions(scene, expression)]
        shown = [
            demonstrate(scene, expression, rng, noticed_absence=self.noticed_absence)
            for expression in chosen[: 0 if unseen else self.demonstrations]
        ]
        return Lesson(clip, tuple(turns), tuple(shown), marks)

    def _mark(
        self, scene: Scene, heard: tuple[Thing, ...] | None
    ) -> tuple[UInt8[np.ndarray, "frames side side 3"] | None, tuple[Mark, ...]]:
        """The frames of a scene as they are glanced at, and its marks, which need the same masks."""
        if not self.cells:
            return None, ()
        frames, masks = render_frames(scene, size=int(self.budget.glance_max_pixels**0.5))
        return frames, mark_clip(scene, heard, masks, cells=self.cells)

    def _choose(self, there: list[Expression], absent: list[Expression], rng: np.random.Generator) -> list[Expression]:
        count = int(rng.binomial(self.expressions, self.null_share))
        chosen = choose_balanced(absent, count, rng)
        chosen += choose_balanced(there, self.expressions - len(chosen), rng)
        return [chosen[i] for i in rng.permutation(len(chosen))]

    def _sound(
        self, scene: Scene, source: AudioSource, place: tuple[int, int]
    ) -> tuple[AudioSource, tuple[Thing, ...], Float32[np.ndarray, "samples"]]:
        """Where the sound comes from in the end, what is heard, and the sound; muted where nothing can be exchanged."""
        donor = self._donor(scene, *place) if source == "exchanged" else scene
        if source == "muted" or donor is None:
            return "muted", (), render_silence(scene)
        return source, donor.things, render_audio(donor)

    def _donor(self, scene: Scene, step: int, index: int) -> Scene | None:
        """A scene whose sounding shapes are all absent from this picture; None if this one has every shape."""
        seen = {thing.shape for thing in scene.things}
        if len(seen) == len(SHAPES):
            return None
        for attempt in range(200):
            donor = sample_scene((self.seed, step, index, attempt), self.worlds["refavs"])
            if not any(thing.shape in seen for thing in donor.things if thing.sound):
                return donor
        return None


_HEARD = frozenset(
    {"world/heard", "world/is heard", "world/tone", "world/sound time", "world/in view"}
    | {f"world/{word}" for word in ("first", "last", "highest", "lowest", "loudest", "quietest")}
)


def _identity(audio: np.ndarray) -> np.ndarray:
    return audio


__all__ = ["LessonStream", "SceneFrames", "Thing"]
