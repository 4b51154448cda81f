"""Right answers for supervised training: what the `answers` setting of a data module stands for.

`labels` is the supervised baseline on any benchmark, generated or real: it learns from what the benchmark labels. The
other two are for comparison. `oracle` adds what no benchmark labels, a description of the target itself, and reads the
truth file of the generated benchmark for it; no other setting does. `places` writes the target's place instead of a
description, so that a reasoner can do without a grounder (`models.places`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from datamodules.avshapes.oracle import TrueDescriptions
from datamodules.lessons import Lesson, by_expression, lesson_from_labels
from datamodules.records import Clip

Answers = Literal["labels", "oracle", "places"]


def teacher(answers: Answers, keyframes: int, root: Path) -> Callable[[Clip], Lesson]:
    """What makes a lesson of a clip.

    Args:
        answers: Where descriptions come from.
        keyframes: Most moments of an answer.
        root: Folder of the benchmark.

    Raises:
        DataLayoutError: The true descriptions are asked for, and this benchmark is no generated one.
    """
    describe: Callable[[Clip, int], str] = by_expression
    if answers == "oracle":
        describe = TrueDescriptions(root)
    elif answers == "places":
        describe = place
    return partial(lesson_from_labels, keyframes=keyframes, describe=describe)


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
