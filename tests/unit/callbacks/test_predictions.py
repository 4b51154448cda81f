"""Files of `predict`."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from films import Film
from PIL import Image
from stage import Logger, Writer, rollout_of, trainer_like

from callbacks.predictions import PredictionWriter, folder_name, write_masks
from datamodules.records import Rollout


def about_video(name: str = "video/my clip.mp4", **more) -> Rollout:
    """A rollout about a video file."""
    rollout = rollout_of(name, **more)
    return replace(rollout, clip=replace(rollout.clip, task="video"))


def write(rollout: Rollout, folder: Path, **settings) -> PredictionWriter:
    writer = PredictionWriter(**settings)
    trainer = trainer_like([Logger(Writer())], folder=folder)
    writer.on_predict_batch_end(trainer, None, [rollout], None, 0)
    return writer


def test_a_prediction_is_a_plan_masks_and_a_film(tmp_path: Path) -> None:
    write(about_video(frames=(1, 3)), tmp_path)
    folder = tmp_path / "video_my_clip"
    plan = json.loads((folder / "plan.json").read_text())
    assert plan["expression"] == "the red circle"
    assert [keyframe["time_s"] for keyframe in plan["keyframes"]] == [1.0, 3.0]
    assert plan["keyframes"][0]["boxes"] == [[8.0, 8.0, 24.0, 24.0]]
    assert plan["mask_pixels"] == [256] * 4
    masks = [np.asarray(Image.open(folder / "masks" / f"{index:05d}.png")) for index in range(4)]
    assert all(mask[8:24, 8:24].min() == 255 and mask.sum() == 255 * 256 for mask in masks)
    film = Film(folder / "overlay.mp4")
    assert len(film.frames) == 4
    assert film.seconds == pytest.approx(4.0, abs=0.1)


def test_an_absent_answer_has_empty_masks(tmp_path: Path) -> None:
    write(about_video(frames=(), is_null=True), tmp_path, overlay=False)
    folder = tmp_path / "video_my_clip"
    plan = json.loads((folder / "plan.json").read_text())
    assert plan["absent"]
    assert plan["keyframes"] == []
    assert not np.asarray(Image.open(folder / "masks" / "00000.png")).any()
    assert not (folder / "overlay.mp4").exists()


def test_answers_to_a_benchmark_lie_where_its_server_expects_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rollout = rollout_of("mevis/valid_u/0ab/3", frames=(1,))
    names = ("00000", "00005", "00010", "00015")
    clip = replace(rollout.clip, task="mevis", split="valid_u", video="a/0ab", expression_id="3", frame_names=names)
    writer = write(replace(rollout, clip=clip), tmp_path, benchmark_overlays=1)
    folder = tmp_path / "masks" / "valid_u" / "a" / "0ab" / "3"
    assert sorted(path.name for path in folder.iterdir()) == [f"{name}.png" for name in names]
    assert np.asarray(Image.open(folder / "00005.png")).sum() == 255 * 256
    assert {path.suffix for path in (tmp_path / "masks").rglob("*") if path.is_file()} == {".png"}
    (plan,) = [json.loads(line) for line in (tmp_path / "plans.jsonl").read_text().splitlines()]
    assert (plan["split"], plan["video"], plan["expression_id"]) == ("valid_u", "a/0ab", "3")
    assert len(Film(tmp_path / "overlays" / "mevis_valid_u_0ab_3.mp4").frames) == 4
    data = SimpleNamespace(data_root="/data/mevis")
    writer.on_predict_end(trainer_like([Logger(Writer())], folder=tmp_path, datamodule=data), None)
    printed = capsys.readouterr().out
    assert f"1 answers of this process written to {tmp_path / 'masks' / 'valid_u'}" in printed
    assert "python -m metrics.score mevis --root /data/mevis" in printed


def test_a_second_prediction_into_a_folder_replaces_the_first(tmp_path: Path) -> None:
    """The first one had three processes, the second has two; a file of the user's stays."""
    for name in ("plans.jsonl", "plans_1.jsonl", "plans_2.jsonl", "plans_mine.jsonl"):
        (tmp_path / name).write_text("old\n")
    clip = replace(rollout_of("mevis/valid_u/0ab/3").clip, task="mevis", split="valid_u", video="0ab")
    rollout = replace(rollout_of("mevis/valid_u/0ab/3"), clip=replace(clip, frame_names=("0", "1", "2", "3")))
    for rank in (1, 0):
        writer = PredictionWriter(folder=str(tmp_path))
        trainer = trainer_like(global_rank=rank, world_size=2)
        writer.on_predict_start(trainer, None)
        writer.on_predict_batch_end(trainer, None, [rollout, rollout], None, 0)
    lines = {path.name: len(path.read_text().splitlines()) for path in tmp_path.glob("*.jsonl")}
    assert lines == {"plans.jsonl": 2, "plans_1.jsonl": 2, "plans_mine.jsonl": 1}


def test_a_wrong_number_of_names_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="shorter"):
        write_masks(rollout_of(), tmp_path, ["00000"])


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
