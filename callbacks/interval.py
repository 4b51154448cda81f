"""How sure a change between two passes over the same clips is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float


def paired_interval(
    before: Float[np.ndarray, "clips"],
    after: Float[np.ndarray, "clips"],
    videos: Sequence[str],
    *,
    level: float = 0.95,
    resamples: int = 4000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean change over clips.

    Pairs are resampled, so that what makes a clip hard or easy cancels out, and those of one video together: its
    questions are not independent. The interval covers the choice of videos, not the choice of seeds: another training
    run may differ by more.

    Args:
        before: One value per clip.
        after: The same clips in the same order.
        videos: What each clip is a question about.
        level: Coverage, 0..1.
        resamples: Number of bootstrap samples.
        seed: Of the resampling; equal inputs give equal intervals.

    Returns:
        Lower and upper end; (nan, nan) without clips, and a single point with one video.

    Raises:
        ValueError: The three have different lengths.

    Reference:
        Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13.
    """
    if before.shape != after.shape or len(videos) != len(before):
        raise ValueError(
            f"expected the same clips before and after, found {before.shape} and {after.shape} values for {len(videos)}"
        )
    if not len(before):
        return float("nan"), float("nan")
    _, places = np.unique(list(videos), return_inverse=True)
    sums, counts = np.bincount(places, weights=after - before), np.bincount(places).astype(np.float64)
    means = resampled_means(sums[:, None], counts[:, None], resamples=resamples, seed=seed)[:, 0]
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def resampled_means(
    sums: Float[np.ndarray, "units means"],
    counts: Float[np.ndarray, "units means"],
    *,
    resamples: int = 4000,
    seed: int = 0,
) -> Float[np.ndarray, "resamples means"]:
    """Means over values that come in units, such as the questions about one video, when the units are drawn again.

    Values of one unit are not independent; drawn one by one they would make an interval too narrow.

    Args:
        sums: Sum of each unit's values, for every mean.
        counts: How many values that are; 0 where a unit has none.
        resamples: Number of bootstrap samples.
        seed: Of the resampling.

    Returns:
        One row per bootstrap sample; NaN where none of the units drawn has a value.
    """
    picks = np.random.default_rng(seed).integers(len(sums), size=(resamples, len(sums)))
    times = np.stack([np.bincount(row, minlength=len(sums)) for row in picks])
    drawn = times @ counts
    means: Float[np.ndarray, "resamples means"] = np.full(drawn.shape, np.nan)
    np.divide(times @ sums, drawn, out=means, where=drawn > 0)
    return means
