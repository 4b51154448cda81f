from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards.boxes import box_iou, matched_iou


def boxes(*rows):
    return np.array(rows, np.float32).reshape(-1, 4)


def test_iou_of_half_overlapping_squares():
    """4x4 and 4x4 shifted by 2: shared 2*4 = 8, covered 16 + 16 - 8 = 24."""
    assert box_iou(boxes([0, 0, 4, 4]), boxes([2, 0, 6, 4])) == pytest.approx(8 / 24)


def test_the_left_and_top_edge_count_like_any_other_place():
    assert box_iou(boxes([0, 0, 4, 4]), boxes([0, 0, 4, 4])) == 1
    assert box_iou(boxes([0, 0, 4, 4]), boxes([0, 0, 4, 2])) == pytest.approx(
        box_iou(boxes([3, 3, 7, 7]), boxes([3, 3, 7, 5]))
    )


@pytest.mark.parametrize("degenerate", [[1, 1, 1, 3], [3, 3, 1, 1], [0, 0, 0, 0]])
def test_empty_and_inverted_boxes_have_no_overlap(degenerate):
    assert box_iou(boxes(degenerate), boxes([0, 0, 4, 4])) == 0
    assert box_iou(boxes(degenerate), boxes(degenerate)) == 0


def test_touching_boxes_do_not_overlap():
    assert box_iou(boxes([0, 0, 2, 2]), boxes([2, 0, 4, 2])) == 0


def test_shapes_without_boxes():
    assert box_iou(boxes(), boxes([0, 0, 1, 1])).shape == (0, 1)
    assert matched_iou(boxes(), boxes([0, 0, 1, 1])).tolist() == [0.0]
    assert matched_iou(boxes([0, 0, 1, 1]), boxes()).shape == (0,)


def test_matching_is_one_to_one():
    """One box on two equal targets serves only one of them."""
    assert sorted(matched_iou(boxes([0, 0, 4, 4]), boxes([0, 0, 4, 4], [0, 0, 4, 4]))) == [0.0, 1.0]


def test_matching_maximizes_the_sum_not_the_first_choice():
    """Box a overlaps both targets, b only the first.

    Greedy gives a its better target 0 (IoU 3/5) and leaves b with nothing in common with target 1: 0.6 in all. The
    best sum gives b target 0 (2/4) and a target 1 (1/7): 0.64.
    """
    target = boxes([0, 0, 4, 1], [4, 0, 8, 1])
    predicted = boxes([1, 0, 5, 1], [0, 0, 2, 1])
    assert matched_iou(predicted, target) == pytest.approx([2 / 4, 1 / 7])
    assert matched_iou(predicted[:1], target) == pytest.approx([3 / 5, 0])


coordinate = st.integers(0, 12)
some_boxes = st.lists(st.tuples(coordinate, coordinate, coordinate, coordinate), min_size=1, max_size=4)


@settings(deadline=None)
@given(some_boxes, some_boxes)
def test_matching_equals_the_best_of_all_assignments(predicted, target):
    iou = box_iou(boxes(*predicted), boxes(*target))
    assert ((iou >= 0) & (iou <= 1)).all()
    wide = iou if len(iou) >= len(iou[0]) else iou.T
    best = max(
        sum(wide[row, column] for column, row in enumerate(rows))
        for rows in permutations(range(len(wide)), len(wide[0]))
    )
    assert matched_iou(boxes(*predicted), boxes(*target)).sum() == pytest.approx(best)


@settings(deadline=None)
@given(some_boxes)
def test_iou_is_symmetric(items):
    iou = box_iou(boxes(*items), boxes(*items))
    assert (iou == iou.T).all()
