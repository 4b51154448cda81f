"""How sure a change between two passes over the same clips is."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


def paired_interval(
    before: Float[np.ndarray, "clips"],
    after: Float[np.ndarray, "clips"],
    *,
    level: float = 0.95,
    resamples: int = 4000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean change over clips.

    Pairs are resampled, so that what makes a clip hard or easy cancels out. The interval covers the choice of clips,
    not the choice of seeds: another training run may differ by more.

    Args:
        before: One value per clip.
        after: The same clips in the same order.
        level: Coverage, 0..1.
        resamples: Number of bootstrap samples.
        seed: Of the resampling; equal inputs give equal intervals.

    Returns:
        Lower and upper end; (nan, nan) without clips, and a single point with one clip.

    Raises:
        ValueError: The two have different lengths.

    Reference:
        Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13.
    """
    if before.shape != after.shape:
        raise ValueError(f"expected the same clips before and after, found {before.shape} and {after.shape} values")
    change = after - before
    if not len(change):
        return float("nan"), float("nan")
    picks = np.random.default_rng(seed).integers(len(change), size=(resamples, len(change)))
    low, high = np.quantile(change[picks].mean(axis=1), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
