import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco

from datamodules.rle import clean_counts, run_lengths


def encode(mask):
    return coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.05, 0.5, 1.0]))
def test_run_lengths_rebuild_what_the_coco_library_encoded(height, width, seed, share):
    """Runs alternate, background first, down the columns."""
    mask = np.random.default_rng(seed).random((height, width)) < share
    runs = run_lengths(encode(mask))

    rebuilt = np.repeat(np.arange(len(runs)) % 2, runs).reshape(width, height).T
    assert (rebuilt == mask).all()


def test_run_lengths_by_hand():
    """A 5 x 7 mask with rows 1-2 set in columns 2-4: 11 clear, then 2 set and 3 clear in turns, then 12 clear.

    Stored are 11, 2, 3, then differences 0, 0, 0 and 12 - 3 = 9: each a digit counted from the character "0".
    """
    mask = np.zeros((5, 7), bool)
    mask[1:3, 2:5] = True

    assert encode(mask) == b";230009"
    assert run_lengths(b";230009").tolist() == [11, 2, 3, 2, 3, 2, 12]
    assert run_lengths(b"").tolist() == []


def test_a_good_mask_is_kept_as_it_is():
    mask = np.zeros((5, 7), bool)
    mask[1:3, 2:5] = True

    assert clean_counts({"size": [5, 7], "counts": ";230009"}, (5, 7)) == b";230009"
    assert clean_counts({"size": [5, 7], "counts": [11, 2, 3, 2, 3, 2, 12]}, (5, 7)) == b";230009"


def test_nothing_and_a_mask_without_a_pixel_are_none():
    empty = encode(np.zeros((5, 7), bool)).decode()

    assert clean_counts(None, (5, 7)) is None
    assert clean_counts({"size": [5, 7], "counts": empty}, (5, 7)) is None


def test_a_mask_of_another_size_is_brought_to_the_frame():
    mask = np.zeros((4, 4), bool)
    mask[:2, 2:] = True
    counts = clean_counts({"size": [4, 4], "counts": encode(mask).decode()}, (8, 12))

    dense = coco.decode({"size": [8, 12], "counts": counts}).astype(bool)
    assert dense[:4, 6:].all()
    assert dense.sum() == 24


def test_a_pixel_that_is_lost_on_the_way_leaves_no_mask():
    mask = np.zeros((9, 9), bool)
    mask[0, 0] = True

    assert clean_counts({"size": [9, 9], "counts": encode(mask).decode()}, (2, 2)) is None


@pytest.mark.parametrize(
    ("rle", "problem"),
    [
        ({"size": [6, 7], "counts": ";230009"}, "the runs cover 35 pixels of a mask of 6x7"),
        ({"size": [4, 7], "counts": ";230009"}, "the runs cover 35 pixels of a mask of 4x7"),
        ({"size": [5, 7], "counts": ""}, "the runs cover 0 pixels"),
        ({"size": [5, 7], "counts": "zzzz"}, "a character that COCO's code does not use"),
        ({"size": [5, 7], "counts": "P"}, "end within a number"),
        ({"size": [5, 7], "counts": "o" * 30 + "0"}, "longer than any image"),
        ({"size": [5, 7], "counts": [40, -5]}, "expected a mask with size and counts"),
        ({"size": [5], "counts": ";230009"}, "expected a mask with size and counts"),
        ({"size": [5, 7]}, "expected a mask with size and counts"),
        ("mask", "expected a mask with size and counts, found 'mask'"),
    ],
)
def test_damaged_masks_are_refused(rle, problem):
    """The COCO library itself decodes the first into memory that nobody wrote."""
    with pytest.raises(ValueError, match=problem):
        clean_counts(rle, (5, 7))


@given(st.text(alphabet=[chr(code) for code in range(48, 112)], max_size=30))
def test_any_text_is_read_or_refused(text):
    try:
        counts = clean_counts({"size": [5, 7], "counts": text}, (5, 7))
    except ValueError:
        return
    assert counts is None or coco.decode({"size": [5, 7], "counts": counts}).max() == 1
