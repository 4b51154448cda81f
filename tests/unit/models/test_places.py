import numpy as np
import pytest
from small_models import noisy_clip

from datamodules.lessons import place
from models.grounder import GroundingRequest
from models.places import PlacesGrounder, parse_places


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("12 30 55 70, 60 10 80 30", [(12, 30, 55, 70), (60, 10, 80, 30)]),
        ("at 0 0 999 100", [(0, 0, 100, 100)]),
        ("55 30 12 70", []),
        ("5 5 5 9", []),
        ("the red circle", []),
        ("1 2 3", []),
        ("1234 5 6 7", []),
    ],
)
def test_places_are_read_and_anything_else_is_nothing(text, places):
    assert parse_places(text) == places


def test_a_written_place_comes_back_as_the_box_it_was():
    """8..24 of 56 pixels is 14 to 43 percent; a percent is half a pixel."""
    clip = noisy_clip()
    assert place(clip, 1) == "14 14 43 43"
    found, none = PlacesGrounder().ground(clip, [GroundingRequest(1, place(clip, 1)), GroundingRequest(2, "a star")])
    assert found.boxes.tolist() == [pytest.approx([8, 8, 24, 24], abs=0.5)]
    assert none.boxes.shape == (0, 4)
    assert found.boxes.dtype == np.float32
