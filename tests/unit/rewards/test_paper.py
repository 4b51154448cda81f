"""The released forms, with numbers worked out by hand."""

import pytest

from datamodules.errors import ConfigError
from rewards.paper import (
    PaperAlignmentReward,
    PaperBaseReward,
    PaperCountReward,
    PaperExtraBoxesReward,
    PaperFirstFrameReward,
    PaperSegmentsReward,
)

CORNER, SMALL, FAR = [0, 0, 4, 4], [4, 4, 6, 6], [6, 0, 8, 2]
ALL = [
    PaperBaseReward(),
    PaperCountReward(),
    PaperSegmentsReward(),
    PaperAlignmentReward(),
    PaperExtraBoxesReward(),
    PaperFirstFrameReward(),
]


@pytest.fixture
def clip(make_clip, two_squares):
    """Four frames at 2 per second, so that a tick is a frame; objects visible: 1, 2, 0, 0 of 2."""
    return make_clip(two_squares, fps=2.0)


@pytest.mark.parametrize("reward", ALL)
def test_null_clips_are_not_applicable(reward, make_clip, make_rollout, two_squares):
    clip = make_clip(two_squares, is_null=True)
    assert reward([make_rollout(clip, [0], boxes=[[CORNER]])]) == [None]


@pytest.mark.parametrize("reward", ALL)
def test_absent_plans_earn_nothing(reward, clip, make_rollout):
    assert reward([make_rollout(clip, "absent")]) == [0.0]


def test_base_of_a_perfect_answer_is_1_6(make_clip, make_rollout, two_squares):
    """Both objects visible on frame 1: 0.2 + 0.2 + 0.2 + 1."""
    clip = make_clip(two_squares[1:2], fps=2.0)
    assert PaperBaseReward()([make_rollout(clip, [0])]) == pytest.approx([1.6])


def test_base_counts_entries_over_segments(clip, make_rollout):
    """Segment 0..0.5 s covers ticks 0 and 1: 3 of 4 entries; segment 1..1.5 s covers 2 and 3: none.

    Three objects in the answer, two of them complete and in the clip: (0.2 * (3 + 2 + 2) + 0.75) / 3.
    """
    rollout = make_rollout(clip, [(0.0, 0.5), (1.0, 1.5)], objects=3)
    assert PaperBaseReward()([rollout]) == pytest.approx([(0.2 * 7 + 0.75) / 3])


def test_base_pays_for_objects_without_a_usable_moment(clip, make_rollout):
    """Two objects, one complete: (0.4 + 0.2) / 2. No object: nothing."""
    rollouts = [make_rollout(clip, "unparsable", objects=2, complete=1, in_clip=0), make_rollout(clip, "unparsable")]
    assert PaperBaseReward()(rollouts) == pytest.approx([0.3, 0.0])


@pytest.mark.parametrize(("ticks", "expected"), [(1, 0.4), (4, 1.6), (5, 0.8), (7, 0.0), (8, -0.4)])
def test_count_rises_to_four_ticks_and_drops_behind(ticks, expected, make_clip, make_rollout, two_squares):
    clip = make_clip(two_squares.repeat(3, axis=0), fps=2.0)
    rollout = make_rollout(clip, [(0.0, (ticks - 1) / 2)])
    assert PaperCountReward()([rollout]) == pytest.approx([expected])


def test_count_takes_shared_ticks_once(clip, make_rollout):
    """Ticks 0, 1 and 1, 2: three distinct."""
    assert PaperCountReward()([make_rollout(clip, [(0.0, 0.5), (0.5, 1.0)])]) == pytest.approx([1.2])


def test_segments_charge_length_overlap_and_repeats(clip, make_rollout):
    """Segments of 2 ticks each: 2 * 0.2 * (1 - 2); tick 1 named again and one dropped repeat: -0.5 * 2."""
    rollout = make_rollout(clip, [(0.0, 0.5), (0.5, 1.0)], repeats=1)
    assert PaperSegmentsReward()([rollout]) == pytest.approx([-0.4 - 1.0])
    assert PaperSegmentsReward()([make_rollout(clip, [0, 3])]) == [0.0]


def test_ticks_end_with_the_clip(clip, make_rollout):
    """1.5 s to far beyond the end: only the last tick, as long as one frame."""
    assert PaperSegmentsReward()([make_rollout(clip, [(1.5, 99.0)])]) == [0.0]


def test_ticks_follow_the_time_base_not_the_frame_rate(make_clip, make_rollout, two_squares):
    """At 1 frame per second, 0..2 s has ticks 0..4 at 2 per second: frames 0, 0, 1, 1, 2.

    Visible entries: 1 + 1 + 2 + 2 + 0 of 10, so the base is 0.6 + 0.6. At one tick per second: 1 + 2 + 0 of 6.
    """
    clip = make_clip(two_squares, fps=1.0)
    assert PaperBaseReward()([make_rollout(clip, [(0.0, 2.0)])]) == pytest.approx([1.2])
    assert PaperBaseReward(ticks_per_s=1.0)([make_rollout(clip, [(0.0, 2.0)])]) == pytest.approx([1.1])


def test_alignment_pools_visible_entries(clip, make_rollout):
    """Frame 0: one entry, IoU 0.5. Frame 1: IoU 1 and a missing box. Frame 2: nothing visible, no entry."""
    rollout = make_rollout(clip, [0, 1, 2], boxes=[[[0, 0, 2, 4]], [CORNER], [FAR]])
    assert PaperAlignmentReward()([rollout]) == pytest.approx([(0.5 + 1 + 0) / 3])
    assert PaperAlignmentReward()([make_rollout(clip, [3], boxes=[[FAR]])]) == [0.0]


def test_extra_boxes_are_those_beyond_the_objects(clip, make_rollout):
    """Two objects: 5 boxes are 3 too many on one of two picks: -0.5 * 3 / 2 / 2; as many boxes as objects are free."""
    rollouts = [
        make_rollout(clip, [0, 1], boxes=[[FAR] * 5, [FAR] * 2]),
        make_rollout(clip, [2], boxes=[[FAR] * 2]),
    ]
    assert PaperExtraBoxesReward()(rollouts) == pytest.approx([-0.375, 0.0])


def test_first_frame_looks_at_the_best_box_of_frame_zero(clip, make_rollout):
    rollouts = [
        make_rollout(clip, [0, 1], boxes=[[[0, 0, 2, 4], CORNER], [CORNER]]),
        make_rollout(clip, [1], boxes=[[CORNER]]),
        make_rollout(clip, [0], boxes=[[]]),
    ]
    assert PaperFirstFrameReward()(rollouts) == [0.5, 0.0, 0.0]


def test_first_frame_takes_the_box_around_all_objects(make_clip, make_rollout, two_squares):
    """Objects at 0..4 and 4..6: the box around both is 6x6."""
    clip = make_clip(two_squares[1:], fps=2.0)
    assert PaperFirstFrameReward()([make_rollout(clip, [0], boxes=[[[0, 0, 6, 6]]])]) == [1.0]


def test_first_frame_without_the_target_earns_nothing(make_clip, make_rollout, two_squares):
    clip = make_clip(two_squares[::-1], fps=2.0)
    assert PaperFirstFrameReward()([make_rollout(clip, [0], boxes=[[CORNER]])]) == [0.0]


def test_impossible_settings_name_their_flag():
    with pytest.raises(ConfigError, match=r"ticks_per_s is 0\.0; expected a number > 0"):
        PaperBaseReward(ticks_per_s=0.0)
    with pytest.raises(ConfigError, match=r"target_count is 0; expected at least 1 tick"):
        PaperCountReward(target_count=0)
