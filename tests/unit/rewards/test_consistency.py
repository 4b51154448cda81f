import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rewards.consistency import ConsistencyReward, mean_iou


def test_needs_masks():
    assert ConsistencyReward.needs == {"masks"}


def test_mean_iou_over_all_frames(make_clip, make_rollout, two_squares):
    """Prediction: the top left 4x4 square on every frame. IoU per frame: 16/16, 16/20, 0 (nothing there), 0."""
    predicted = np.zeros((4, 1, 8, 8), bool)
    predicted[:, :, :4, :4] = True
    rollout = make_rollout(make_clip(two_squares), [0], masks=predicted)
    assert ConsistencyReward()([rollout]) == pytest.approx([(1 + 0.8) / 4])


def test_empty_frames_on_both_sides_count_one(make_clip, make_rollout, two_squares):
    """The truth is empty on frames 2 and 3; a prediction without any mask is right there and wrong on 0 and 1."""
    rollout = make_rollout(make_clip(two_squares), [0], masks=np.zeros((4, 0, 8, 8), bool))
    assert ConsistencyReward()([rollout]) == [0.5]


def test_objects_are_compared_as_their_union(make_clip, make_rollout, two_squares):
    """One predicted object that covers both targets is as good as two."""
    rollout = make_rollout(make_clip(two_squares), [0], masks=two_squares.any(axis=1, keepdims=True))
    assert ConsistencyReward()([rollout]) == [1.0]


def test_plans_without_a_moment_earn_nothing_even_with_empty_frames_right(make_clip, make_rollout, two_squares):
    clip, nothing = make_clip(two_squares), np.zeros((4, 0, 8, 8), bool)
    rollouts = [make_rollout(clip, picks, masks=nothing) for picks in ("absent", "unparsable")]
    assert ConsistencyReward()(rollouts) == [0.0, 0.0]


def test_null_clips_are_not_applicable(make_clip, make_rollout, two_squares):
    clip = make_clip(two_squares, is_null=True)
    assert ConsistencyReward()([make_rollout(clip, [0]), make_rollout(clip, "absent")]) == [None, None]


def test_unfilled_masks_are_an_error(make_clip, make_rollout, two_squares):
    with pytest.raises(ValueError, match=r"rollout 0 of clip c has no masks.*needs = \{'masks'\}"):
        ConsistencyReward()([make_rollout(make_clip(two_squares), [0])])


def test_masks_of_another_size_are_an_error(make_clip, make_rollout, two_squares):
    rollout = make_rollout(make_clip(two_squares), [0], masks=np.ones((4, 1, 8, 9), bool))
    with pytest.raises(ValueError, match=r"\(4, 8, 9\); the ground truth has \(4, 8, 8\)"):
        ConsistencyReward()([rollout])


masks = hnp.arrays(bool, st.just((2, 3, 4)))


@settings(deadline=None)
@given(masks, masks)
def test_mean_iou_equals_counting_pixel_by_pixel(predicted, target):
    values = []
    for one, other in zip(predicted, target, strict=True):
        both = {tuple(pixel) for pixel in np.argwhere(one)} & {tuple(pixel) for pixel in np.argwhere(other)}
        either = {tuple(pixel) for pixel in np.argwhere(one)} | {tuple(pixel) for pixel in np.argwhere(other)}
        values.append(len(both) / len(either) if either else 1.0)
    assert mean_iou(predicted, target) == pytest.approx(sum(values) / 2)
