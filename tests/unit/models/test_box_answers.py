import json

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from transformers import Qwen2VLImageProcessor

from models.box_answers import BOX_QUESTION, from_image_pixels, parse_boxes, resized_size, to_image_pixels


@pytest.mark.parametrize(
    "text",
    [
        '[{"bbox_2d": [1, 2, 30, 40], "label": "star"}, {"bbox_2d": [5, 6, 7.5, 8], "label": "star"}]',
        '```json\n[{"bbox_2d": [1, 2, 30, 40], "label": "a"},\n {"bbox_2d": [5, 6, 7.5, 8]}]\n```',
        'Here: {"label": "x", "bbox_2d": [1,2,30,40]} and {"bbox_2d":[5,6,7.5,8]} as asked.',
        "[{'bbox_2d': [1, 2, 30, 40]}, {'bbox_2d': ['5', '6', '7.5', '8']}]",
        '[{"bbox_2d": [1, 2, 30, 40]}, {"bbox_2d": [5, 6, 7.5, 8]}, {"bbox_2d": [9, 9,',
        '{"bbox": [1, 2, 30, 40]} {"BBOX": [5, 6, 7.5, 8]}',
        "[[1, 2, 30, 40], [5, 6, 7.5, 8]]",
    ],
)
def test_boxes_are_found_in_every_usual_form(text):
    assert parse_boxes(text) == [(1, 2, 30, 40), (5, 6, 7.5, 8)]


@pytest.mark.parametrize("text", ["", "[]", "none", '{"bbox_2d": []}', '{"bbox_2d": [1, 2, 3]}', "[1, 2, 3, NaN]"])
def test_answers_without_a_box_give_none(text):
    assert parse_boxes(text) == []


def test_keyed_boxes_win_over_other_lists_of_four_numbers():
    assert parse_boxes('{"color": [0, 0, 9, 9], "bbox_2d": [1, 2, 3, 4]}') == [(1, 2, 3, 4)]


def test_swapped_corners_are_put_right_and_flat_boxes_and_repeats_left_out():
    assert parse_boxes("[30, 40, 1, 2] [5, 5, 5, 9] [1, 2, 30, 40]") == [(1, 2, 30, 40)]


def test_reading_stops_at_the_limits():
    text = " ".join(f"[{i}, 0, {i + 1}, 1]" for i in range(50))
    assert len(parse_boxes(text, max_boxes=3)) == 3
    assert parse_boxes(text, max_characters=30) == [(0, 0, 1, 1), (1, 0, 2, 1)]


@given(st.text())
@example("[" * 100_000)
@example('{"bbox_2d": ' * 20_000)
@example('"bbox_2d": [' + "9" * 100_000)
@example("[1, 2, 3, 1e999]")
@example("[1,2,3,٤]")
def test_no_text_makes_the_parser_fail(text):
    for box in parse_boxes(text):
        assert box[0] < box[2]
        assert box[1] < box[3]


@given(st.text(), st.text(), st.lists(st.tuples(*[st.integers(0, 9999)] * 4), max_size=4))
def test_boxes_are_found_whatever_stands_around_them(before, after, corners):
    valid = [(min(a, c), min(b, d), max(a, c), max(b, d)) for a, b, c, d in corners if a != c and b != d]
    answer = json.dumps([{"bbox_2d": box, "label": "x"} for box in valid])
    noise = str.maketrans("", "", "[]0123456789")
    text = before.translate(noise) + answer + after.translate(noise)
    assert parse_boxes(text) == list(dict.fromkeys(valid))


def test_resized_pixels_are_pixels_of_the_image_after_the_processor():
    """A 100 x 200 image shown at 56 x 112: one shown pixel is 200 / 112 wide and 100 / 56 high, both 1.786."""
    box = to_image_pixels((0, 14, 56, 56), coordinates="resized_pixels", image=(100, 200), resized=(56, 112))
    assert box == pytest.approx((0, 25, 100, 100))


def test_normalized_numbers_are_thousandths_of_width_and_height():
    box = to_image_pixels((500, 250, 1000, 1000), coordinates="normalized_1000", image=(100, 200), resized=(56, 112))
    assert box == pytest.approx((100, 25, 200, 100))


@given(
    st.sampled_from(["resized_pixels", "normalized_1000"]),
    st.tuples(*[st.floats(0, 5000)] * 4),
    st.tuples(*[st.integers(28, 4000)] * 2),
    st.tuples(*[st.integers(28, 2000)] * 2),
)
def test_writing_and_reading_a_box_gives_it_back(coordinates, box, image, resized):
    written = from_image_pixels(box, coordinates=coordinates, image=image, resized=resized)
    read = to_image_pixels(written, coordinates=coordinates, image=image, resized=resized)
    assert read == pytest.approx(box, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("size", [(720, 1280), (224, 224), (37, 91), (1080, 607)])
def test_resized_size_is_what_the_processor_makes(size):
    processor = Qwen2VLImageProcessor(size={"shortest_edge": 28 * 28, "longest_edge": 400 * 28 * 28})
    grid = processor(np.zeros((*size, 3), np.uint8), return_tensors="pt")["image_grid_thw"][0].tolist()
    assert resized_size(processor, size) == (14 * grid[1], 14 * grid[2])


def test_the_question_names_the_description_and_keeps_its_braces():
    text = BOX_QUESTION.render('{"a"}')
    assert 'Find in this image: {"a"}.' in text
    assert '{"bbox_2d": [x1, y1, x2, y2], "label": "..."}' in text
    assert BOX_QUESTION.version >= 1
