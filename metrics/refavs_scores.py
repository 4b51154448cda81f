"""The official averages of Ref-AVS over a split, from the parts that single expressions add to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Float64, Shaped
from torch import Tensor

from metrics.refavs import THRESHOLDS, frame_curves, frame_scores, marked_pixels
from metrics.rows import ExpressionRows, Values

SPLITS = ("train", "val", "test_s", "test_u", "test_n")
NULL_SPLITS = ("test_n",)
"""Splits without any target, for which the benchmark reports S and nothing else."""

EXPRESSIONS_PER_CALL = 4
"""The official program scores four expressions at a time, in the order of the table."""


@dataclass(frozen=True)
class RefAVSParts:
    """What one expression adds to the call it is scored in.

    Attributes:
        j_sum: J, added up over frames.
        frames: Their number.
        curve: F at every threshold, added up over the frames with a target.
        kept: Their number.
        marked: Predicted pixels at a threshold of 0.5.
        pixels: Pixels of all frames.
    """

    j_sum: float
    frames: int
    curve: Float64[Tensor, "thresholds"]
    kept: int
    marked: int
    pixels: int

    @property
    def j(self) -> float:
        """J of the expression alone, 0..1."""
        return self.j_sum / self.frames

    @property
    def f(self) -> float:
        """F of the expression alone, 0..1; 0 without a frame that has a target."""
        return float(self.curve.max()) / self.kept if self.kept else 0.0

    @property
    def s(self) -> float:
        """S of the expression alone, 0..1, lower is better."""
        return float((self.marked / self.pixels) ** 0.5)


def refavs_parts(
    logits: Float[Tensor, "frames 1 height width"], target: Shaped[Tensor, "frames 1 height width"]
) -> RefAVSParts:
    """Measure one expression; arguments and errors as in `metrics.refavs.refavs_j`."""
    curves = frame_curves(logits, target)
    return RefAVSParts(
        j_sum=float(frame_scores(logits, target).sum()),
        frames=len(logits),
        curve=curves.sum(dim=0),
        kept=len(curves),
        marked=marked_pixels(logits),
        pixels=logits.numel(),
    )


def worst_parts(frames: int, pixels: int) -> RefAVSParts:
    """What an answer that cannot be read adds: every score at its worst, S included.

    Args:
        frames: Frames of the clip; all of them count as frames with a target.
        pixels: Pixels of all frames.
    """
    return RefAVSParts(0.0, frames, torch.zeros(THRESHOLDS, dtype=torch.float64), frames, pixels, pixels)


class RefAVSScores(ExpressionRows):
    """J, F and S of Ref-AVS as its released program averages them.

    Expressions of a split are taken in the order of the table, four to a call of the scorer; the result is the mean
    over calls, in which a short last call weighs as much as any other. ``compute`` gives, per split that has
    expressions, values in 0..1:

    ``<split>/J``: mean IoU at a threshold of 0.4; a frame without a target scores its share of background.
    ``<split>/F``: pixel F-measure (squared beta 0.3): the mean curve over the frames of a call that have a target, at
    the best of 255 thresholds; a call without such a frame counts 0.
    ``<split>/JF``: mean of both.
    ``<split>/S``: in place of these for test_n: square root of the share of marked pixels in a call, lower is better.
    ``mix/J``, ``mix/F``, ``mix/JF``: means of test_s and test_u, when both are there.
    """

    def __init__(
        self,
        *,
        splits: Sequence[str] = SPLITS,
        null_splits: Sequence[str] = NULL_SPLITS,
        **settings: Any,  # noqa: ANN401
    ) -> None:
        """Start without expressions.

        Args:
            splits: Every split that an expression may come from.
            null_splits: Those for which S is reported.
            **settings: Those of `torchmetrics.Metric`.
        """
        super().__init__(splits, columns=5 + THRESHOLDS, **settings)
        self.null_splits = tuple(null_splits)

    def update(self, parts: RefAVSParts, *, split: str, position: int) -> None:
        """Add one expression.

        Args:
            parts: From `refavs_parts`.
            split: One of the splits given at the start.
            position: Row of the table; an expression that is added twice counts once.

        Raises:
            ValueError: The split is unknown.
        """
        values = [parts.j_sum, parts.frames, parts.kept, parts.marked, parts.pixels, *parts.curve.tolist()]
        self._add_row(values, group=split, position=position)

    def compute(self) -> dict[str, Tensor]:
        """Scores by ``<split>/<score>``; see the class."""
        scores: dict[str, Tensor] = {}
        for split, values in self.by_group():
            calls = [_call(values[first : first + EXPRESSIONS_PER_CALL]) for first in _starts(values)]
            j, f, s = torch.stack(calls).mean(dim=0)
            of_split = {"S": s} if split in self.null_splits else {"J": j, "F": f, "JF": (j + f) / 2}
            scores |= {f"{split}/{name}": value for name, value in of_split.items()}
        if "test_s/J" in scores and "test_u/J" in scores:
            scores |= {f"mix/{name}": (scores[f"test_s/{name}"] + scores[f"test_u/{name}"]) / 2 for name in _MIXED}
        return scores


_MIXED = ("J", "F", "JF")


def _starts(values: Values) -> range:
    return range(0, len(values), EXPRESSIONS_PER_CALL)


def _call(values: Values) -> Float64[Tensor, "3"]:
    """J, F and S of one call of the official scorer."""
    j_sum, frames, kept, marked, pixels = values[:, :5].sum(dim=0)
    curve = values[:, 5:].sum(dim=0)
    f = curve.max() / kept if kept else torch.zeros_like(kept)
    return torch.stack([j_sum / frames, f, (marked / pixels).sqrt()])
