"""`--resume FOLDER` stands for the run's configuration and its newest checkpoint."""

from pathlib import Path

import pytest

from datamodules.errors import ConfigError
from lightning_modules.cli_resume import (
    changed_settings,
    expand_resume,
    find_flag,
    free_version,
    logger_place,
    resume_command,
)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "runs" / "refavs" / "version_3"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").write_text("model: {lr: 0.1, beta: 0}\ntrainer: {logger: {save_dir: old}}\n")
    (folder / "checkpoints" / "last.ckpt").touch()
    return folder


def test_the_flag_is_replaced_and_later_flags_still_win(run: Path) -> None:
    expanded = expand_resume(["fit", "--model.lr", "2", "--resume", str(run), "--trainer.max_steps=9"])
    assert expanded == [
        "fit",
        f"--config={run}/config.yaml",
        f"--ckpt_path={run}/checkpoints/last.ckpt",
        "--model.lr",
        "2",
        "--trainer.max_steps=9",
    ]


def test_both_spellings_of_a_flag_are_found() -> None:
    assert find_flag(["fit", "--resume", "a"], "--resume") == "a"
    assert find_flag(["fit", "--resume=b"], "--resume") == "b"
    assert find_flag(["fit"], "--resume") is None


def test_a_line_without_the_flag_stays_as_it_is() -> None:
    assert expand_resume(["fit", "--config", "a.yaml"]) == ["fit", "--config", "a.yaml"]


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"expected a run folder with config.yaml, found '.*nowhere', which does not"):
        expand_resume(["fit", "--resume", str(tmp_path / "nowhere")])


def test_a_run_without_a_checkpoint_says_how_to_start_again(run: Path) -> None:
    (run / "checkpoints" / "last.ckpt").unlink()
    with pytest.raises(ConfigError, match=r"before its first checkpoint.*fit --config .*config.yaml"):
        expand_resume(["fit", f"--resume={run}"])


def test_logs_go_on_where_they_were(run: Path) -> None:
    place = logger_place(run)
    assert Path(place["save_dir"], place["name"], place["version"]) == run
    assert resume_command(run) == f"python train.py fit --resume {run}"


def test_commands_that_do_not_train_get_folders_of_their_own(tmp_path: Path) -> None:
    assert free_version(tmp_path, "test") == "test_0"
    (tmp_path / "test_0").mkdir()
    (tmp_path / "version_0").mkdir()
    assert free_version(tmp_path, "test") == "test_1"


def test_changed_settings_are_named_and_places_are_not(run: Path) -> None:
    now: dict[str, object] = {"model": {"lr": 0.2, "beta": 0}, "trainer": {"logger": {"save_dir": "new"}}}
    assert changed_settings(run / "config.yaml", now) == ["model.lr: 0.1 -> 0.2"]
