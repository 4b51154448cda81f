import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from metrics.packed import common_window, count, edges, grown, pack


def unpacked(bits, width):
    return np.unpackbits(bits.view(np.uint8), axis=-1, bitorder="little", count=width).astype(bool)


@pytest.mark.parametrize("width", [1, 7, 8, 9, 63, 64, 65, 128, 200])
def test_packing_loses_nothing(width):
    masks = np.random.default_rng(width).random((2, 3, width)) < 0.5
    bits = pack(masks)
    assert bits.shape == (2, 3, -(-width // 64))
    assert np.array_equal(unpacked(bits, width), masks)
    assert count(bits) == masks.sum()


def test_every_value_but_0_is_foreground():
    assert count(pack(np.array([[0, 1, 2, 255]], np.uint8))) == 3


@pytest.mark.parametrize("radius", range(20))
@pytest.mark.parametrize("column", [0, 1, 63, 64, 65, 139])
def test_a_pixel_grows_into_a_disk_that_the_borders_cut(radius, column):
    """A pixel on each side of a word's border and of the image's: every other within the radius, and no more."""
    mask = np.zeros((40, 140), bool)
    mask[5, column] = True
    rows, columns = np.mgrid[:40, :140]
    expected = (rows - 5) ** 2 + (columns - column) ** 2 <= radius**2
    assert np.array_equal(unpacked(grown(pack(mask), radius), 140), expected)


def test_a_radius_beyond_a_word_covers_everything():
    mask = np.zeros((3, 200), bool)
    mask[1, 100] = True
    assert unpacked(grown(pack(mask), 150), 200).all()


@settings(deadline=None)
@given(hnp.arrays(bool, st.tuples(st.integers(1, 6), st.integers(1, 70))))
def test_edges_are_differences_to_three_neighbors(mask):
    """Beyond the image the last row and column repeat, so nothing differs from them."""
    padded = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    expected = (mask != padded[:-1, 1:]) | (mask != padded[1:, :-1]) | (mask != padded[1:, 1:])
    assert np.array_equal(unpacked(edges(pack(mask), mask.shape[1]), mask.shape[1]), expected)


def test_the_window_holds_both_masks():
    one, other = np.zeros((2, 10, 300), bool)
    one[3, 70], other[7, 130] = True, True
    assert common_window(pack(one), pack(other)) == (slice(3, 8), slice(1, 3))
    assert common_window(pack(one[:2]), pack(other[:2])) == (slice(0, 0), slice(0, 0))
