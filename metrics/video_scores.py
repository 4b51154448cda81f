"""The official averages of MeViS and ReVOS over a split, from the scores of single expressions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from metrics.rows import ExpressionRows, Values
from metrics.video_parts import VideoParts

Kind = Literal["referring", "reasoning", "non-existent"]

KINDS: tuple[Kind, ...] = ("referring", "reasoning", "non-existent")
"""The groups of ReVOS, in the order of its `type_id`."""


class MeViSScores(ExpressionRows):
    """J and F of MeViS as its released program averages them: over frames, then over all expressions of a split.

    ``compute`` gives, per split that has expressions, values in 0..1:

    ``<split>/J``: intersection over union, 1 where both masks are empty and 0 where one is.
    ``<split>/F``: F-measure of the boundaries, 1 where neither mask has one (a mask of the whole frame has none), 0
    where exactly one has.
    ``<split>/JF``: mean of both.
    """

    def __init__(self, *, splits: Sequence[str] = ("train", "valid_u"), **settings: Any) -> None:  # noqa: ANN401
        """Start without expressions.

        Args:
            splits: Every split that an expression may come from.
            **settings: Those of `torchmetrics.Metric`.
        """
        super().__init__(splits, columns=2, **settings)

    def update(self, parts: VideoParts, *, split: str, position: int) -> None:
        """Add one expression.

        Args:
            parts: Its scores, from `video_parts` or `mask_parts`.
            split: One of the splits given at the start.
            position: Its place in the table; an expression that is added twice counts once.

        Raises:
            ValueError: The split is unknown.
        """
        self._add_row([parts.j, parts.f], group=split, position=position)

    def compute(self) -> dict[str, Tensor]:
        """Scores by ``<split>/<score>``; see the class."""
        scores: dict[str, Tensor] = {}
        for split, values in self.by_group():
            j, f = values.mean(dim=0)
            scores |= {f"{split}/J": j, f"{split}/F": f, f"{split}/JF": (j + f) / 2}
        return scores


class ReVOSScores(ExpressionRows):
    """J, F, A and R of ReVOS as its released program averages them.

    Every score of an expression is its mean over all frames of the video, rounded to hundredths of a percent; groups
    are means over expressions, and ``overall`` is the mean of the two groups referring and reasoning, not of their
    expressions. ``compute`` gives values in 0..1 by ``<group>/<score>`` for the groups ``referring``, ``reasoning`` and
    ``overall``, and, beyond what the program reports, ``non-existent``, ``single`` and ``multi`` (referring and
    reasoning expressions about one object, and about several):

    ``J``, ``F``, ``JF``: as for MeViS.
    ``R_official``: 1 - false-positive area / area of all annotated objects, at least 0, on predictions stored as 255,
    so that a false-positive pixel weighs 255; 1 for an empty prediction.
    ``R_binary``: the same with predictions of 0 and 1, which is what the formula means.
    ``A_official``, ``A_binary``: share of pixels whose stored values are equal; with 255 a true positive never counts.
    """

    def __init__(self, **settings: Any) -> None:  # noqa: ANN401
        """Start without expressions.

        Args:
            **settings: Those of `torchmetrics.Metric`.
        """
        super().__init__(KINDS, columns=7, **settings)

    def update(self, parts: VideoParts, *, kind: str, objects: int, position: int) -> None:
        """Add one expression.

        Args:
            parts: Its scores, from `video_parts` or `mask_parts`.
            kind: Its group: referring, reasoning or non-existent.
            objects: How many objects it is about.
            position: Its place in the table; an expression that is added twice counts once.

        Raises:
            ValueError: The kind is unknown.
        """
        percent = 100 * np.array(astuple(parts))
        self._add_row([objects, *(percent.round(2) / 100).tolist()], group=kind, position=position)

    def compute(self) -> dict[str, Tensor]:
        """Scores by ``<group>/<score>``; see the class."""
        rows = dict(self.by_group())
        means = {group: _named_means(values[:, 1:]) for group, values in rows.items()}
        if "referring" in means and "reasoning" in means:
            one, other = means["referring"], means["reasoning"]
            means["overall"] = {name: (one[name] + other[name]) / 2 for name in one if name in other}
        about = torch.cat([rows[kind] for kind in KINDS[:2] if kind in rows] or [torch.zeros(0, self.columns)])
        for group, chosen in (("single", about[:, 0] == 1), ("multi", about[:, 0] > 1)):
            if chosen.any():
                means[group] = _named_means(about[chosen, 1:])
        return {f"{group}/{name}": value for group, scores in means.items() for name, value in scores.items()}


_COLUMNS = ("J", "F", "A_official", "A_binary", "R_official", "R_binary")


def _named_means(values: Values) -> dict[str, Tensor]:
    """Means by name; R is left out where it is unknown."""
    means = dict(zip(_COLUMNS, values.mean(dim=0), strict=True))
    means["JF"] = (means["J"] + means["F"]) / 2
    return {name: value for name, value in means.items() if not value.isnan()}
