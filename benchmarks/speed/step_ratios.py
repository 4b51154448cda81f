"""Seconds of a step's parts on two sides as ratios, and what token counts alone would promise."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

import torch

from speed.results import Point

RATIOS = {
    "rollout": ("process", "towers", "generate"),
    "reference": ("reference",),
    "forward": ("forward",),
    "backward": ("backward",),
    "update": ("forward", "backward"),
    "step": ("process", "towers", "generate", "reward", "reward and rest", "reference", "forward", "backward"),
}
"""Which measured parts a ratio is made of."""


def ratios(trl: Mapping[str, float], ours: Mapping[str, float]) -> dict[str, float | None]:
    """How many times longer TRL takes; None where ours does nothing."""
    found: dict[str, float | None] = {}
    for name, parts in RATIOS.items():
        theirs, mine = (sum(side.get(part, 0.0) for part in parts) for side in (trl, ours))
        found[name] = theirs / mine if mine else None
    return found


def completion_lengths(point: Point) -> list[int]:
    """Tokens of each completion of a group: all the same, or rising evenly from an eighth of the longest to it."""
    longest = point["completion"]
    shortest = longest if point["lengths"] == "fixed" else longest / 8
    return [round(length) for length in torch.linspace(shortest, longest, point["group"]).tolist()]


def token_ideal(point: Point) -> float:
    """Tokens of one full row per completion, padded to the longest, over those of one prompt and its completions."""
    lengths, prompt = completion_lengths(point), point["prompt"]
    return len(lengths) * (prompt + point["completion"]) / (prompt + sum(lengths))


def spread(values: Sequence[float | None]) -> str:
    """Median, and the extremes where there is more than one value."""
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    middle = f"{statistics.median(known):.2f}"
    return middle if len(known) == 1 else f"{middle} ({min(known):.2f} to {max(known):.2f})"
