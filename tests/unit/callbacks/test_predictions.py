"""What predict leaves behind."""

import json
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from stage import Logger, Writer, rollout_of, trainer_like

from callbacks import drawing
from callbacks.film import write_film
from callbacks.predictions import PredictionWriter, folder_name


def decoded(path: Path) -> tuple[list[np.ndarray], float]:
    """Frames of a film, and seconds of its sound."""
    with av.open(str(path)) as film:
        frames = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
    with av.open(str(path)) as film:
        samples = sum(frame.samples for frame in film.decode(audio=0)) if film.streams.audio else 0
    return frames, samples / 16_000


def test_a_prediction_is_a_plan_masks_and_a_film(tmp_path: Path) -> None:
    rollout = rollout_of("video:my clip.mp4", frames=(1, 3))
    trainer = trainer_like([Logger(Writer())], folder=tmp_path)
    PredictionWriter().on_predict_batch_end(trainer, None, [rollout], None, 0)
    folder = tmp_path / "video_my_clip"
    plan = json.loads((folder / "plan.json").read_text())
    assert plan["expression"] == "the red circle"
    assert [keyframe["time_s"] for keyframe in plan["keyframes"]] == [1.0, 3.0]
    assert plan["keyframes"][0]["boxes"] == [[8.0, 8.0, 24.0, 24.0]]
    assert plan["mask_pixels"] == [256] * 4
    masks = [np.asarray(Image.open(folder / "masks" / f"{index:05d}.png")) for index in range(4)]
    assert all(mask[8:24, 8:24].min() == 255 and mask.sum() == 255 * 256 for mask in masks)
    frames, seconds = decoded(folder / "overlay.mp4")
    assert len(frames) == 4
    assert seconds == pytest.approx(4.0, abs=0.1)


def test_keyframes_are_framed_in_the_film(tmp_path: Path) -> None:
    """Video coding blurs colors, so the border only has to be much redder than the border of a frame without."""
    write_film(rollout_of(frames=(1,)), tmp_path / "film.mp4")
    frames, _ = decoded(tmp_path / "film.mp4")
    red = [float(frame[:2, :, 0].mean() - frame[:2, :, 1].mean()) for frame in frames]
    assert red[1] > 80
    assert max(red[0], *red[2:]) < 60


def test_odd_sizes_and_silence_are_fine(tmp_path: Path) -> None:
    rollout = rollout_of(frames=(), has_audio=False)
    frames = rollout.clip.frames
    frames.pixels = frames.pixels[:, :55, :53]
    write_film(replace(rollout, masks=None, grounding=None), tmp_path / "film.mp4")
    shown, seconds = decoded(tmp_path / "film.mp4")
    assert shown[0].shape == (56, 54, 3)
    assert seconds == 0


def test_an_absent_answer_has_empty_masks(tmp_path: Path) -> None:
    rollout = rollout_of(frames=(), is_null=True)
    PredictionWriter(folder=str(tmp_path), overlay=False).on_predict_batch_end(trainer_like(), None, [rollout], None, 0)
    folder = tmp_path / folder_name(rollout.clip.id)
    plan = json.loads((folder / "plan.json").read_text())
    assert plan["absent"]
    assert plan["keyframes"] == []
    assert not np.asarray(Image.open(folder / "masks" / "00000.png")).any()
    assert not (folder / "overlay.mp4").exists()


def test_what_is_no_rollout_is_left_alone(tmp_path: Path) -> None:
    PredictionWriter(folder=str(tmp_path)).on_predict_batch_end(trainer_like(), None, ["text"], None, 0)
    PredictionWriter(folder=str(tmp_path)).on_predict_batch_end(trainer_like(), None, None, None, 0)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("clip_id", "name"),
    [
        ("video:a/b.mp4", "video_a_b"),
        ("../../etc", "etc"),
        ("refavs/test_s/3:x_1", "refavs_test_s_3_x_1"),
        ("//", "clip"),
    ],
)
def test_folders_have_harmless_names(clip_id: str, name: str) -> None:
    assert folder_name(clip_id) == name


def test_a_tinted_frame_differs_where_the_mask_is(tmp_path: Path) -> None:
    rollout = rollout_of(frames=())
    write_film(rollout, tmp_path / "film.mp4")
    frames, _ = decoded(tmp_path / "film.mp4")
    inside = frames[0][10:22, 10:22].mean(axis=(0, 1))
    outside = frames[0][30:50, 30:50].mean(axis=(0, 1))
    assert inside[0] - inside[2] > outside[0] - outside[2] + 40, f"{drawing.PREDICTED} pulls red up and blue down"
