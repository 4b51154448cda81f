"""The four commands on real classes with random weights: what they leave behind, and that a run can be taken up."""

import contextlib
import io
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import pytest
import torch
import yaml
from peft import PeftModel
from random_weights import fast_flags
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import Qwen2_5OmniThinkerForConditionalGeneration

from lightning_modules import cli
from train import CALLBACKS

ROOT = Path(__file__).parents[2]
Command = Callable[[Sequence[str]], int]
LOW = "--rewards.low=cli_doubles.LowTokens"


def events(folder: Path) -> EventAccumulator:
    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0, "tensors": 0, "audio": 0})
    accumulator.Reload()
    return accumulator


def adapter(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "adapter" / "adapter_model.safetensors")


def write_video(path: Path) -> Path:
    """Three seconds of a gray picture that gets brighter, without sound."""
    with av.open(str(path), "w") as film:
        stream = film.add_stream("libx264", rate=5)
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        for index in range(15):
            frame = av.VideoFrame.from_ndarray(np.full((120, 160, 3), 10 * index, np.uint8), format="rgb24")
            film.mux(stream.encode(frame))
        film.mux(stream.encode())
    return path


@dataclass(frozen=True)
class Finished:
    """A run of two steps that has ended: its folder, and what it printed."""

    folder: Path
    printed: str


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, weights: Path, benchmark_cache: Path) -> Finished:
    runs = tmp_path_factory.mktemp("runs")
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.chdir(ROOT)
        assert cli.run(["fit", *fast_flags(weights, benchmark_cache, runs), LOW], callbacks=CALLBACKS) == 0
    return Finished(runs / "debug_fast" / "version_0", printed.getvalue())


def test_fit_leaves_a_complete_run_folder(finished: Finished, weights: Path) -> None:
    run = finished.folder
    assert (run / "checkpoints" / "last.ckpt").exists()
    saved = yaml.safe_load((run / "config.yaml").read_text())
    assert saved["rewards"]["low"]["class_path"] == "cli_doubles.LowTokens"

    logged = events(run).Tags()
    assert {"reward", "kl", "completions/mean_length", "val/jf", "rewards/low/mean", "lr"} <= set(logged["scalars"])
    assert any(tag.startswith("val_overlay/") for tag in logged["images"])
    assert "rollouts/text_summary" in logged["tensors"]
    assert events(run).Scalars("val/jf")[0].step == 0, "held-out clips come before the first step"

    changes = {row["key"]: row for row in json.loads((run / "summary.json").read_text())["changes"]}
    assert changes["val/jf"]["clips"] > 0
    assert "batch arithmetic" in finished.printed
    assert "step 2/2" in finished.printed
    assert "python train.py predict --config" in finished.printed

    base = Qwen2_5OmniThinkerForConditionalGeneration.from_pretrained(weights / "reasoner")
    loaded = dict(PeftModel.from_pretrained(base, str(run / "adapter")).named_parameters())
    assert any(value.any() for name, value in loaded.items() if "lora_B" in name), "two steps have moved the adapter"


def test_test_and_validate_write_tables(
    command: Command, finished: Finished, capsys: pytest.CaptureFixture[str]
) -> None:
    run = finished.folder
    source = [f"--config={run / 'config.yaml'}", f"--ckpt_path={run / 'checkpoints' / 'last.ckpt'}"]
    assert command(["test", *source, "--data.test_splits=[test_s,test_n]"]) == 0
    results = json.loads((run.parent / "test_0" / "results.json").read_text())
    assert {"test/jf", "test/seen/jf", "test/null/s"} <= set(results["metrics"])
    assert results["provenance"]["checkpoint_sha256"]
    printed = capsys.readouterr().out
    assert "scores x 100" in printed
    assert "Test metric" not in printed, "one table is enough"

    assert command(["validate", *source]) == 0
    assert (run.parent / "validate_0" / "results.md").exists()
    assert not (run.parent / "test_0" / "checkpoints").exists()


def test_predict_takes_a_video_and_an_expression(command: Command, finished: Finished, tmp_path: Path) -> None:
    video = write_video(tmp_path / "my clip.mp4")
    run = finished.folder
    question = [f"--data.video={video}", "--data.expression=the star"]
    assert command(["predict", f"--config={run / 'config.yaml'}", *question]) == 0
    folder = run.parent / "predict_0" / "video_my_clip"
    plan = json.loads((folder / "plan.json").read_text())
    assert plan["expression"] == "the star"
    assert len(list((folder / "masks").iterdir())) == len(plan["mask_pixels"])
    assert (folder / "overlay.mp4").stat().st_size > 1000


