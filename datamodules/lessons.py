"""Records of supervised training: a clip with questions about it and the right answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Int

from datamodules.records import Clip, Segment


@dataclass(frozen=True)
class Turn:
    """One question about a clip with its right answer.

    Attributes:
        question: User text after the media.
        answer: Assistant text.
        evidence: What it takes to answer; scores are grouped by it.
    """

    question: str
    answer: str
    evidence: str


@dataclass(frozen=True)
class Demonstration:
    """One answer to the task itself, before it is put into the answer form.

    Attributes:
        expression: What is asked for.
        thought: Text of the think block.
        segments: The answered moments; () says that the target is absent.
    """

    expression: str
    thought: str
    segments: tuple[Segment, ...]


@dataclass(frozen=True)
class Mark:
    """One thing to say at every media token, chosen among a few words.

    Attributes:
        media: Which tokens: those of the frames or those of the sound, in the order in which the prompt has them.
        options: The words, each a single token as it is written here, leading space included.
        answers: Per token, the index of the right word; -1 where nothing is to be said.
    """

    media: Literal["video", "audio"]
    options: tuple[str, ...]
    answers: Int[np.ndarray, "tokens"]


@dataclass(frozen=True)
class Lesson:
    """Everything that is taught about one clip at once.

    Attributes:
        clip: The video and its sound.
        turns: Plain questions and answers.
        demonstrations: Answers to the task.
        marks: What is said at the media tokens themselves.
    """

    clip: Clip
    turns: tuple[Turn, ...]
    demonstrations: tuple[Demonstration, ...]
    marks: tuple[Mark, ...] = ()


def by_expression(clip: Clip, frame: int) -> str:
    """The expression itself as description, on every frame."""
    del frame
    return clip.expression


def place(clip: Clip, frame: int) -> str:
    """Where the target is on a frame.

    Args:
        clip: With masks or boxes.
        frame: 0-based; the target is visible on it.

    Returns:
        Left, top, right and bottom in percent of the frame, such as "12 30 55 70"; boxes of several objects are
        separated by commas, in order of their left sides.
    """
    truth = clip.boxes if clip.masks is None else clip.masks
    height, width = clip.frames.size
    boxes = np.zeros((0, 4)) if truth is None else truth.boxes(frame)
    percent = (100 * boxes / [width, height, width, height]).round().astype(int)
    return ", ".join(" ".join(map(str, box)) for box in sorted(percent.tolist()))


def lesson_from_labels(clip: Clip, *, keyframes: int, describe: Callable[[Clip, int], str] = by_expression) -> Lesson:
    """The supervised target that a benchmark's own labels give.

    The picked frames have the greatest visible area, one from each of `keyframes` equal parts of the frames that show
    the target. A null clip is answered as absent.

    Args:
        clip: A clip with ground truth, be it masks or boxes.
        keyframes: Most moments.
        describe: The description on a picked frame; by default the expression, which is what a benchmark labels.

    Raises:
        ValueError: The clip has no ground truth.
    """
    picked = () if clip.is_null else fullest_frames(_areas(clip), keyframes)
    if not picked:
        return Lesson(clip, (), (Demonstration(clip.expression, "it is not there", ()),))
    fps = clip.frames.fps
    segments = tuple(Segment(frame / fps, (frame + 1) / fps, describe(clip, frame)) for frame in picked)
    thought = clip.expression if describe is by_expression else segments[0].description
    return Lesson(clip, (), (Demonstration(clip.expression, thought, segments),))


def _areas(clip: Clip) -> Int[np.ndarray, "frames"]:
    """Pixels of the target per frame; those of its boxes where there are no masks."""
    if clip.masks is not None:
        return np.asarray(clip.masks.areas.sum(axis=1))
    if clip.boxes is None:
        raise ValueError(f"{clip.id} has no ground truth to learn from; supervised training needs a labeled split")
    boxes = [clip.boxes.boxes(frame) for frame in range(clip.boxes.frames)]
    return np.array([(row[:, 2:] - row[:, :2]).prod(axis=1).sum().round() for row in boxes], dtype=np.int64)


def fullest_frames(area: Int[np.ndarray, "frames"], keyframes: int) -> tuple[int, ...]:
    """Frames that show most of a target, one from each of `keyframes` equal parts of those that show it, in order.

    Args:
        area: Visible pixels per frame.
        keyframes: Most frames; fewer are returned where fewer show the target, none where none does.
    """
    visible = np.flatnonzero(area)
    parts = np.array_split(visible, min(keyframes, len(visible))) if len(visible) else []
    return tuple(int(part[area[part].argmax()]) for part in parts)
