from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.sam2_memory import MemoryRules, frame_at_wave, memory_layout

RULES = MemoryRules(
    spatial=4, stride=1, most_prompted=-1, pointers=16, only_past_pointers=True, has_signed_offsets=True
)


def test_on_the_way_out_the_prompt_and_the_last_frames_are_remembered():
    """Frame 7, prompted on 2, 3..6 visited: spatial memories reach 3 frames back, pointers all the way."""
    layout = memory_layout(7, [2], {3, 4, 5, 6}, RULES, clip_frames=10, is_way_back=False)
    assert layout.spatial == ((2, 3), (4, 2), (5, 1), (6, 0))
    assert layout.pointers == ((2, 5), (6, 1), (5, 2), (4, 3), (3, 4))
    assert layout.counts == (4, 5)


def test_the_first_frame_after_the_prompt_has_nothing_else_to_look_at():
    layout = memory_layout(3, [2], set(), RULES, clip_frames=10, is_way_back=False)
    assert layout.spatial == ((2, 3),)
    assert layout.pointers == ((2, 1),)


def test_on_the_way_back_frames_beyond_the_prompt_are_remembered_too():
    """Frame 1, prompted on 3: 2 is right behind, then comes the prompted frame itself, then 4 from the way out."""
    layout = memory_layout(1, [3], {2, 4, 5, 6}, RULES, clip_frames=7, is_way_back=True)
    assert layout.spatial == ((3, 3), (4, 2), (2, 0))
    assert layout.pointers == ((3, 2), (2, 1), (4, 3), (5, 4), (6, 5))


def test_prompts_ahead_are_seen_but_not_pointed_to():
    """Frame 4 between prompts on 2 and 6: both are spatial memories, only the one behind has a pointer."""
    layout = memory_layout(4, [2, 6], {3}, RULES, clip_frames=10, is_way_back=False)
    assert layout.spatial == ((2, 3), (6, 3), (3, 0))
    assert layout.pointers == ((2, 2), (3, 1))


@pytest.mark.parametrize(("is_signed", "offset"), [(True, -2), (False, 2)])
def test_prompts_ahead_can_be_pointed_to(is_signed, offset):
    rules = replace(RULES, only_past_pointers=False, has_signed_offsets=is_signed)
    layout = memory_layout(4, [2, 6], {3}, rules, clip_frames=10, is_way_back=False)
    assert layout.pointers == ((2, 2), (6, offset), (3, 1))


def test_only_the_nearest_prompts_count_and_others_are_ordinary_memories():
    """Two of three prompts: the nearest before (5) and after (9) frame 6; frame 4 stays as a frame 2 behind."""
    rules = replace(RULES, most_prompted=2)
    layout = memory_layout(6, [4, 5, 9], set(), rules, clip_frames=10, is_way_back=False)
    assert set(layout.spatial) == {(5, 3), (9, 3), (4, 1)}
    assert layout.pointers == ((5, 1), (4, 2))


def test_older_memories_are_taken_at_a_stride():
    """Frame 9 with stride 3: the frame right behind (8), then multiples of 3 from (9 - 2) // 3 * 3 = 6 downward."""
    rules = replace(RULES, stride=3)
    layout = memory_layout(9, [0], set(range(1, 9)), rules, clip_frames=10, is_way_back=False)
    assert layout.spatial == ((0, 3), (3, 2), (6, 1), (8, 0))
    mirrored = memory_layout(0, [9], set(range(1, 9)), rules, clip_frames=10, is_way_back=True)
    assert mirrored.spatial == ((9, 3), (6, 2), (3, 1), (1, 0))


def test_pointers_reach_as_far_as_the_clip_and_the_limit_allow():
    rules = replace(RULES, pointers=3)
    layout = memory_layout(8, [0], set(range(1, 8)), rules, clip_frames=10, is_way_back=False)
    assert layout.pointers == ((0, 8), (7, 1), (6, 2))
    none = memory_layout(8, [0], set(range(1, 8)), replace(RULES, pointers=0), clip_frames=10, is_way_back=False)
    assert none.pointers == ()


@given(st.integers(2, 12).flatmap(lambda frames: st.tuples(st.just(frames), st.integers(0, frames - 1))))
def test_waves_visit_every_other_frame_once_first_out_then_back(case):
    frames, first = case
    visited = [frame_at_wave(first, wave, frames) for wave in range(1, frames)]
    out = [(frame, False) for frame in range(first + 1, frames)]
    back = [(frame, True) for frame in range(first - 1, -1, -1)]
    assert visited == out + back


def test_objects_on_their_way_back_meet_on_the_same_frame():
    """Prompted on 6 and on 3 of 8 frames: after 5 waves both are on their way back, on frame 7 - 5 = 2."""
    assert frame_at_wave(6, 5, 8) == frame_at_wave(3, 5, 8) == (2, True)
