import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules.records import FrameGrounding, Grounding
from models.sam2_prompts import associate, box_similarity

SIZE = (100, 200)


def found(frame: int, *boxes: tuple[float, ...], masks: np.ndarray | None = None) -> FrameGrounding:
    return FrameGrounding(
        frame, np.array(boxes, dtype=np.float32).reshape(-1, 4), np.ones(len(boxes), dtype=np.float32), masks
    )


def prompted(*keyframes: FrameGrounding) -> list[list[tuple[int, tuple[float, ...]]]]:
    return [[(prompt.frame, prompt.box) for prompt in prompts] for prompts in associate(Grounding(keyframes), SIZE)]


LEFT, RIGHT = (10, 10, 30, 30), (150, 60, 180, 90)
NEAR_LEFT, NEAR_RIGHT = (20, 15, 40, 35), (140, 50, 170, 80)


def test_distance_iou_of_two_overlapping_boxes():
    """(0, 0, 2, 2) and (1, 0, 3, 2): IoU 2 / 6; centers 1 apart; the box around both is 3 x 2, diagonal squared 13."""
    assert box_similarity(np.array([[0.0, 0, 2, 2]]), np.array([[1.0, 0, 3, 2]]))[0, 0] == pytest.approx(1 / 3 - 1 / 13)


def test_similarity_orders_boxes_that_do_not_touch_by_distance():
    here = np.array([[0.0, 0, 1, 1]])
    near, far = np.array([[2.0, 0, 3, 1]]), np.array([[5.0, 0, 6, 1]])
    assert -1 < box_similarity(here, far)[0, 0] < box_similarity(here, near)[0, 0] < 0


def test_nothing_to_prompt_gives_no_object():
    assert associate(Grounding(()), SIZE) == ()
    assert associate(Grounding((found(3), found(5))), SIZE) == ()


def test_single_boxes_all_prompt_one_object_however_far_apart():
    assert prompted(found(4, LEFT), found(1, RIGHT)) == [[(1, RIGHT), (4, LEFT)]]


def test_keyframes_without_boxes_are_skipped():
    assert prompted(found(0), found(2, LEFT), found(3)) == [[(2, LEFT)]]


def test_several_boxes_of_one_keyframe_are_several_objects_in_their_order():
    assert prompted(found(2, RIGHT, LEFT)) == [[(2, RIGHT)], [(2, LEFT)]]


def test_boxes_go_to_the_object_that_they_overlap():
    """Both keyframes list two boxes in opposite order; the earlier keyframe names the objects."""
    assert prompted(found(5, NEAR_RIGHT, NEAR_LEFT), found(2, LEFT, RIGHT)) == [
        [(2, LEFT), (5, NEAR_LEFT)],
        [(2, RIGHT), (5, NEAR_RIGHT)],
    ]


def test_a_lone_box_prompts_the_nearest_of_several_objects():
    assert prompted(found(0, NEAR_RIGHT), found(6, LEFT, RIGHT)) == [[(6, LEFT)], [(0, NEAR_RIGHT), (6, RIGHT)]]


def test_two_boxes_never_prompt_the_same_object():
    """Both boxes of frame 1 are nearest to LEFT; the farther one goes to the object that is left over."""
    other = (40, 30, 60, 50)
    assert prompted(found(0, LEFT, RIGHT), found(1, NEAR_LEFT, other)) == [
        [(0, LEFT), (1, NEAR_LEFT)],
        [(0, RIGHT), (1, other)],
    ]


def test_objects_are_compared_where_they_were_last_seen():
    """Two objects swap sides in small steps; compared with frame 0 alone, frame 2 would be assigned the wrong way."""
    a = [(0, 0, 40, 40), (50, 0, 90, 40), (100, 0, 140, 40)]
    b = [(100, 50, 140, 90), (50, 50, 90, 90), (0, 50, 40, 90)]
    keyframes = [found(frame, *((a[frame], b[frame]) if frame != 1 else (b[1], a[1]))) for frame in range(3)]
    assert prompted(*keyframes) == [list(enumerate(a)), list(enumerate(b))]


def test_boxes_are_clipped_and_useless_ones_dropped():
    """Over the right edge: clipped. Outside, without width, inverted and NaN: dropped."""
    nan = float("nan")
    useless = [(210, 10, 240, 30), (50, 10, 50, 30), (60, 60, 40, 80), (nan, 0, 10, 10)]
    assert prompted(found(0, *useless, (190, 80, 230, 130))) == [[(0, (190, 80, 200, 100))]]


def test_a_frame_named_twice_counts_once():
    assert prompted(found(2, LEFT), found(2, RIGHT)) == [[(2, LEFT)]]
    assert prompted(found(2), found(2, RIGHT)) == [[(2, RIGHT)]]


def test_masks_travel_with_their_boxes_and_empty_ones_are_dropped():
    masks = np.zeros((2, *SIZE), dtype=bool)
    masks[1, 60:90, 150:180] = True
    ((prompt,),) = associate(Grounding((found(3, LEFT, RIGHT, masks=masks),)), SIZE)
    assert prompt.box == RIGHT
    assert np.array_equal(prompt.mask, masks[1])


def test_keys_tell_prompts_apart():
    masks = np.zeros((1, *SIZE), dtype=bool)
    masks[0, 10:30, 10:30] = True
    ((by_box,),) = associate(Grounding((found(3, LEFT),)), SIZE)
    ((again,),) = associate(Grounding((found(3, LEFT),)), SIZE)
    ((later,),) = associate(Grounding((found(4, LEFT),)), SIZE)
    ((by_mask,),) = associate(Grounding((found(3, LEFT, masks=masks),)), SIZE)
    ((smaller,),) = associate(Grounding((found(3, LEFT, masks=masks & (np.arange(200) < 25)),)), SIZE)
    assert by_box.key == again.key
    assert len({by_box.key, later.key, by_mask.key, smaller.key}) == 4


boxes = st.tuples(*[st.floats(-50, 250, width=32)] * 4)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.lists(boxes, max_size=4)), max_size=5))
def test_every_usable_box_prompts_exactly_one_object_once_per_frame(keyframes):
    objects = associate(Grounding(tuple(found(frame, *listed) for frame, listed in keyframes)), SIZE)
    for prompts in objects:
        frames = [prompt.frame for prompt in prompts]
        assert frames == sorted(set(frames))
    used = [prompt.key for prompts in objects for prompt in prompts]
    usable = {}
    for frame, listed in keyframes:
        inside = np.clip(np.array(listed, dtype=np.float32).reshape(-1, 4), 0, [200, 100, 200, 100])
        kept = [box for box in inside if box[2] > box[0] and box[3] > box[1]]
        if kept:
            usable.setdefault(frame, kept)
    assert len(used) == sum(map(len, usable.values()))
    assert len(objects) == max(map(len, usable.values()), default=0)
