"""First and last validation, side by side."""

import json
from pathlib import Path

import pytest
import torch
from stage import Logger, Writer, evaluation_of, result_of, trainer_like

from callbacks.summary import FitSummary, as_plain, compare, next_commands
from lightning_modules.evaluation import evaluation_metrics

BEFORE = evaluation_of([result_of("a", j=0.2), result_of("b", j=0.4), result_of("n", kind="null", j=None)])
AFTER = evaluation_of([result_of("a", j=0.3), result_of("b", j=0.7), result_of("n", kind="null", j=None)], step=9)


class Module:
    def __init__(self, evaluation: object) -> None:
        self.last_validation = evaluation


def test_a_clip_adds_to_every_mean_what_the_module_logs() -> None:
    """The values per clip, averaged, must give back the logged means; otherwise interval and change disagree."""
    results = [result_of("a", j=0.2), result_of("b", kind="unseen", j=0.4), result_of("n", kind="null", j=None)]
    plain = as_plain(evaluation_of(results))
    for key, value in evaluation_metrics(results, prefix="val/").items():
        column = [clip[key] for clip in plain["clips"].values() if key in clip]
        assert sum(column) / len(column) == pytest.approx(value), key


def test_changes_are_paired() -> None:
    """Clip a gains 0.1 and clip b 0.3: the mean change is 0.2, and resamples of two clips lie in 0.1..0.3."""
    row = next(row for row in compare(as_plain(BEFORE), as_plain(AFTER)) if row["key"] == "val/jf")
    assert row["first"] == pytest.approx(0.3)
    assert row["last"] == pytest.approx(0.5)
    assert row["change"] == pytest.approx(0.2)
    assert (row["low"], row["high"]) == (pytest.approx(0.1), pytest.approx(0.3))
    assert row["clips"] == 2


def test_a_key_without_clips_in_common_has_no_interval() -> None:
    other = as_plain(evaluation_of([result_of("c", j=0.3)]))
    row = next(row for row in compare(as_plain(BEFORE), other) if row["key"] == "val/jf")
    assert row["low"] is None
    assert row["clips"] == 0


def test_the_first_validation_stays_and_is_logged_at_step_zero(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    summary, logger = FitSummary(), Logger(Writer())
    trainer = trainer_like([logger], folder=tmp_path, sanity_checking=True)
    summary.on_validation_end(trainer, Module(BEFORE))
    trainer.sanity_checking = False
    summary.on_validation_end(trainer, Module(AFTER))
    summary.on_fit_end(trainer, Module(AFTER))
    assert logger.metrics == [(BEFORE.metrics, 0)]
    written = json.loads((tmp_path / "summary.json").read_text())
    assert written["rollout_steps"] == [0, 9]
    assert {row["key"] for row in written["changes"]} == set(BEFORE.metrics)
    printed = capsys.readouterr().out
    assert "val/jf" in printed
    assert "+0.200" in printed
    assert "val/null/null_accuracy" not in printed, "it says what val/null_accuracy says"
    assert "tensorboard --logdir" in printed


def test_a_resumed_run_compares_with_the_first_validation_of_all(tmp_path: Path) -> None:
    before, after = FitSummary(), FitSummary()
    before.on_validation_end(trainer_like(), Module(BEFORE))
    torch.save(before.state_dict(), tmp_path / "state.pt")
    after.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    after.on_validation_end(trainer_like(), Module(AFTER))
    after.on_fit_end(trainer_like([Logger(Writer())], folder=tmp_path), Module(AFTER))
    assert json.loads((tmp_path / "summary.json").read_text())["rollout_steps"] == [0, 9]


def test_a_run_with_nothing_left_to_do_still_ends_with_its_summary(tmp_path: Path) -> None:
    before, after = FitSummary(), FitSummary()
    before.on_validation_end(trainer_like(), Module(BEFORE))
    before.on_validation_end(trainer_like(), Module(AFTER))
    after.load_state_dict(before.state_dict())
    after.on_fit_end(trainer_like([Logger(Writer())], folder=tmp_path), Module(None))
    assert json.loads((tmp_path / "summary.json").read_text())["rollout_steps"] == [0, 9]


def test_one_validation_is_not_compared_with_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    summary = FitSummary()
    summary.on_validation_end(trainer_like(), Module(AFTER))
    summary.on_fit_end(trainer_like([Logger(Writer())], folder=tmp_path), Module(AFTER))
    printed = capsys.readouterr().out
    assert "after rollout step 9" in printed
    assert "val/jf" not in printed


def test_a_validation_of_its_own_is_not_kept() -> None:
    from types import SimpleNamespace

    summary = FitSummary()
    summary.on_validation_end(trainer_like(state=SimpleNamespace(fn="validate")), Module(BEFORE))
    assert summary.state_dict() == {"first": {}, "last": {}}


def test_modules_without_validation_end_quietly(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    summary = FitSummary()
    summary.on_validation_end(trainer_like(), object())
    summary.on_fit_end(trainer_like([Logger(Writer())], folder=tmp_path), object())
    printed = capsys.readouterr().out
    assert "held-out" not in printed
    assert "tensorboard --logdir" in printed
    assert "predict" not in printed, "a recipe's module answers no questions"
    assert not (tmp_path / "summary.json").exists()


def test_the_next_commands_name_the_run() -> None:
    lines = next_commands(Path("runs/refavs/version_3"), "runs/refavs/version_3/checkpoints/last.ckpt")
    assert lines[1] == "  tensorboard --logdir runs"
    assert all("--config runs/refavs/version_3/config.yaml --ckpt_path" in line for line in lines[2:])
