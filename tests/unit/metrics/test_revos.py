import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from metrics.revos import revos_a, revos_r


def naive_r(pred, target, foreground, scale):
    """The formula in Python's whole numbers, wrapped to 8 bits after every operation."""
    wrong = sum((((1 - int(g)) % 256) * (scale if p else 0)) % 256 for p, g in zip(pred.flat, target.flat, strict=True))
    return max(1 - wrong / (int((foreground != 0).sum()) + 1e-6), 0)


def row(*values):
    return np.array([[values]], np.uint8)


def test_a_false_positive_weighs_255():
    """One false positive on 510 annotated pixels: 1 - 255/510 as stored, 1 - 1/510 as a mask."""
    pred, target, annotated = np.zeros((3, 1, 1, 510), np.uint8)
    pred[..., 0], annotated[...] = 1, 1
    assert revos_r(pred, target, annotated) == pytest.approx([0.5], abs=1e-8)
    assert revos_r(pred, target, annotated, scale=1) == pytest.approx([1 - 1 / 510], abs=1e-8)


def test_true_positives_cost_nothing_and_misses_neither():
    assert revos_r(row(1, 0), row(1, 1), row(1, 1)).tolist() == [1.0]


def test_overlapping_instances_wrap_around():
    """Two instances on a predicted pixel: 1 - 2 wraps to 255, times 255 wraps to 1; times 1 it stays 255.

    1000 annotated pixels: 1 - 1/1000 as stored and 1 - 255/1000 as a mask. As booleans the truth cannot overlap.
    """
    pred, target, annotated = np.zeros((3, 1, 1, 1000), np.uint8)
    pred[..., 0], target[..., 0], annotated[...] = 1, 2, 1
    assert revos_r(pred, target, annotated) == pytest.approx([0.999], abs=1e-8)
    assert revos_r(pred, target, annotated, scale=1) == pytest.approx([0.745], abs=1e-8)
    assert revos_r(pred, target.astype(bool), annotated) == pytest.approx([1.0])


def test_without_foreground():
    assert revos_r(row(0, 0), row(0, 0), row(0, 0)).tolist() == [1.0]
    assert revos_r(row(1, 0), row(0, 0), row(0, 0), scale=1).tolist() == [0.0]


def test_accuracy_compares_stored_values():
    """Right background, right foreground, false positive, miss, double instance: 255 equals no count."""
    pred, target = row(0, 1, 1, 0, 1), row(0, 1, 0, 1, 2)
    assert revos_a(pred, target).tolist() == [1 / 5]
    assert revos_a(pred, target, scale=1).tolist() == [2 / 5]


def test_other_shapes_are_an_error():
    with pytest.raises(ValueError, match=r"found pred \(1, 1, 2\), target \(1, 1, 2\), foreground \(1, 1, 3\)"):
        revos_r(row(0, 0), row(0, 0), row(0, 0, 0))
    with pytest.raises(ValueError, match=r"found pred \(1, 1, 2\), target \(1, 1, 3\)"):
        revos_a(row(0, 0), row(0, 0, 0))


pixels = st.just((2, 3, 4))


@settings(deadline=None)
@given(
    hnp.arrays(bool, pixels),
    hnp.arrays(np.uint8, pixels, elements=st.integers(0, 3)),
    hnp.arrays(bool, pixels),
    st.sampled_from([1, 255]),
)
def test_equal_the_definitions(pred, target, foreground, scale):
    expected = [naive_r(*frames, scale) for frames in zip(pred, target, foreground, strict=True)]
    np.testing.assert_allclose(revos_r(pred, target, foreground, scale=scale), expected, rtol=0, atol=1e-9)
    equal = [
        np.mean([int(p) * scale == int(g) for p, g in zip(one.flat, other.flat, strict=True)])
        for one, other in zip(pred, target, strict=True)
    ]
    np.testing.assert_allclose(revos_a(pred, target, scale=scale), equal, rtol=0, atol=1e-9)


@pytest.mark.parametrize("size", [(37, 53), (480, 854)])
def test_robustness_at_real_sizes(size):
    """Counted by classes of pixels: false positives weigh the scale, doubles under a prediction 1 or 255."""
    rng = np.random.default_rng(size[0])
    pred, foreground = rng.random((1, *size)) < 0.001, rng.random((1, *size)) < 0.5
    target = rng.integers(0, 3, (1, *size), dtype=np.uint8)
    false, double = (pred & (target == 0)).sum(), (pred & (target == 2)).sum()
    area = foreground.sum() + 1e-6
    official, binary = 1 - (255 * false + double) / area, 1 - (false + 255 * double) / area
    assert revos_r(pred, target, foreground) == pytest.approx([official], abs=1e-9)
    assert revos_r(pred, target, foreground, scale=1) == pytest.approx([binary], abs=1e-9)
