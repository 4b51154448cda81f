"""Pictures: what is colored, where, and how large."""

import numpy as np
import pytest

from callbacks import drawing

GRAY = np.full((40, 60, 3), 100, dtype=np.uint8)


def test_a_mask_is_tinted_inside_and_solid_at_its_edge() -> None:
    """Inside 55 % of the gray 100 stay and 45 % of the color come on top: 0.55 * 100 + 0.45 * 255 = 169.75 for red."""
    mask = np.zeros((40, 60), dtype=bool)
    mask[10:20, 10:20] = True
    out = drawing.tint(GRAY, mask, drawing.PREDICTED)
    assert out[15, 15].tolist() == [169, 118, 55]
    assert out[10, 10].tolist() == list(drawing.PREDICTED)
    assert (out[~mask] == 100).all()


def test_an_empty_mask_leaves_the_frame_as_it_is() -> None:
    assert (drawing.tint(GRAY, np.zeros((40, 60), dtype=bool), drawing.TRUE) == GRAY).all()


def test_a_half_open_box_is_drawn_on_its_last_pixel() -> None:
    out = drawing.with_boxes(GRAY, np.array([[10.0, 5.0, 20.0, 15.0]]), drawing.TRUE)
    assert out[5, 10].tolist() == out[14, 19].tolist() == list(drawing.TRUE)
    assert out[15, 20].tolist() == [100, 100, 100]
    assert out[10, 15].tolist() == [100, 100, 100], "the inside stays visible"


def test_boxes_beyond_the_frame_are_no_error() -> None:
    assert (
        drawing.with_boxes(GRAY, np.array([[-5.0, -5.0, 90.0, 90.0], [3.0, 3.0, 3.0, 3.0]]), drawing.TRUE).shape
        == GRAY.shape
    )


@pytest.mark.parametrize("above", [False, True])
def test_text_makes_room_for_itself(above: bool) -> None:
    out = drawing.captioned(GRAY, ["a line that is far too long for sixty pixels", ""], above=above)
    assert out.shape == (40 + 2 * 16, 60, 3)
    picture, text = (out[32:], out[:32]) if above else (out[:40], out[40:])
    assert (picture == 100).all()
    assert (text > 120).any(), "something is written"


def test_pictures_of_different_sizes_are_stacked() -> None:
    wide = np.full((10, 30, 3), 7, dtype=np.uint8)
    assert drawing.beside([GRAY, wide], gap=4).shape == (40, 60 + 4 + 30, 3)
    assert drawing.below([GRAY, wide], gap=4).shape == (40 + 4 + 10, 60, 3)
    assert (drawing.below([GRAY, wide], gap=4)[44:, :30] == 7).all()
    assert drawing.beside([]).shape == (16, 16, 3)


def test_the_same_picture_twice_keeps_the_gap() -> None:
    assert drawing.beside([GRAY, GRAY], gap=4).shape[1] == 60 + 4 + 60


def test_scaling_keeps_the_aspect_ratio() -> None:
    assert drawing.fitted(GRAY, 20).shape == (20, 30, 3)


def test_the_time_line_shows_areas_and_picks() -> None:
    """Four frames of 20 px: bars over frames 1 (full height) and 2 (half), frame 3 picked."""
    out = drawing.timeline(np.array([0.0, 100.0, 50.0, 0.0]), [3], width=80, height=72)
    blue = (out == np.array(drawing.TRUE)).all(axis=-1).sum(axis=0)
    assert blue[10] == 0
    assert blue[30] == 63
    assert blue[50] == 32
    assert blue[70] == 0
    assert out[-1, 70].tolist() == list(drawing.PICKED)
    assert out[-1, 10].tolist() != list(drawing.PICKED)


def test_an_absent_target_has_an_empty_time_line() -> None:
    out = drawing.timeline(np.zeros(4), [], width=80)
    assert len(np.unique(out.reshape(-1, 3), axis=0)) == 1
