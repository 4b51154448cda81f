import math
from inspect import unwrap

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datamodules.errors import ConfigError, RewardError
from rewards.alignment import AlignmentReward
from rewards.base import Reward
from rewards.consistency import ConsistencyReward
from rewards.format import FormatReward
from rewards.length import LengthReward
from rewards.null import NullReward
from rewards.suite import RewardSuite


class Fixed(Reward):
    """Returns what it was given, or raises it."""

    def __init__(self, result, *, weight=1.0):
        super().__init__(weight=weight)
        self.result = result
        self.calls = 0

    def __call__(self, rollouts):
        self.calls += 1
        if isinstance(self.result, BaseException):
            raise self.result
        return self.result


@pytest.fixture
def group(make_clip, make_rollout):
    clip = make_clip(clip_id="clip-7")
    return [make_rollout(clip, [0], index=index) for index in range(3)]


def test_total_is_the_weighted_sum_and_none_adds_nothing(group):
    """2 * (1, None, 0.5) - 1 * (0.25, 1, None)."""
    suite = RewardSuite({"a": Fixed([1.0, None, 0.5], weight=2.0), "b": Fixed([0.25, 1, None], weight=-1.0)})
    (output,) = suite.score([group])
    assert output.totals == [1.75, -1.0, 1.0]
    assert output.values == {"a": [1.0, None, 0.5], "b": [0.25, 1.0, None]}


def test_every_group_is_scored_alone_and_in_order(group, make_clip, make_rollout):
    other = [make_rollout(make_clip(is_null=True, clip_id="d"), "absent")]
    first, second = RewardSuite({"null": NullReward()}).score([group, other])
    assert first.values["null"] == [None] * 3
    assert second.totals == [1.0]


def test_weight_zero_and_none_leave_a_term_out(group):
    off = Fixed(RuntimeError("never called"), weight=0.0)
    suite = RewardSuite({"on": Fixed([1.0] * 3), "off": off, "gone": None})
    assert suite.names == ("on",)
    assert list(suite.score([group])[0].values) == ["on"]
    assert off.calls == 0


def test_needs_is_the_union_over_weighted_terms():
    assert RewardSuite({"f": FormatReward()}).needs == frozenset()
    assert RewardSuite({"a": AlignmentReward(), "g": ConsistencyReward()}).needs == {"boxes", "masks"}
    assert RewardSuite({"a": AlignmentReward(), "g": ConsistencyReward(weight=0.0)}).needs == {"boxes"}
    assert RewardSuite({"a": None}).needs == frozenset()


def test_without_terms_every_total_is_zero(group):
    (output,) = RewardSuite({}).score([group])
    assert output.totals == [0.0] * 3
    assert output.values == {}


def test_length_sees_the_weighted_task_reward_whatever_the_order(make_clip, make_rollout):
    """Format pays all three, but only the task term counts: 2 * 0.06 passes 0.1, 2 * 0.04 does not."""
    clip = make_clip()
    group = [make_rollout(clip, [0], tokens=400) for _ in range(3)]
    terms = {
        "length": LengthReward(weight=0.5),
        "task": Fixed([0.06, 0.06, 0.04], weight=2.0),
        "format": FormatReward(),
    }
    (output,) = RewardSuite(terms).score([group])
    assert output.values["length"] == [1.0, 1.0, 0.0]
    assert list(output.values) == ["length", "task", "format"]
    assert output.totals == pytest.approx([1 + 0.12 + 0.5, 1 + 0.12 + 0.5, 1 + 0.08])


def test_length_is_not_fed_by_format_alone(make_clip, make_rollout):
    group = [make_rollout(make_clip(), [0], tokens=400) for _ in range(2)]
    (output,) = RewardSuite({"format": FormatReward(), "length": LengthReward()}).score([group])
    assert output.values["length"] == [0.0, 0.0]


@pytest.mark.parametrize(
    ("result", "found"),
    [
        ([1.0, 2.0], "found 2 values"),
        ([], "found 0 values"),
        (1.0, "found float"),
        (None, "found NoneType"),
        (np.ones(3), "found ndarray"),
        ([1.0, math.nan, 1.0], "found nan for rollout 1"),
        ([1.0, 1.0, -math.inf], "found -inf for rollout 2"),
        (["1", 1.0, 1.0], "found str for rollout 0"),
        ([torch.tensor(1.0)] * 3, "found Tensor for rollout 0"),
        ([True, 1.0, 1.0], "found bool for rollout 0"),
    ],
)
def test_a_wrong_return_names_the_term_what_was_expected_and_found(result, found, group):
    suite = RewardSuite({"fine": Fixed([0.0] * 3), "broken": Fixed(result)})
    with pytest.raises(
        RewardError, match=rf"rewards\.broken on clip clip-7: expected a list of 3 finite numbers.*{found}"
    ):
        suite.score([group])


def test_numpy_numbers_become_floats(group):
    (output,) = RewardSuite({"n": Fixed([np.float32(0.5), np.int64(2), 1])}).score([group])
    assert output.values["n"] == [0.5, 2.0, 1.0]
    assert all(type(value) is float for value in output.values["n"])


def test_a_reward_that_raises_names_the_term_and_keeps_the_cause(group):
    cause = KeyError("speed")
    with pytest.raises(
        RewardError, match=r"rewards\.broken raised KeyError on clip clip-7: 'speed'.*--rewards\.broken null"
    ) as caught:
        RewardSuite({"broken": Fixed(cause)}).score([group])
    assert caught.value.__cause__ is cause


def test_an_interrupt_is_not_a_reward_fault(group):
    with pytest.raises(KeyboardInterrupt):
        RewardSuite({"slow": Fixed(KeyboardInterrupt())}).score([group])


def test_entries_that_are_no_rewards_are_listed_together():
    with pytest.raises(ConfigError, match=r"a is <class .*FormatReward'>; b is 1\.0.*--rewards\.mine my_pkg\.MyReward"):
        unwrap(RewardSuite.__init__)(
            object.__new__(RewardSuite), {"a": FormatReward, "b": 1.0, "c": FormatReward(), "d": None}
        )


def test_a_group_is_one_prompt(group, make_clip, make_rollout):
    suite = RewardSuite({"f": FormatReward()})
    with pytest.raises(ValueError, match=r"completions of one prompt; found 0 rollouts"):
        suite.score([[]])
    with pytest.raises(ValueError, match=r"found 4 rollouts of clips \['clip-7', 'other'\]"):
        suite.score([[*group, make_rollout(make_clip(clip_id="other"), [0])]])


value = st.none() | st.floats(-5, 5)


@given(st.lists(st.tuples(value, value), min_size=3, max_size=3), st.floats(-3, 3), st.floats(-3, 3))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_totals_are_linear_in_the_weights(group, columns, weight_a, weight_b):
    a, b = ([pair[side] for pair in columns] for side in (0, 1))
    (output,) = RewardSuite({"a": Fixed(a, weight=weight_a), "b": Fixed(b, weight=weight_b)}).score([group])
    assert output.totals == pytest.approx([weight_a * (x or 0) + weight_b * (y or 0) for x, y in columns])
