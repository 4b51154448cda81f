"""Terms that judge the answer as a whole: format, null, length."""

import pytest

from datamodules.errors import ConfigError
from rewards.format import FormatReward
from rewards.length import LengthReward
from rewards.null import NullReward


@pytest.mark.parametrize("is_null", [True, False])
def test_format_follows_the_parse_report(is_null, make_clip, make_rollout):
    clip = make_clip(is_null=is_null)
    rollouts = [
        make_rollout(clip, [0], is_well_formed=True),
        make_rollout(clip, [0], is_well_formed=False),
        make_rollout(clip, "absent", is_well_formed=True),
    ]
    assert FormatReward()(rollouts) == [1.0, 0.0, 1.0]


@pytest.mark.parametrize(
    ("is_null", "expected"), [(True, [1.0, -1.0, -1.0]), (False, [-1.0, None, None])], ids=["absent", "present"]
)
def test_null_reward(is_null, expected, make_clip, make_rollout):
    clip = make_clip(is_null=is_null)
    assert NullReward()([make_rollout(clip, picks) for picks in ("absent", [0], "unparsable")]) == expected


@pytest.fixture
def lengths(make_clip, make_rollout):
    clip = make_clip()
    return [make_rollout(clip, [0], tokens=tokens) for tokens in (319, 320, 750, 751)]


def test_length_pays_inside_the_range_when_the_group_can_do_the_task(lengths):
    assert LengthReward()(lengths, [0.5] * 4) == [0.0, 1.0, 1.0, 0.0]


def test_length_needs_two_passing_rollouts_and_only_pays_those(lengths):
    """0.1 does not exceed 0.1: only the second and third pass, then only the second."""
    assert LengthReward()(lengths, [0.1, 0.2, 0.11, 0.1]) == [0.0, 1.0, 1.0, 0.0]
    assert LengthReward()(lengths, [0.9, 0.2, 0.1, 0.0]) == [0.0, 1.0, 0.0, 0.0]
    assert LengthReward()(lengths, [0.1, 0.2, 0.1, 0.1]) == [0.0, 0.0, 0.0, 0.0]
    assert LengthReward(min_passing=1)(lengths, [0.1, 0.2, 0.1, 0.1]) == [0.0, 1.0, 0.0, 0.0]


def test_length_pays_nothing_when_nothing_is_known_to_be_earned(lengths):
    assert LengthReward()(lengths) == [0.0] * 4


def test_length_and_format_are_not_part_of_the_task_reward():
    assert not LengthReward.judges_answer
    assert not FormatReward.judges_answer
    assert NullReward.judges_answer


def test_an_empty_range_names_its_flag():
    with pytest.raises(
        ConfigError, match=r"min_tokens is 10; expected 0 to max_tokens \(9\).*--rewards\.<name>\.min_tokens"
    ):
        LengthReward(min_tokens=10, max_tokens=9)
    with pytest.raises(ConfigError, match=r"min_passing is 0; expected at least 1 rollout"):
        LengthReward(min_passing=0)


@pytest.mark.parametrize("weight", [float("nan"), float("inf")])
def test_a_weight_must_be_finite(weight):
    with pytest.raises(ConfigError, match=r"weight of FormatReward is .*finite number.*--rewards\.<name>\.weight"):
        FormatReward(weight=weight)
