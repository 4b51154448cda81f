"""Pictures of held-out answers."""

import numpy as np
from stage import Logger, Writer, evaluation_of, result_of, rollout_of, trainer_like

from callbacks import drawing
from callbacks.overlays import MaskOverlays, answer_picture, time_picture


class Module:
    def __init__(self, *rollouts: object) -> None:
        self.last_validation = evaluation_of([result_of("refavs/val/0:clip")], step=5, rollouts=rollouts)
        self.last_test = self.last_validation


def colored(picture: np.ndarray, color: drawing.Color) -> bool:
    return bool((picture == np.array(color)).all(axis=-1).any())


def test_keyframes_stand_side_by_side_with_prediction_above_truth() -> None:
    """Two lines of headline, then two columns of 56 px frames at double size, over a line of time and two of text."""
    picture = answer_picture(rollout_of(frames=(1, 3)), height=112)
    assert picture.shape == (2 * 16 + 112 + 4 + 112 + 3 * 16, 112 + 4 + 112, 3)
    top, below = picture[32:144], picture[148:260]
    assert colored(top, drawing.PREDICTED)
    assert not colored(top, drawing.TRUE)
    assert colored(below, drawing.TRUE)
    assert not colored(below, drawing.PREDICTED)


def test_scores_take_a_line_of_the_headline() -> None:
    result = result_of("refavs/val/0:clip")
    assert len(answer_picture(rollout_of(), result)) == len(answer_picture(rollout_of())) + 16


def test_an_absent_answer_shows_the_frame_that_it_missed() -> None:
    picture = answer_picture(rollout_of(frames=()), result_of("refavs/val/0:clip", j=None, kind="null"))
    assert colored(picture, drawing.TRUE)


def test_without_ground_truth_only_the_prediction_is_shown() -> None:
    from dataclasses import replace

    rollout = rollout_of()
    clip = replace(rollout.clip, mask_source=None)
    picture = answer_picture(replace(rollout, clip=clip), height=112)
    assert picture.shape[0] == 2 * 16 + 112 + 3 * 16
    assert not colored(picture, drawing.TRUE)


def test_picked_frames_are_marked_in_the_time_line() -> None:
    assert colored(time_picture(rollout_of(frames=(1,))), drawing.PICKED)
    assert not colored(time_picture(rollout_of(frames=())), drawing.PICKED)


def test_a_validation_logs_pictures_and_each_sound_once() -> None:
    writer = Writer()
    callback = MaskOverlays(clips=1)
    trainer = trainer_like([Logger(writer)])
    callback.on_validation_end(trainer, Module(rollout_of(), rollout_of("refavs/val/1:other")))
    assert {tag: step for tag, (_, step) in writer.images.items()} == {
        "val_overlay/refavs/val/0:clip": 5,
        "val_keyframes/refavs/val/0:clip": 5,
    }
    assert list(writer.sounds) == ["val_sound/refavs/val/0:clip"]
    writer.sounds.clear()
    callback.on_validation_end(trainer, Module(rollout_of()))
    assert not writer.sounds
    callback.on_test_end(trainer, Module(rollout_of()))
    assert "test_overlay/refavs/val/0:clip" in writer.images


def test_silent_clips_and_other_modules_are_fine() -> None:
    writer = Writer()
    trainer = trainer_like([Logger(writer)])
    MaskOverlays().on_validation_end(trainer, object())
    MaskOverlays(clips=0).on_validation_end(trainer, Module(rollout_of()))
    assert not writer.images
    MaskOverlays().on_validation_end(trainer, Module(rollout_of(has_audio=False)))
    assert writer.images
    assert not writer.sounds
