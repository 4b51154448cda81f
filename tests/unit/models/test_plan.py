import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules.records import Segment
from models.plan import MAX_CHARACTERS, _answer_body, clock, parse_plan, render_answer


def parse(answer, *, think="looks", fps=1.0, frames=10, max_keyframes=4):
    return parse_plan(
        f"<think>{think}</think><answer>{answer}</answer>", fps=fps, frames=frames, max_keyframes=max_keyframes
    )


def moment(start, end, description="the red circle"):
    return json.dumps({"start_time": start, "end_time": end, "description": description})


def test_one_object_names_the_frame_at_its_middle():
    plan = parse(moment("00:03.00", "00:04.00"))
    (keyframe,) = plan.keyframes
    assert (keyframe.frame, keyframe.description) == (3, "the red circle")
    assert plan.parse.is_well_formed
    assert not plan.is_absent


@pytest.mark.parametrize("separator", [", ", "\n", "", " and "])
@pytest.mark.parametrize("brackets", ["{}", "[{}]"])
def test_objects_may_come_with_or_without_commas_and_list(separator, brackets):
    body = separator.join([moment("00:07.00", "00:07.50", "late"), moment("00:01.00", "00:01.50", "early")])
    plan = parse(brackets.replace("{}", body))
    assert [(k.frame, k.description) for k in plan.keyframes] == [(1, "early"), (7, "late")]
    assert plan.parse.objects == plan.parse.complete == plan.parse.in_clip == 2


@pytest.mark.parametrize("thought", ["<think>a</think>", ""])
def test_an_answer_without_its_tag_begins_behind_the_thinking(thought):
    assert _answer_body(f"{thought}[1, 2]</answer> more") == "[1, 2]"


def test_repeated_frames_are_counted_and_dropped():
    plan = parse(moment("00:02.00", "00:02.40") + moment("00:02.50", "00:03.00"))
    assert [k.frame for k in plan.keyframes] == [2]
    assert plan.repeats == 1


def test_first_keyframes_in_time_order_are_kept():
    plan = parse(" ".join(moment(f"00:0{t}.00", f"00:0{t}.50") for t in (9, 5, 1, 3, 7)), max_keyframes=3)
    assert [k.frame for k in plan.keyframes] == [1, 3, 5]


def test_absent_needs_the_explicit_form_and_no_segment():
    assert parse('{"absent": true}').is_absent
    assert parse('{"absent": true}').parse.is_well_formed
    for answer in ('{"absent": false}', '{"absent": 1}', '{"absent": "true"}', "absent", "[]", "none"):
        assert parse(answer).is_unparsable
    both = parse('{"absent": true}' + moment("00:01.00", "00:02.00"))
    assert not both.is_absent
    assert [k.frame for k in both.keyframes] == [1]


@pytest.mark.parametrize(
    ("text", "well_formed"),
    [
        ("<think>a</think><answer>{}</answer>", True),
        (" <think>a</think>\n<answer>{}</answer>\n", True),
        ("<answer>{}</answer>", False),
        ("<think>a</think>{}", False),
        ("<think>a</think> so <answer>{}</answer>", False),
        ("<think>a</think><answer>{}</answer> bye", False),
        ("<think>a<think>b</think><answer>{}</answer>", False),
        ("<answer>{}</answer><think>a</think>", False),
    ],
)
def test_form_is_one_think_block_then_one_answer_block(text, well_formed):
    plan = parse_plan(text.replace("{}", moment("00:01.00", "00:02.00")), fps=1.0, frames=10)
    assert plan.parse.is_well_formed is well_formed
    assert [k.frame for k in plan.keyframes] == [1]


@pytest.mark.parametrize(
    ("start", "end", "complete", "frames"),
    [
        ("00:09.00", "00:10.00", 1, [9]),  # the last frame of ten
        ("00:09.00", "00:12.00", 1, [9]),  # ends after the clip: used, not counted as inside
        ("00:10.00", "00:11.00", 1, []),  # starts after the clip
        ("00:05.00", "00:04.00", 1, []),  # ends before it starts
        ("5", "6", 0, []),  # not a clock
        ("00:61.00", "00:62.00", 0, []),
        ("-0:01.00", "00:02.00", 0, []),
        (2.5, 3.5, 1, [3]),  # plain seconds
        (True, 2, 0, []),
        (float("nan"), 2.0, 0, []),
        (float("inf"), 2.0, 0, []),
    ],
)
def test_times_outside_the_form_or_the_clip(start, end, complete, frames):
    plan = parse(moment(start, end))
    assert plan.parse.complete == complete
    assert [k.frame for k in plan.keyframes] == frames
    assert plan.is_unparsable is (not frames)
    assert bool(plan.parse.problem) is (not frames)


def test_description_is_squeezed_and_must_not_be_blank():
    assert parse(moment("00:01.00", "00:02.00", "  the \n red\tone ")).keyframes[0].description == "the red one"
    assert parse(moment("00:01.00", "00:02.00", "  ")).is_unparsable
    assert len(parse(moment("00:01.00", "00:02.00", "x" * 5000)).keyframes[0].description) == 300


def test_frame_rate_maps_seconds_to_frames():
    """At 2.5 fps frame 5 is shown from 2.0 s to 2.4 s."""
    plan = parse(moment("00:02.00", "00:02.40"), fps=2.5, frames=50)
    assert plan.keyframes[0].frame == 5


@given(
    st.lists(
        st.tuples(st.integers(0, 19), st.text(alphabet='abc {}"\\é<>,:', min_size=1).filter(lambda s: s.strip())),
        unique_by=lambda item: item[0],
        max_size=4,
    ),
    st.sampled_from([1.0, 2.0]),
)
def test_what_is_rendered_reads_back(picks, fps):
    picks = [
        (frame, " ".join(text.replace("{", "").replace("}", "").replace("<", "").split())) for frame, text in picks
    ]
    picks = [(frame, text) for frame, text in picks if text]
    segments = [Segment(frame / fps, (frame + 1) / fps, text) for frame, text in picks]
    plan = parse_plan(render_answer(segments, think="so"), fps=fps, frames=20)
    assert [(k.frame, k.description) for k in plan.keyframes] == sorted(picks)
    assert plan.is_absent is (not picks)
    assert plan.parse.is_well_formed


def test_clock_carries_into_minutes():
    assert clock(0) == "00:00.00"
    assert clock(59.999) == "01:00.00"
    assert clock(75.5) == "01:15.50"


@settings(max_examples=300)
@given(st.text(alphabet='{}[]",:0123456789. abcNaTtrue<think></answer>\\\x00', max_size=400))
def test_any_text_is_data(text):
    for wrapped in (text, f"<think>{text}</think><answer>{text}</answer>"):
        plan = parse_plan(wrapped, fps=1.0, frames=10)
        assert all(0 <= k.frame < 10 for k in plan.keyframes)
        assert plan.is_absent + bool(plan.keyframes) + plan.is_unparsable == 1


@pytest.mark.parametrize(
    "body",
    [
        "{" * 1_000_000,
        '{"a":' * 200_000,
        '{"a": ' + "[" * 15_000 + "]" * 3_000 + "}",
        '{"start_time": ' + "9" * 10_000 + "}",
        '"' * 1_000_000,
        "{}" * 300_000,
        "\ud800",
    ],
)
def test_hostile_text_is_read_without_harm(body):
    assert parse(body).is_unparsable


def test_text_beyond_the_limit_is_not_read():
    plan = parse_plan("x" * MAX_CHARACTERS + moment("00:01.00", "00:02.00"), fps=1.0, frames=10)
    assert plan.is_unparsable
