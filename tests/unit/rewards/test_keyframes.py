"""Keyframe quality: diversity, count, saliency."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules.errors import ConfigError
from models.plan import parse_plan
from rewards.count import CountReward
from rewards.diversity import DiversityReward, spread
from rewards.saliency import SaliencyReward

ALL = [DiversityReward(), CountReward(), SaliencyReward()]


@pytest.mark.parametrize("reward", ALL)
def test_null_clips_are_not_applicable(reward, make_clip, make_rollout, two_squares):
    clip = make_clip(two_squares, is_null=True)
    assert reward([make_rollout(clip, [0, 1]), make_rollout(clip, "absent")]) == [None, None]


@pytest.mark.parametrize("reward", ALL)
def test_absent_and_unparsable_plans_earn_nothing_where_the_target_is_there(
    reward, make_clip, make_rollout, two_squares
):
    clip = make_clip(two_squares)
    assert reward([make_rollout(clip, "absent"), make_rollout(clip, "unparsable", objects=2)]) == [0.0, 0.0]


@pytest.mark.parametrize(
    ("picks", "expected"),
    [
        ([0, 3, 6, 9], 1.0),  # an even share is 10 / 4 = 2.5 frames; every gap is 3
        ([1, 3, 6, 8], (2 / 2.5 + 1 + 2 / 2.5) / 3),
        ([0, 1, 2, 3], 1 / 2.5),
        ([9, 0], 1.0),
        ([4, 5], 1 / 5),
        ([5], 0.0),
        ([], 0.0),
    ],
)
def test_spread(picks, expected):
    assert spread(picks, 10) == pytest.approx(expected)


@settings(deadline=None)
@given(st.sets(st.integers(0, 29)))
def test_spread_stays_in_range_and_ignores_direction_of_time(picks):
    value = spread(sorted(picks), 30)
    assert 0 <= value <= 1
    assert spread([29 - pick for pick in picks], 30) == pytest.approx(value)


def test_diversity_pays_for_distinct_spread_picks_and_charges_repeats(make_clip, make_rollout):
    """Four even picks: 4 * 0.125 + 0.5 * 1. Two picks, one repeat: 2 * 0.125 + 0.5 * (1 / 5) - 0.2."""
    clip = make_clip()
    rollouts = [make_rollout(clip, [0, 3, 6, 9]), make_rollout(clip, [4, 5], repeats=1)]
    assert DiversityReward()(rollouts) == pytest.approx([1.0, 0.25 + 0.1 - 0.2])


def test_diversity_without_spread_is_the_papers_form(make_clip, make_rollout):
    clip = make_clip()
    reward = DiversityReward(distinct_bonus=0.2, spread_bonus=0.0)
    assert reward([make_rollout(clip, [0, 1, 2], repeats=2)]) == pytest.approx([3 * 0.2 - 2 * 0.2])


def test_count_pulls_towards_the_wanted_number(make_clip, make_rollout):
    clip = make_clip()
    rollouts = [make_rollout(clip, list(range(count))) for count in (1, 3, 4, 5, 8, 9)]
    assert CountReward()(rollouts) == pytest.approx([0.25, 0.75, 1, 0.75, 0, 0])


def test_count_sees_moments_that_the_plan_dropped(make_clip, make_rollout):
    """Four keyframes kept of six moments named: 1 - 2 / 4."""
    clip = make_clip()
    assert CountReward()([make_rollout(clip, [0, 3, 6, 9], repeats=1, moments=6)]) == pytest.approx([0.5])


def test_count_is_not_deceived_by_ends_beyond_the_clip(make_clip, make_rollout):
    """Ten segments that begin at 0 to 9 s of ten and never end name the frames 5 to 9, twice each: one too many."""
    clip = make_clip()
    form = '{"start_time": "00:0%d.00", "end_time": "59:00.00", "description": "it"}'
    text = f"<think></think><answer>{', '.join(form % second for second in range(10))}</answer>"
    rollout = replace(make_rollout(clip), plan=parse_plan(text, fps=1.0, frames=10))
    assert [keyframe.frame for keyframe in rollout.plan.keyframes] == [5, 6, 7, 8]
    assert CountReward()([rollout]) == pytest.approx([0.75])


def test_count_does_not_ask_for_more_frames_than_there_are(make_clip, make_rollout):
    clip = make_clip(frames=1)
    assert CountReward()([make_rollout(clip, [0])]) == [1.0]


def test_saliency_is_the_mean_share_of_the_largest_union_area(make_clip, make_rollout, two_squares):
    """Union areas 16, 20, 0, 0: the best frame gives 1, frame 0 gives 0.8, frame 3 nothing."""
    clip = make_clip(two_squares)
    rollouts = [make_rollout(clip, picks) for picks in ([1], [0, 1], [0, 1, 3], [2])]
    assert SaliencyReward()(rollouts) == pytest.approx([1, 0.9, 0.6, 0])


def test_saliency_counts_shared_pixels_once(make_clip, make_rollout):
    """Two objects on the same 2x2 pixels cover 4, not 8: half of the 8 pixels of frame 1."""
    masks = np.zeros((2, 2, 8, 8), bool)
    masks[0, :, :2, :2] = True
    masks[1, 0, :2, :4] = True
    clip = make_clip(masks)
    assert SaliencyReward()([make_rollout(clip, [0])]) == [0.5]


@pytest.mark.parametrize("masks", [None, np.zeros((3, 1, 8, 8), bool), np.zeros((3, 0, 8, 8), bool)])
def test_saliency_does_not_apply_without_a_visible_pixel(masks, make_clip, make_rollout):
    assert SaliencyReward()([make_rollout(make_clip(masks), [0])]) == [None]


@pytest.mark.parametrize(
    ("build", "setting"),
    [
        (lambda: DiversityReward(distinct_bonus=-0.1), "distinct_bonus"),
        (lambda: DiversityReward(repeat_penalty=-0.1), "repeat_penalty"),
        (lambda: DiversityReward(spread_bonus=-0.1), "spread_bonus"),
        (lambda: CountReward(target_count=0), "target_count"),
    ],
)
def test_impossible_settings_name_their_flag(build, setting):
    with pytest.raises(ConfigError, match=rf"rewards\.<name>\.{setting} is .* expected .*--rewards\.<name>\.{setting}"):
        build()
