import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamodules.errors import ConfigError
from datamodules.selection import choose

MIXED = [index % 5 == 0 for index in range(100)]
"""80 prompts whose target is there, 20 null prompts."""


def counts(chosen, nulls=MIXED):
    """(prompts whose target is there, null prompts)."""
    absent = sum(nulls[index] for index in chosen)
    return len(chosen) - absent, absent


def test_without_size_and_share_everything_is_chosen_in_order():
    assert choose(MIXED, size=None) == tuple(range(100))
    assert choose(MIXED, size=100) == choose(MIXED, size=1000) == tuple(range(100))


def test_a_size_draws_without_repetition_by_seed():
    chosen = choose(MIXED, size=30, seed=1)

    assert len(set(chosen)) == 30
    assert list(chosen) == sorted(chosen)
    assert chosen == choose(MIXED, size=30, seed=1)
    assert chosen != choose(MIXED, size=30, seed=2)
    assert set(chosen) < set(choose(MIXED, size=50, seed=1))


@pytest.mark.parametrize(
    ("size", "share", "expected"),
    [
        (None, 0.0, (80, 0)),
        (None, 0.2, (80, 20)),
        (None, 0.5, (80, 80)),
        (None, 1.0, (0, 20)),
        (40, 0.25, (30, 10)),
        (40, 0.5, (20, 20)),
        (40, 0.75, (10, 30)),
        (40, 1.0, (0, 40)),
        (40, 0.0, (40, 0)),
        (1000, 0.2, (80, 20)),
        (1000, 0.6, (80, 120)),
    ],
)
def test_a_share_is_kept_by_repeating_null_prompts(size, share, expected):
    """By hand: with k prompts whose target is there, a share s needs k s / (1 - s) null prompts."""
    chosen = choose(MIXED, size=size, null_fraction=share, repeats_nulls=True)

    assert counts(chosen) == expected
    present = [index for index in chosen if not MIXED[index]]
    assert len(set(present)) == len(present)


def test_repeats_are_spread_over_all_null_prompts():
    """50 null prompts of 20: each one twice or three times."""
    chosen = choose(MIXED, size=100, null_fraction=0.5, repeats_nulls=True)

    times = [chosen.count(index) for index in range(0, 100, 5)]
    assert sum(times) == 50
    assert set(times) == {2, 3}


def test_without_repeating_there_are_fewer_null_prompts():
    assert counts(choose(MIXED, size=60, null_fraction=0.5)) == (30, 20)
    assert counts(choose(MIXED, size=40, null_fraction=1.0)) == (0, 20)


@given(
    st.lists(st.booleans(), min_size=1, max_size=60),
    st.none() | st.integers(1, 80),
    # A share just below 1 is refused; see below.
    st.none() | st.floats(0, 0.99) | st.just(1.0),
    st.booleans(),
)
def test_every_choice_is_sorted_within_range_and_within_size(nulls, size, share, repeats):
    if share is not None and ((share > 0 and not any(nulls)) or (share < 1 and all(nulls))):
        return
    chosen = choose(nulls, size=size, null_fraction=share, repeats_nulls=repeats)

    assert list(chosen) == sorted(chosen)
    assert all(0 <= index < len(nulls) for index in chosen)
    assert size is None or len(chosen) <= size
    assert repeats or len(set(chosen)) == len(chosen)


def test_more_null_prompts_than_an_epoch_can_have_are_refused():
    with pytest.raises(ConfigError, match=r"data\.null_fraction is 0\.9999999999999999: .*--data\.train_size"):
        choose(MIXED, size=None, null_fraction=0.9999999999999999, repeats_nulls=True)


def test_null_prompts_that_do_not_exist_cannot_be_asked_for():
    with pytest.raises(ConfigError, match=r"data\.val_null_fraction is 0\.2, but none of the 3 .*null_fraction null"):
        choose([False] * 3, size=None, null_fraction=0.2, setting="data.val_null_fraction")
    assert choose([False] * 3, size=None, null_fraction=0.0) == (0, 1, 2)


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_split_of_null_prompts_alone_is_not_emptied_silently(share):
    expected = rf"data\.test_null_fraction is {share}, but all of the 3 prompts of test_n .*test_null_fraction null"
    with pytest.raises(ConfigError, match=expected):
        choose([True] * 3, size=2, null_fraction=share, setting="data.test_null_fraction", split="test_n")
    assert len(choose([True] * 3, size=2, null_fraction=1.0)) == 2
