"""Which frames are put in the place of an answer's own, and what is measured of them."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from datamodules.masks import MaskTrack
from models.plan import parse_plan

ANSWER = (
    '<think>x</think><answer>{"start_time": "00:01.00", "end_time": "00:02.00", "description": "the red circle"}, '
    '{"start_time": "00:04.00", "end_time": "00:05.00", "description": "a blue square"}</answer>'
)
"""Frames 1 and 4 at one frame per second."""

AREAS = np.array([[0, 3, 2, 1, 0, 2, 2, 5, 1, 1], [0, 0, 7, 0, 0, 0, 0, 0, 7, 0]]).T
"""Pixels of two objects on ten frames; together 0 3 9 1 0 2 2 5 8 1."""


@pytest.fixture
def choose(script, make_clip):
    """The frames of a policy for a clip of `AREAS`."""
    masks = np.zeros((10, 2, 56, 56), dtype=bool)
    for frame, objects in enumerate(AREAS):
        for number, area in enumerate(objects):
            masks[frame, number, number, :area] = True
    clip = replace(make_clip(seconds=10), mask_source=lambda: MaskTrack.from_dense(masks))
    plan = parse_plan(ANSWER, fps=1.0, frames=10)

    def frames(policy, count, seed=0):
        rng = seed if isinstance(seed, np.random.Generator) else np.random.default_rng(seed)
        return script("other_frames").choose_frames(policy, plan, clip, count=count, rng=rng)

    return frames


def test_every_policy_is_tested(script):
    assert script("other_frames").POLICIES == ("own", "oracle", "uniform", "random", "first")


@pytest.mark.parametrize(
    ("policy", "count", "frames"),
    [
        ("own", 2, (1, 4)),
        ("oracle", 1, (2,)),
        ("oracle", 2, (2, 8)),
        ("oracle", 3, (2, 7, 8)),
        ("uniform", 1, (5,)),
        ("uniform", 2, (2, 7)),
        ("uniform", 3, (1, 5, 8)),
        ("first", 2, (0,)),
    ],
)
def test_frames_of_a_policy(choose, policy, count, frames):
    """The target shows on frames 1 2 3 5 6 7 8 9: halves 1 2 3 5 and 6 7 8 9, thirds 1 2 3, 5 6 7 and 8 9.

    Uniform frames are the middles of equal parts: 2.5 and 7.5 of ten frames, 1.7, 5.0 and 8.3 of three parts.
    """
    assert choose(policy, count) == frames


def test_random_frames_are_distinct_and_belong_to_their_draw(choose):
    rng = np.random.default_rng(0)
    draws = [choose("random", 3, rng) for _ in range(200)]

    assert all(len(set(frames)) == 3 and list(frames) == sorted(frames) for frames in draws)
    assert {frame for frames in draws for frame in frames} == set(range(10))
    assert len(set(draws)) > 60, "of 120 that there are"
    assert choose("random", 3, 7) == choose("random", 3, 7)


class EvenStart:
    """A System 2 that finds the target if the first keyframe's number is even, and nothing otherwise."""

    def __init__(self):
        self.plans = []

    def fill(self, rollouts, needs):
        assert needs == {"boxes", "masks"}
        self.plans += [rollout.plan for rollout in rollouts]
        empty = MaskTrack.empty(10, (56, 56))
        return [
            replace(rollout, masks=empty if rollout.plan.keyframes[0].frame % 2 else rollout.clip.masks)
            for rollout in rollouts
        ]


