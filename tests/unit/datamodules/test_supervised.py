"""The right answers that training can be served: whose words they are in, and who may know them."""

import numpy as np
import pytest
from refcocog_tree import write_refcocog

from datamodules.avshapes import oracle, truth
from datamodules.avshapes.make import ensure_avshapes
from datamodules.errors import DataLayoutError
from datamodules.lessons import Lesson, fullest_frames
from datamodules.modules import RefAVSDataModule, ReVOSDataModule
from datamodules.refcocog_module import RefCOCOgDataModule

REFAVS = {"train": 5, "val": 2, "test_s": 1, "test_u": 0, "test_n": 0, "null_train": 2, "null_val": 1}
REVOS = {"train": 6, "valid": 1, "non_existent_every": 1}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("avshapes")
    ensure_avshapes("refavs", sizes=REFAVS, cache_dir=folder, workers=1)
    ensure_avshapes("revos", sizes=REVOS, cache_dir=folder, workers=1)
    return folder


def lessons(module, cache, sizes, **settings) -> list[Lesson]:
    data = module(avshapes_cache=str(cache), avshapes_sizes=sizes, val_null_fraction=None, **settings)
    data.setup("fit")
    return [lesson for batch in data.train_dataloader() for lesson in batch]


def test_labels_are_answered_with_the_fullest_frames_and_the_expression(cache):
    found = lessons(RefAVSDataModule, cache, REFAVS, answers="labels", answer_keyframes=3)
    shown = [(lesson.clip, lesson.demonstrations[0]) for lesson in found]

    assert {clip.is_null for clip, _ in shown} == {True, False}
    for clip, demonstration in shown:
        frames = () if clip.is_null else fullest_frames(clip.masks.areas.sum(axis=1), 3)
        assert [segment.start_s for segment in demonstration.segments] == list(frames)
        assert {segment.description for segment in demonstration.segments} <= {clip.expression}
        assert demonstration.expression == clip.expression
    assert all(not lesson.turns and not lesson.marks and len(lesson.demonstrations) == 1 for lesson in found)


@pytest.mark.parametrize(("module", "sizes"), [(RefAVSDataModule, REFAVS), (ReVOSDataModule, REVOS)])
def test_the_oracle_describes_the_target(cache, module, sizes):
    """Every described color and shape is in the words; the frames are those of the labels."""
    root = ensure_avshapes(module.task, sizes=sizes, cache_dir=cache)
    truths = {(one.clip, one.text.rstrip(".").lower()): one for one in truth.read_truth(root) if one.split == "train"}
    found = lessons(module, cache, sizes, answers="oracle")
    present = [lesson for lesson in found if not lesson.clip.is_null]

    assert len(present) < len(found)
    for lesson in present:
        one = truths[lesson.clip.video, lesson.clip.expression]
        segments = lesson.demonstrations[0].segments
        assert {segment.description for segment in segments} == {oracle.true_description(one)}
        assert len(segments) >= 3
    assert all(not lesson.demonstrations[0].segments for lesson in found if lesson.clip.is_null)


def test_several_targets_are_named_by_what_only_they_share(cache):
    root = ensure_avshapes("revos", sizes=REVOS, cache_dir=cache)
    groups = [one for one in truth.read_truth(root) if len(one.targets) > 1]
    assert groups
    for one in groups:
        words = oracle.true_description(one)
        things = [one.things[index] for index in one.targets]
        others = [thing for index, thing in enumerate(one.things) if index not in one.targets]
        assert not any(words == f"the {thing.color} things" or words == f"the {thing.shape}s" for thing in others)
        assert all(thing.color in words or thing.shape in words for thing in things)


def test_places_are_percent_of_the_frame(cache):
    found = lessons(ReVOSDataModule, cache, REVOS, answers="places", answer_keyframes=1)
    clip, demonstration = next((one.clip, one.demonstrations[0]) for one in found if not one.clip.is_null)
    (segment,) = demonstration.segments
    boxes = [[int(number) for number in box.split()] for box in segment.description.split(", ")]

    expected = clip.masks.boxes(clip.frame_at(segment.start_s)) / 224 * 100
    assert np.array(boxes) == pytest.approx(expected[np.lexsort(expected.round().T[::-1])], abs=0.5)
    assert demonstration.thought == segment.description


def test_real_benchmarks_have_no_oracle(tmp_path):
    data = RefCOCOgDataModule(str(write_refcocog(tmp_path / "t")), answers="oracle")
    with pytest.raises(DataLayoutError, match=r"Expected a generated benchmark with a truth\.jsonl"):
        data.setup("fit")


@pytest.mark.parametrize("answers", [None, "labels", "places"])
def test_the_truth_is_opened_for_the_oracle_alone(cache, answers, monkeypatch):
    def refuse(root):
        raise AssertionError("the truth was opened")

    monkeypatch.setattr(oracle, "read_truth", refuse)
    assert lessons(RefAVSDataModule, cache, REFAVS, answers=answers)
    with pytest.raises(AssertionError, match="the truth was opened"):
        lessons(RefAVSDataModule, cache, REFAVS, answers="oracle")


def test_validation_and_tests_serve_clips_whatever_training_serves(cache):
    data = RefAVSDataModule(
        avshapes_cache=str(cache),
        avshapes_sizes=REFAVS,
        answers="oracle",
        val_null_fraction=None,
        test_splits=["test_s"],
    )
    data.setup("fit")
    data.setup("test")
    clips = [clip for loader in (data.val_dataloader(), *data.test_dataloader()) for batch in loader for clip in batch]

    assert clips
    assert not any(isinstance(clip, Lesson) for clip in clips)
