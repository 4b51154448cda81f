"""Demonstrations are true, rough, and name a whole group where they are at their best."""

from collections import Counter

import numpy as np
import pytest

from datamodules.avshapes.descriptions import described_things, group_words, is_right_description
from datamodules.avshapes.expressions import Expression, refavs_null_expressions, revos_expressions
from datamodules.avshapes.lessons import NOT_THERE, demonstrate, small_questions
from datamodules.avshapes.recipes import LessonData
from datamodules.avshapes.scene import UNSEEN_LOOKS, Scene, World, sample_scene

WORLD = World(distinct_shapes=False, sounding=(1.0,))
SCENES = 120


@pytest.fixture(scope="module")
def asked() -> list[tuple[Scene, Expression]]:
    """Every expression about many scenes."""
    scenes = [sample_scene((5, index), WORLD) for index in range(SCENES)]
    return [(scene, item) for scene in scenes for item in revos_expressions(scene, np.random.default_rng(0))]


def test_a_group_is_described_as_a_whole(asked: list[tuple[Scene, Expression]]) -> None:
    groups = [(scene, item) for scene, item in asked if len(item.targets) > 1]
    assert {item.variant for _, item in groups} == {"color", "shape"}
    for scene, item in groups:
        words = group_words(item.color, item.shape)
        assert is_right_description(words, scene.things, item.targets), (item, words)


def test_a_demonstration_in_full_names_the_whole_group(asked: list[tuple[Scene, Expression]]) -> None:
    """A quarter of the demonstrations are in full; those about a group never name one of its things instead."""
    rng, named, count = np.random.default_rng(0), 0, 0
    for scene, item in asked:
        if len(item.targets) < 2:
            continue
        shown = demonstrate(scene, item, rng, noticed_absence=0.5)
        (description,) = {segment.description for segment in shown.segments}
        assert description not in {f"the {scene.things[index].name}" for index in item.targets}
        named, count = named + (description == group_words(item.color, item.shape)), count + 1
    assert count > 100
    assert named / count == pytest.approx(0.25, abs=0.08)


def test_group_words_take_one_of_two() -> None:
    assert group_words(color="red") == "the red things"
    assert group_words(shape="circle") == "the circles"
    for both in ({}, {"color": "red", "shape": "circle"}):
        with pytest.raises(ValueError, match="a color or a shape"):
            group_words(**both)


def test_demonstrations_are_true_and_mostly_rough(asked: list[tuple[Scene, Expression]]) -> None:
    rng, right, in_view = np.random.default_rng(0), Counter(), []
    for scene, item in asked:
        if not item.targets:
            continue
        shown = demonstrate(scene, item, rng, noticed_absence=0.5)
        assert 1 <= len(shown.segments) <= 3
        for index in item.targets:
            assert scene.things[index].color in shown.thought
            assert scene.things[index].shape in shown.thought
        (description,) = {segment.description for segment in shown.segments}
        assert described_things(description, scene.things) & set(item.targets)
        right[len(item.targets) > 1, is_right_description(description, scene.things, item.targets)] += 1
        frames = [round(segment.start_s * scene.world.fps) for segment in shown.segments]
        assert len(set(frames)) == len(frames)
        in_view += [any(scene.visible[index][frame] > 0 for index in item.targets) for frame in frames]
    assert 0.5 < np.mean(in_view) < 0.95
    for is_group in (False, True):
        share = right[is_group, True] / (right[is_group, True] + right[is_group, False])
        assert 0.2 < share < 0.75, (is_group, share)


def test_absence_is_noticed_as_often_as_asked() -> None:
    rng, noticed, count = np.random.default_rng(0), 0, 0
    for index in range(SCENES):
        scene = sample_scene((6, index), World())
        for item in refavs_null_expressions(scene, np.random.default_rng(index), audio="muted"):
            shown = demonstrate(scene, item, rng, noticed_absence=0.45)
            assert (shown.thought == NOT_THERE) == (shown.segments == ())
            noticed, count = noticed + (not shown.segments), count + 1
    assert count > 200
    assert noticed / count == pytest.approx(0.45, abs=0.1)


def test_an_unseen_look_is_asked_about_only_in_scenes_of_the_unseen_split(seen_scenes, unseen_scenes):
    rng = np.random.default_rng(0)
    names = [f"is there a {color} {shape}" for color, shape in UNSEEN_LOOKS]

    def answers(scenes):
        turns = [turn for scene in scenes for turn in small_questions(scene, (), rng)]
        return {turn.answer for turn in turns if turn.question in names}

    assert answers(seen_scenes * 3) == set(), "or it would be learned that they do not exist"
    assert answers(unseen_scenes * 3) == {"yes", "no"}


def test_things_of_the_unseen_split_are_asked_about_and_never_demonstrated():
    spelled = [f"the {shape} that is {color}" for color, shape in UNSEEN_LOOKS]

    def lessons(loader):
        return [lesson for batch in loader for lesson in batch]

    def named(found):
        return sum(look in turn.answer for item in found for turn in item.turns for look in spelled)

    mixed = LessonData(10, clips=4, unseen_share=0.5, val_steps=4, val_unseen_share=1.0, workers=0)
    train, held_out = lessons(mixed.train_dataloader()), lessons(mixed.val_dataloader())
    assert named(train) > 5
    assert named(held_out) > 5
    shown = [item for item in train if item.demonstrations]
    assert 0 < len(shown) < len(train)
    stream = mixed.train  # sound of another scene is heard with some pictures
    donors = [stream._donor(item.clip.frames.scene, 0, index) for index, item in enumerate(shown)]
    scenes = [item.clip.frames.scene for item in shown] + [donor for donor in donors if donor]
    assert not any(thing.is_held_out for scene in scenes for thing in scene.things)
    assert named(shown) == 0
    assert not any(item.demonstrations for item in held_out)
    assert named(lessons(LessonData(10, clips=4, val_steps=1, workers=0).train_dataloader())) == 0