FIVE = ["--trainer.max_steps=5", "--trainer.val_check_interval=2", "--checkpoint.every_n_train_steps=2"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, weights: Path, benchmark_cache: Path) -> Path:
    """The run folder of five steps that nothing happened to."""
    runs = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        assert cli.run(["fit", *fast_flags(weights, benchmark_cache, runs), LOW, *FIVE], callbacks=CALLBACKS) == 0
    return runs / "debug_fast" / "version_0"


@pytest.mark.parametrize(("stop", "code", "saved"), [("PressCtrlC", 130, 3), ("Fail", 1, 2)])
def test_a_stopped_run_goes_on_as_if_nothing_had_happened(
    stop: str,
    code: int,
    saved: int,
    command: Command,
    fast: list[str],
    undisturbed: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The third step of five is interrupted, which saves it, or fails, which leaves the checkpoint of the second.

    Weights, curves and the summary must come out as in an undisturbed run, to the last bit.
    """
    assert command(["fit", *fast, LOW, *FIVE, f"--rewards.stop=cli_doubles.{stop}"]) == code
    run = tmp_path / "runs" / "debug_fast" / "version_0"
    assert torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == saved
    if stop == "PressCtrlC":
        assert f"Go on with: python train.py fit --resume {run}" in capsys.readouterr().err

    assert command(["fit", "--resume", str(run), "--rewards.stop=null"]) == 0
    assert not (run.parent / "version_1").exists(), "logs go on in the same folder"
    saved_config = yaml.safe_load((run / "config.yaml").read_text())
    assert saved_config["trainer"]["logger"]["init_args"]["version"] is None, "it can start a run of its own"
    assert saved_config["ckpt_path"] is None
    whole, resumed = adapter(undisturbed), adapter(run)
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())
    assert any(value.any() for name, value in whole.items() if "lora_B" in name)
    assert (run / "summary.json").read_text() == (undisturbed / "summary.json").read_text()
    for tag in ("reward", "val/reward", "grad_norm"):
        ours, theirs = events(run).Scalars(tag), events(undisturbed).Scalars(tag)
        assert {(event.step, event.value) for event in ours} == {(event.step, event.value) for event in theirs}, tag


def test_a_run_that_has_ended_ends_again(command: Command, finished: Finished, tmp_path: Path) -> None:
    """As when it was killed between its last checkpoint and its last table."""
    run = tmp_path / "runs" / "debug_fast" / "version_0"
    shutil.copytree(finished.folder, run, symlinks=True)
    shutil.rmtree(run / "adapter")
    (run / "summary.json").unlink()
    assert command(["fit", "--resume", str(run)]) == 0
    assert (run / "summary.json").read_text() == (finished.folder / "summary.json").read_text()
    again, before = adapter(run), adapter(finished.folder)
    assert all(torch.equal(value, again[name]) for name, value in before.items())


def test_a_reward_that_fails_stops_the_run_with_its_name(
    command: Command, fast: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["fit", *fast, "--trainer.num_sanity_val_steps=0", "--rewards.mine=cli_doubles.Broken"]
    assert command(line) == 1
    message = capsys.readouterr().err
    assert "error: rewards.mine raised ZeroDivisionError" in message
    assert "Traceback" not in message
    with pytest.raises(RuntimeError, match=r"rewards\.mine raised ZeroDivisionError"):
        command([*line, "--debug"])


def test_a_checkpoint_that_cannot_be_used_is_one_message(
    command: Command, fast: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "a.ckpt"
    file.write_bytes(b"no checkpoint at all")
    assert command(["validate", *fast, f"--ckpt_path={file}"]) == 2
    message = capsys.readouterr().err
    assert f"error: ckpt_path: {file} could not be read as a checkpoint" in message
    assert "Traceback" not in message


def test_wrong_data_are_reported_in_one_block(
    command: Command, fast: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(["fit", *fast, f"--data.root={tmp_path / 'nowhere'}"]) == 2
    message = capsys.readouterr().err
    assert "--data.root" in message
    assert "Traceback" not in message
