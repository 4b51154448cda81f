"""Marks say what is true of a token, given the clip up to it."""

import numpy as np
import pytest

from datamodules.avshapes.marks import mark_clip, sound_at
from datamodules.avshapes.render import render_frames
from datamodules.avshapes.scene import COLORS, Scene, sample_scene
from datamodules.lessons import Mark

CELLS = 4


def marks_of(scene: Scene, *, silent: bool = False) -> dict[tuple[str, str], Mark]:
    """Marks by media and first option."""
    _, masks = render_frames(scene, size=112)
    marks = mark_clip(scene, None if silent else scene.things, masks, cells=CELLS)
    return {(mark.media, mark.options[0]): mark for mark in marks}


@pytest.fixture(scope="module", params=range(6))
def scene(request) -> Scene:
    return sample_scene((91, request.param))


def test_there_is_one_answer_per_token(scene):
    for (media, _), mark in marks_of(scene).items():
        assert len(mark.answers) == (5 * CELLS**2 if media == "video" else 50)
        assert mark.answers.min() >= -1
        assert mark.answers.max() < len(mark.options)


def test_a_silent_clip_has_marks_at_its_frames_only(scene):
    assert {media for media, _ in marks_of(scene, silent=True)} == {"video"}


def test_seconds_follow_the_order_of_the_tokens(scene):
    marks = marks_of(scene)
    second = marks["video", "0"].answers.reshape(5, CELLS, CELLS)
    assert (second == np.array([0, 2, 4, 6, 8])[:, None, None]).all()
    assert (marks["audio", "0"].answers == np.repeat(np.arange(10), 5)).all()


def test_the_color_at_a_sound_is_that_of_the_thing_which_makes_it(scene):
    mark = marks_of(scene)["audio", f" {next(iter(COLORS))}"]
    sounding = sound_at(scene.things, 50)
    said = np.flatnonzero(mark.answers >= 0)
    assert len(said)
    for token in said:
        assert mark.options[mark.answers[token]] == f" {scene.things[sounding[token]].color}"


def test_only_things_that_enter_are_marked_as_later():
    for index in range(20):
        scene = sample_scene((92, index))
        mark = marks_of(scene)["video", " start"]
        enters = any(thing.presence == "enter" for thing in scene.things)
        assert (mark.answers == 1).any() == enters
        assert enters or (mark.answers == 0).any()


def test_what_has_not_sounded_yet_is_silent():
    found = set()
    for index in range(12):
        scene = sample_scene((93, index))
        mark = marks_of(scene)["video", " silent"]
        first_s = min(thing.sound.start_s for thing in scene.things if thing.sound)
        before = mark.answers.reshape(5, -1)[: int(first_s // 2) + 1]
        assert set(np.unique(before)) <= {-1, 0}
        found |= set(np.unique(mark.answers).tolist())
    assert found == {-1, 0, 1, 2, 3, 4}