def test_descriptions_stay_and_frames_are_replaced(script, make_clip):
    """The target is alike on all ten frames, so that the fullest of two halves are frames 0 and 5.

    Found from an even first frame: not from 1 (own), but from 0 (oracle, first) and 2 (uniform). F by the rules of
    Ref-AVS is a little more than 0 where nothing is found.
    """
    system_2, rng = EvenStart(), np.random.default_rng(1)
    values = script("other_frames").frame_values(make_clip(seconds=10), ANSWER, "the truth", system_2, rng)
    plans = [tuple((one.frame, one.description) for one in plan.keyframes) for plan in system_2.plans]
    frames = [tuple(frame for frame, _ in plan) for plan in plans]
    drawn = [one[0] % 2 == 0 for one in frames[3:7]]

    assert plans[0] == ((1, "the red circle"), (4, "a blue square"))
    assert plans[1] == ((0, "the red circle"), (5, "a blue square"))
    assert plans[2] == ((2, "the red circle"), (7, "a blue square"))
    assert plans[7] == ((0, "the red circle"),)
    assert len(set(frames[3:7])) == 4, "each draw is one of its own"
    assert frames[8:16] == frames[16:] == frames[:8]
    assert {words for plan in plans[8:16] for _, words in plan} == {"the truth"}
    assert {words for plan in plans[16:] for _, words in plan} == {make_clip().expression}
    missed = values["own/own"]
    assert missed < 0.1
    assert 0 < np.mean(drawn) < 1
    expected = [missed, 1.0, 1.0, np.mean(drawn) + missed * (1 - np.mean(drawn)), 1.0]
    for words in ("own", "true", "expression"):
        found = [values[f"{words}/{policy}"] for policy in ("own", "oracle", "uniform", "random", "first")]
        assert found == pytest.approx(expected, abs=1e-6)


def test_an_answer_without_a_moment_has_no_values(script, make_clip):
    assert script("other_frames").frame_values(make_clip(), "nothing", "the truth", None, None) == {}


@pytest.fixture
def measure(script, make_clip, monkeypatch, tmp_path):
    """Measure some clips with code of some commit: the values, and which of them are measured now."""
    module, measured = script("other_frames"), []
    for part in ("DetectorGrounder", "SAM2Propagator"):
        monkeypatch.setattr(module, part, lambda path: SimpleNamespace(load=lambda: None))
    monkeypatch.setattr(module, "frame_values", lambda clip, *_: measured.append(clip.id) or {"own/own": 0.5})
    drawn = SimpleNamespace(weights=tmp_path / "weights", data=lambda: None)

    def run(names, code, answer="x"):
        measured.clear()
        monkeypatch.setattr(module, "measured_clips", lambda _: [(make_clip(name), "the truth") for name in names])
        texts = dict.fromkeys(("a", "b"), answer)
        return module.measure("rk_seed0", texts, folder=tmp_path / "kept", drawn=drawn, code=code), list(measured)

    return run


def test_values_that_other_code_has_measured_are_kept_and_named(script, measure):
    module = script("other_frames")
    assert measure(["a"], "1") == (module.Measured({"a": {"own/own": 0.5}}, ("1",)), ["a"])
    both = {"a": {"own/own": 0.5}, "b": {"own/own": 0.5}}
    assert measure(["a", "b"], "2") == (module.Measured(both, ("1", "2")), ["b"])
    assert measure(["a", "b"], "3") == (module.Measured(both, ("1", "2")), [])


def test_other_answers_weights_and_ways_to_measure_are_measured_again(script, measure, monkeypatch, tmp_path):
    both = ["a", "b"]
    assert measure(both, "1")[1] == both
    assert measure(both, "2", answer="y")[1] == both
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "x.safetensors").write_text("new")
    assert measure(both, "2")[1] == both
    (tmp_path / "other.py").write_text("another way")
    monkeypatch.setattr(script("other_frames"), "__file__", str(tmp_path / "other.py"))
    found, measured = measure(both, "2")
    assert (found.codes, measured) == (("2",), both)


def test_answers_about_other_clips_are_refused(script, make_clip, monkeypatch):
    """Clips a and b are drawn; an answer about an absent target, which has no J&F, is about no clip of theirs."""
    module, outcome = script("other_frames"), script("outcomes").Outcome
    monkeypatch.setattr(module, "measured_clips", lambda _: [(make_clip(name), "the truth") for name in "ab"])
    drawn = SimpleNamespace(data=lambda: None)

    def answers(**runs):
        made = {name: {clip: {"jf": 0.5} for clip in clips} | {"null": {"s": 0.0}} for name, clips in runs.items()}
        return {name: outcome({}, clips, {}, 0, 0, 0.0, {}) for name, clips in made.items()}

    module.refuse_other_clips(answers(same="ab"), drawn)
    said = (
        r"2 test clips .* others: fewer answered 1 .*, 1 of them drawn here; more answered 3 .*, 2 of .* many --clips"
    )
    with pytest.raises(SystemExit, match=said):
        module.refuse_other_clips(answers(same="ab", fewer="a", more="abc"), drawn)
    with pytest.raises(SystemExit, match=r"none answered 0 .* --avshapes-sizes and --cache"):
        module.refuse_other_clips(answers(none=""), drawn)
