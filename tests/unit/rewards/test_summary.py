import math

import numpy as np
import pytest

from rewards.suite import RewardOutput
from rewards.summary import summarize


def test_mean_std_and_shares_by_hand():
    """Term a: 1, 3 and two None: mean 2, std 1, half not applicable."""
    outputs = [RewardOutput({"a": [1.0, None]}, [1.0, 0.0]), RewardOutput({"a": [3.0, None]}, [3.0, 0.0])]
    assert summarize(outputs).metrics() == {
        "rewards/a/mean": 2.0,
        "rewards/a/std": 1.0,
        "rewards/a/not_applicable": 0.5,
    }


def test_a_term_that_never_applied_keeps_its_keys():
    metrics = summarize([RewardOutput({"a": [None, None]}, [0.0, 0.0])] * 2).metrics()
    assert math.isnan(metrics["rewards/a/mean"])
    assert math.isnan(metrics["rewards/a/std"])
    assert metrics["rewards/a/not_applicable"] == 1


def test_equal_values_have_no_spread_despite_rounding():
    summary = summarize([RewardOutput({"a": [0.1, 0.1]}, [0.1, 0.1])] * 2)
    assert summary.terms["a"].std == pytest.approx(0, abs=1e-8)


def test_sums_of_two_processes_give_the_summary_of_all_rollouts():
    """One process has one applicable value, the other two: the mean is theirs together, not the mean of means."""
    outputs = [
        RewardOutput({"a": [1.0, None], "b": [0.5, 0.5]}, [0.0, 0.0]),
        RewardOutput({"a": [4.0, 4.0], "b": [None, -1.0]}, [0.0, 0.0]),
    ]
    parts = [summarize([output]) for output in outputs]
    together = parts[0].with_sums(np.sum([part.sums() for part in parts], axis=0))
    assert together == summarize(outputs)
    assert together.terms["a"].mean == 3.0


def test_without_groups_there_is_nothing_to_tell():
    summary = summarize([])
    assert summary.terms == {}
    assert summary.with_sums(summary.sums()) == summary
