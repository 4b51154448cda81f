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

from datamodules.avshapes.oracle import TrueDescriptions
from datamodules.lessons import Lesson, by_expression, lesson_from_labels, place
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
