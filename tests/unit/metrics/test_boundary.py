import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from metrics.boundary import boundary_f, match_radius
from metrics.packed import edges, pack


def boundary_map(mask):
    octets = edges(pack(mask), mask.shape[1]).view(np.uint8)
    return np.unpackbits(octets, axis=-1, bitorder="little", count=mask.shape[1]).astype(bool)


def naive_boundary(mask):
    """Differs from the right, lower or lower right neighbor; beyond the image the last row and column repeat."""
    padded = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    return (mask != padded[:-1, 1:]) | (mask != padded[1:, :-1]) | (mask != padded[1:, 1:])


def naive_dilate(edge, radius):
    """The union of all shifts by a vector of at most the radius, zeros from outside."""
    height, width = edge.shape
    padded = np.pad(edge, radius)
    out = np.zeros_like(edge)
    for dy in range(-radius, radius + 1):
        for dx in range(-radius, radius + 1):
            if dy * dy + dx * dx <= radius * radius:
                out |= padded[radius + dy : radius + dy + height, radius + dx : radius + dx + width]
    return out


def naive_f(pred, target):
    """The definition, word by word, on whole images."""
    radius = int(np.ceil(0.008 * np.sqrt(pred.shape[0] ** 2 + pred.shape[1] ** 2)))
    one, other = naive_boundary(pred), naive_boundary(target)
    if one.sum() == 0 or other.sum() == 0:
        return float(one.sum() == other.sum())
    precision = (one & naive_dilate(other, radius)).sum() / one.sum()
    recall = (other & naive_dilate(one, radius)).sum() / other.sum()
    return 0.0 if precision + recall == 0 else 2 * precision * recall / (precision + recall)


def blob(rng, height, width):
    """A random ellipse, sometimes across the border, with a ragged rim."""
    y, x = np.mgrid[:height, :width]
    center, axes = rng.uniform(0, 1, 2) * (height, width), rng.uniform(0.05, 0.5, 2) * (height, width)
    distance = ((y - center[0]) / axes[0]) ** 2 + ((x - center[1]) / axes[1]) ** 2
    return distance + rng.uniform(-0.1, 0.1, (height, width)) < 1


@pytest.mark.parametrize(
    ("height", "width", "radius"),
    [(37, 53, 1), (96, 64, 1), (240, 427, 4), (256, 256, 3), (480, 854, 8), (720, 1280, 12), (1080, 1920, 18)],
)
def test_radius(height, width, radius):
    assert match_radius(height, width) == radius


def test_boundary_of_a_pixel_is_itself_and_its_upper_left_neighbors():
    mask = np.zeros((4, 4), bool)
    mask[2, 2] = True
    assert np.argwhere(boundary_map(mask)).tolist() == [[1, 1], [1, 2], [2, 1], [2, 2]]


def test_boundary_at_the_lower_right_border():
    """A pixel in the corner: the last row looks right only, the last column down only, the corner never."""
    mask = np.zeros((3, 3), bool)
    mask[2, 2] = True
    assert np.argwhere(boundary_map(mask)).tolist() == [[1, 1], [1, 2], [2, 1]]


def test_f_by_hand():
    """Radius 1. One pixel at (5, 5) against one at (5, 8): boundaries are the 2x2 blocks at columns 4-5 and 7-8.

    Columns 5 and 7 are two apart, so nothing matches: 0. Against (5, 7), columns 6-7: column 5 matches 6, so half of
    either side: P = R = 1/2.
    """
    pixel = np.zeros((1, 20, 20), bool)
    near, far = pixel.copy(), pixel.copy()
    pixel[0, 5, 5] = near[0, 5, 7] = far[0, 5, 8] = True
    assert boundary_f(pixel, far).tolist() == [0.0]
    assert boundary_f(pixel, near).tolist() == [0.5]
    assert boundary_f(pixel, pixel).tolist() == [1.0]


def test_empty_and_full_masks():
    """No boundary on either side gives 1, also for a full mask against an empty one; on one side only, 0."""
    empty, full, part = np.zeros((1, 9, 9), bool), np.ones((1, 9, 9), bool), np.zeros((1, 9, 9), bool)
    part[0, 3:6, 3:6] = True
    assert [boundary_f(a, b)[0] for a in (empty, full) for b in (empty, full)] == [1, 1, 1, 1]
    assert [boundary_f(a, b)[0] for a, b in ((part, empty), (empty, part), (part, full), (full, part))] == [0] * 4


def test_every_non_zero_value_is_foreground_in_arrays_and_tensors():
    part = torch.zeros(1, 9, 9, dtype=torch.uint8)
    part[0, 3:6, 3:6] = 255
    scores = boundary_f(part, part.numpy() > 0)
    assert scores.tolist() == [1.0]
    assert scores.dtype == np.float64


def test_other_shapes_are_an_error():
    with pytest.raises(
        ValueError, match=r"one shape \(frames, height, width\), found pred \(4, 4\), target \(1, 4, 4\)"
    ):
        boundary_f(np.zeros((4, 4), bool), np.zeros((1, 4, 4), bool))


@pytest.mark.parametrize("size", [(37, 53), (96, 64), (1, 1), (1, 40), (40, 1), (128, 128), (480, 854)])
def test_equals_the_definition_on_blobs(size):
    rng = np.random.default_rng(sum(size))
    pairs = 3 if size == (480, 854) else 12
    pred, target = (np.stack([blob(rng, *size) for _ in range(pairs)]) for _ in range(2))
    target[1] = np.roll(pred[1], 2, axis=1)
    expected = [naive_f(one, other) for one, other in zip(pred, target, strict=True)]
    np.testing.assert_allclose(boundary_f(pred, target), expected, rtol=0, atol=1e-9)


def test_equals_the_definition_on_noise_at_radius_3():
    rng = np.random.default_rng(0)
    pred, target = (rng.random((4, 256, 256)) < density for density in (0.001, 0.0005))
    expected = [naive_f(one, other) for one, other in zip(pred, target, strict=True)]
    np.testing.assert_allclose(boundary_f(pred, target), expected, rtol=0, atol=1e-9)


some_masks = hnp.arrays(bool, st.just((2, 12, 15)), elements=st.sampled_from([False, False, False, True]))


@settings(deadline=None, max_examples=50)
@given(some_masks, some_masks)
def test_equals_the_definition_is_symmetric_and_in_range(pred, target):
    scores = boundary_f(pred, target)
    expected = [naive_f(one, other) for one, other in zip(pred, target, strict=True)]
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-9)
    np.testing.assert_allclose(boundary_f(target, pred), scores, rtol=0, atol=1e-12)
    assert ((scores >= 0) & (scores <= 1)).all()
    assert (boundary_f(pred, pred) == 1).all()
