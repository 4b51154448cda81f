import pickle
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from datamodules.errors import MediaError
from datamodules.media import FolderFrames, fit_size, read_mask, read_mask_track


@pytest.fixture
def gray(tmp_path):
    """Five PNG frames of 12 x 20 pixels with the values 0, 50, 100, 150, 200."""
    files = [tmp_path / f"{index}.png" for index in range(5)]
    for index, path in enumerate(files):
        Image.fromarray(np.full((12, 20, 3), 50 * index, np.uint8)).save(path)
    return files


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 10**6))
def test_a_fitted_size_stays_within_the_budget_and_never_grows(height, width, max_pixels):
    rows, columns = fit_size((height, width), max_pixels)

    assert 1 <= rows <= height
    assert 1 <= columns <= width
    assert rows * columns <= max_pixels


def test_a_fitted_size_keeps_the_shape():
    """720 x 1280 at 100,352 pixels: the scale is sqrt(100352 / 921600) = 0.32998, so 237.6 x 422.4, rounded down."""
    assert fit_size((720, 1280), 100_352) == (237, 422)
    assert fit_size((224, 224), 112 * 112) == (112, 112)
    assert fit_size((224, 224), None) == (224, 224)


def test_frames_come_in_the_order_asked(gray):
    frames = FolderFrames(gray, fps=1.0, clip_id="c").read([3, 0, 3])

    assert frames.shape == (3, 12, 20, 3)
    assert frames.dtype == np.uint8
    assert frames[:, 0, 0, 0].tolist() == [150, 0, 150]


def test_no_indices_give_no_frames_of_the_right_shape(gray):
    assert FolderFrames(gray, fps=1.0, clip_id="c").read([], max_pixels=60).shape == (0, 6, 10, 3)


def test_shrinking_averages_over_the_pixels_it_drops(tmp_path):
    """Every second column black: picking pixels would give 0 or 200, averaging gives about 100 everywhere."""
    stripes = np.zeros((8, 64, 3), np.uint8)
    stripes[:, ::2] = 200
    Image.fromarray(stripes).save(tmp_path / "s.png")

    small = FolderFrames([tmp_path / "s.png"], fps=1.0, clip_id="c").read([0], max_pixels=8 * 64 // 16)[0]

    assert small.shape == (2, 16, 3)
    assert np.abs(small[:, 2:-2].astype(int) - 100).max() <= 2


def test_the_size_needs_only_the_header(gray):
    """The first 33 bytes of a PNG are its signature and the chunk that holds the size."""
    gray[0].write_bytes(gray[0].read_bytes()[:45])

    assert FolderFrames(gray, fps=1.0, clip_id="c").size == (12, 20)


def test_palette_and_gray_frames_become_rgb(tmp_path):
    Image.fromarray(np.full((4, 4), 90, np.uint8)).convert("P").save(tmp_path / "p.png")
    Image.fromarray(np.full((4, 4), 90, np.uint8)).save(tmp_path / "l.png")

    frames = FolderFrames([tmp_path / "p.png", tmp_path / "l.png"], fps=1.0, clip_id="c").read([0, 1])

    assert (frames == 90).all()


def test_a_missing_frame_is_named_with_its_clip_and_the_way_out(gray):
    gray[2].unlink()

    with pytest.raises(MediaError, match=r"refavs/x: frame .*2\.png is missing .*--data\.on_bad_sample skip"):
        FolderFrames(gray, fps=1.0, clip_id="refavs/x").read([1, 2])
    with pytest.raises(MediaError, match=r"frame .*2\.png is missing"):
        _ = FolderFrames(gray[2:], fps=1.0, clip_id="refavs/x").size


def test_a_broken_frame_is_named(gray):
    gray[2].write_bytes(gray[2].read_bytes()[:45])

    with pytest.raises(MediaError, match=r"c: frame .*2\.png cannot be decoded"):
        FolderFrames(gray, fps=1.0, clip_id="c").read([2])


def test_a_frame_of_another_size_is_refused(gray):
    Image.fromarray(np.zeros((6, 20, 3), np.uint8)).save(gray[3])

    with pytest.raises(MediaError, match=r"3\.png is 6x20 pixels, the first frame of the clip is 12x20"):
        FolderFrames(gray, fps=1.0, clip_id="c").read([3])


@pytest.mark.parametrize("index", [-1, 5])
def test_frames_outside_the_clip_are_refused(gray, index):
    frames = FolderFrames(gray, fps=1.0, clip_id="c")

    with pytest.raises(IndexError, match=rf"c: frames \[{index}\] were asked for; the clip has frames 0 to 4"):
        frames.read([0, index])
    with pytest.raises(IndexError, match="were asked for"):
        frames.subset([index], fps=1.0)


def test_a_subset_counts_from_its_own_start(gray):
    part = FolderFrames(gray, fps=2.0, clip_id="c").subset([1, 4], fps=0.8)

    assert (part.count, part.fps) == (2, 0.8)
    assert part.read([1])[0, 0, 0, 0] == 200


def test_frames_can_be_pickled_before_and_after_reading(gray):
    frames = FolderFrames(gray, fps=1.0, clip_id="c")
    before = pickle.loads(pickle.dumps(frames))
    frames.read([0])

    assert (before.read([4]) == pickle.loads(pickle.dumps(frames)).read([4])).all()


def test_damaged_images_raise_nothing_but_media_errors(tmp_path):
    """200 files cut off or with bytes changed, JPEG and PNG: each is read, or refused in the project's own terms."""
    rng = random.Random(0)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (24, 32, 3), dtype=np.uint8))
    refused = 0
    for name in ("x.jpg", "x.png"):
        image.save(tmp_path / name)
        whole = (tmp_path / name).read_bytes()
        for trial in range(100):
            data = bytearray(whole[: rng.randrange(len(whole))] if trial % 2 else whole)
            for _ in range(rng.randrange(1, 9) if data else 0):
                data[rng.randrange(len(data))] = rng.randrange(256)
            (tmp_path / name).write_bytes(data)
            try:
                read_mask(tmp_path / name, (24, 32), clip_id="c")
            except MediaError:
                refused += 1

    assert refused > 50


