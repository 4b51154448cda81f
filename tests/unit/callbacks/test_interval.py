"""Paired bootstrap intervals."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callbacks.interval import paired_interval, resampled_means


def each(count: int) -> list[str]:
    """A video of its own for every clip."""
    return [str(number) for number in range(count)]


def test_equal_changes_are_certain() -> None:
    """Every clip changes by exactly 0.25, so every resample has this mean."""
    before = np.array([0.0, 0.5, 0.25])
    assert paired_interval(before, before + 0.25, "abc") == (0.25, 0.25)


def test_what_makes_clips_hard_cancels_out() -> None:
    """Scores spread over 0..1, changes only over 0.09..0.11: unpaired the interval would be some 0.2 wide."""
    rng = np.random.default_rng(1)
    before = rng.random(100)
    low, high = paired_interval(before, before + rng.uniform(0.09, 0.11, 100), each(100))
    assert 0.098 < low < high < 0.102


def test_the_width_is_that_of_the_normal_approximation() -> None:
    """For 400 changes of deviation 1 the interval is about 2 * 1.96 / sqrt(400) = 0.196 wide."""
    change = np.random.default_rng(0).standard_normal(400)
    low, high = paired_interval(np.zeros(400), change, each(400))
    assert high - low == pytest.approx(0.196, rel=0.1)
    assert low < change.mean() < high


def test_questions_about_one_video_count_as_one() -> None:
    """100 videos of four equal changes: twice as wide as 400 independent ones; one video alone gives its mean."""
    change = np.random.default_rng(0).standard_normal(100).repeat(4)
    (low, high), (inner, outer) = (
        paired_interval(np.zeros(400), change, videos) for videos in (np.repeat(each(100), 4), each(400))
    )
    assert high - low == pytest.approx(2 * (outer - inner), rel=0.1)
    assert paired_interval(np.zeros(4), change[:4] + np.arange(4), "aaaa") == (change[0] + 1.5,) * 2


def test_values_of_one_unit_are_drawn_together() -> None:
    """100 units of four equal values: as wide as 100 values, twice as wide as 400 independent ones."""
    unit = np.random.default_rng(0).standard_normal(100)[:, None]
    together = resampled_means(4 * unit, np.full_like(unit, 4.0))
    apart = resampled_means(unit.repeat(4, axis=0), np.ones((400, 1)))
    assert together.std() == pytest.approx(unit.std() / 10, rel=0.05)
    assert together.std() == pytest.approx(2 * apart.std(), rel=0.05)


def test_means_are_over_values_and_not_over_units() -> None:
    """Units with (1, 3 values of 0) and (none, 1 value of 1): a mean of either, and their weighted one, 1/4."""
    means = resampled_means(np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([[1.0, 3.0], [0.0, 1.0]]), resamples=200)
    assert set(np.unique(means[:, 1])) == {0.0, 0.25, 1.0}
    first = means[:, 0]
    assert np.isnan(first[means[:, 1] == 1.0]).all(), "only the unit without such a value was drawn"
    assert (first[means[:, 1] < 1.0] == 1.0).all()


def test_no_clips_and_one_clip() -> None:
    assert np.isnan(paired_interval(np.array([]), np.array([]), [])).all()
    assert paired_interval(np.array([1.0]), np.array([3.0]), ["a"]) == (2.0, 2.0)


def test_different_clips_are_refused() -> None:
    with pytest.raises(ValueError, match=r"same clips before and after, found \(2,\) and \(3,\)"):
        paired_interval(np.zeros(2), np.zeros(3), "ab")


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=20))
@settings(max_examples=30, deadline=None)
def test_the_interval_lies_within_the_changes(changes: list[float]) -> None:
    after = np.array(changes)
    low, high = paired_interval(np.zeros(len(after)), after, each(len(after)), resamples=200)
    assert after.min() - 1e-9 <= low <= high <= after.max() + 1e-9
