from dataclasses import replace

import numpy as np
import pytest

from datamodules.errors import ConfigError
from rewards.alignment import AlignmentReward

CORNER, SMALL, FAR = [0, 0, 4, 4], [4, 4, 6, 6], [6, 0, 8, 2]


@pytest.fixture
def score(make_clip, make_rollout, two_squares):
    clip = make_clip(two_squares)

    def run(picks, boxes, **settings):
        return AlignmentReward(**settings)([make_rollout(clip, picks, boxes=boxes)])[0]

    return run


def test_needs_boxes_only():
    assert AlignmentReward.needs == {"boxes"}


def test_a_perfect_box_at_the_left_edge_earns_one(score):
    assert score([0], [[CORNER]]) == 1


def test_matched_boxes_in_any_order(score):
    assert score([1], [[SMALL, CORNER]]) == 1


def test_missing_boxes_count_zero(score):
    assert score([1], [[CORNER]]) == 0.5
    assert score([0], [[]]) == 0


def test_mean_over_picks(score):
    """Frame 0: 2x4 of the 4x4 square, IoU 8 / 16. Frame 1: both found."""
    assert score([0, 1], [[[0, 0, 2, 4]], [CORNER, SMALL]]) == pytest.approx((0.5 + 1) / 2)


def test_extra_boxes_cost_a_share_of_a_missed_object(score):
    """One target, two boxes: 1 / (1 + 0.5); at cost 1 as bad as a missed object; at cost 0 ignored."""
    assert score([0], [[CORNER, FAR]]) == pytest.approx(1 / 1.5)
    assert score([0], [[CORNER, FAR]], extra_box_cost=1.0) == 0.5
    assert score([0], [[CORNER, FAR]], extra_box_cost=0.0) == 1


def test_extra_boxes_do_not_hide_the_rest(score):
    """With five extra boxes a better box still earns more, and the score stays positive."""
    worse, better = (score([0], [[box] + [FAR] * 5]) for box in ([0, 0, 2, 4], CORNER))
    assert 0 < worse < better < score([0], [[CORNER]])


def test_invisible_picks_earn_nothing_or_are_left_out(score):
    boxes = [[CORNER], [FAR]]
    assert score([0, 2], boxes) == 0.5
    assert score([0, 2], boxes, invisible_picks="skip") == 1
    assert score([2], [[]]) == 0
    assert score([2], [[]], invisible_picks="skip") == 0


def test_absent_and_unparsable_plans_earn_nothing(make_clip, make_rollout, two_squares):
    clip = make_clip(two_squares)
    assert AlignmentReward()([make_rollout(clip, "absent"), make_rollout(clip, "unparsable")]) == [0.0, 0.0]


@pytest.mark.parametrize("is_null", [True, False])
def test_clips_without_a_visible_target_are_not_applicable(is_null, make_clip, make_rollout):
    clip = make_clip(np.zeros((3, 1, 8, 8), bool), is_null=is_null)
    assert AlignmentReward()([make_rollout(clip, [0], boxes=[[CORNER]])]) == [None]


def test_unfilled_boxes_are_an_error(make_clip, make_rollout, two_squares):
    with pytest.raises(ValueError, match=r"rollout 7 of clip c has no boxes.*needs = \{'boxes'\}"):
        AlignmentReward()([make_rollout(make_clip(two_squares), [0], index=7)])


def test_boxes_of_other_frames_are_an_error(make_clip, make_rollout, two_squares):
    clip = make_clip(two_squares)
    donor = make_rollout(clip, [1], boxes=[[CORNER]])
    rollout = replace(make_rollout(clip, [0]), grounding=donor.grounding)
    with pytest.raises(ValueError, match=r"has boxes for frames \[1\]; expected its keyframes \[0\]"):
        AlignmentReward()([rollout])


def test_a_negative_cost_names_its_flag():
    with pytest.raises(ConfigError, match=r"--rewards\.<name>\.extra_box_cost"):
        AlignmentReward(extra_box_cost=-0.5)