def test_any_color_channel_above_zero_is_foreground(tmp_path):
    """One pixel each: pure blue 1 (gray value 0.1, which rounds to 0), black, opaque black, white."""
    pixels = np.array([[[0, 0, 1, 255], [0, 0, 0, 0], [0, 0, 0, 255], [255, 255, 255, 255]]], np.uint8)
    Image.fromarray(pixels).save(tmp_path / "m.png")

    assert read_mask(tmp_path / "m.png", (1, 4), clip_id="c").tolist() == [[True, False, False, True]]


def test_a_palette_mask_counts_by_its_colors_not_its_indices(tmp_path):
    """Index 0 stands for red, index 1 for black, index 2 for (0, 128, 0)."""
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
    image.putpalette([255, 0, 0, 0, 0, 0, 0, 128, 0])
    image.save(tmp_path / "m.png")

    assert read_mask(tmp_path / "m.png", (1, 3), clip_id="c").tolist() == [[True, False, True]]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_masks_of_ones_and_of_large_values_are_alike(tmp_path, dtype):
    Image.fromarray(np.array([[0, 1, np.iinfo(dtype).max]], dtype)).save(tmp_path / "m.png")

    assert read_mask(tmp_path / "m.png", (1, 3), clip_id="c").tolist() == [[False, True, True]]


def test_one_bit_masks_are_read(tmp_path):
    Image.fromarray(np.array([[True, False]])).save(tmp_path / "m.png")

    assert read_mask(tmp_path / "m.png", (1, 2), clip_id="c").tolist() == [[True, False]]


def test_a_mask_of_another_size_takes_the_nearest_pixel(tmp_path):
    Image.fromarray(np.array([[255, 0], [0, 0]], np.uint8)).save(tmp_path / "m.png")

    mask = read_mask(tmp_path / "m.png", (4, 6), clip_id="c")

    assert mask[:2, :3].all()
    assert mask.sum() == 6


def test_a_track_has_one_object_and_no_mask_where_nothing_is_set(tmp_path):
    for index in range(2):
        Image.fromarray(np.full((3, 3), 255 * index, np.uint8)).save(tmp_path / f"{index}.png")

    track = read_mask_track([tmp_path / "0.png", tmp_path / "1.png"], (3, 3), clip_id="c")

    assert track.areas.tolist() == [[0], [9]]
    assert track.counts[0] == (None,)


def test_a_missing_mask_is_named(tmp_path):
    with pytest.raises(MediaError, match=r"c: mask .*m\.png is missing"):
        read_mask_track([tmp_path / "m.png"], (3, 3), clip_id="c")
