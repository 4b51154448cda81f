import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from metrics.region import region_j

some_masks = hnp.arrays(bool, st.just((2, 5, 7)))


def test_by_hand():
    """2x2 and 2x2 shifted by one column: 2 shared, 6 covered."""
    pred, target = np.zeros((2, 1, 4, 4), bool)
    pred[0, :2, :2] = target[0, :2, 1:3] = True
    assert region_j(pred, target).tolist() == [2 / 6]


def test_empty_frames():
    """Both empty 1, exactly one empty 0."""
    pred, target = np.zeros((3, 4, 4), bool), np.zeros((3, 4, 4), bool)
    pred[1, 0, 0] = target[2, 3, 3] = True
    assert region_j(pred, target).tolist() == [1, 0, 0]


def test_every_non_zero_value_is_foreground_in_arrays_and_tensors():
    values = np.array([[[0, 1, 255, 2]]], np.uint8)
    truth = torch.tensor([[[False, True, True, True]]])
    scores = region_j(values, truth)
    assert scores.tolist() == [1.0]
    assert scores.dtype == np.float64


def test_no_frames_no_scores():
    assert region_j(np.zeros((0, 4, 4), bool), np.zeros((0, 4, 4), bool)).shape == (0,)


@pytest.mark.parametrize("shape", [(1, 4, 5), (4, 4), (2, 4, 4)])
def test_other_shapes_are_an_error(shape):
    with pytest.raises(ValueError, match=r"one shape \(frames, height, width\), found pred \(1, 4, 4\), target"):
        region_j(np.zeros((1, 4, 4), bool), np.zeros(shape, bool))


@settings(deadline=None)
@given(some_masks, some_masks)
def test_equals_counting_pixels_is_symmetric_and_in_range(pred, target):
    scores = region_j(pred, target)
    for score, one, other in zip(scores, pred, target, strict=True):
        pixels = list(zip(one.flat, other.flat, strict=True))
        covered = sum(a or b for a, b in pixels)
        assert score == pytest.approx(sum(a and b for a, b in pixels) / covered if covered else 1, abs=1e-12)
    assert (region_j(target, pred) == scores).all()
    assert ((scores >= 0) & (scores <= 1)).all()
    assert (region_j(pred, pred) == 1).all()
