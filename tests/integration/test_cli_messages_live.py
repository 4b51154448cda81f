"""What a person reads after a mistake, with the real parser, configurations and classes."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import yaml

from lightning_modules.cli import OmniCLI

Command = Callable[[Sequence[str]], int]
FIT = ["fit", "--config=configs/refavs.yaml"]

MISTAKES = {
    "--model.grpo.betta=0": "model.grpo.betta is no setting of GRPOModule; did you mean `model.grpo.beta`?",
    "--model.lrr=1": "model.lrr is no setting of GRPOModule",
    "--model.grpo.loss_type=grop": "expected one of 'grpo', 'bnpo', 'dapo', 'dr_grpo'; did you mean `grpo`?",
    "--model.grpo.group_size=1": "model.grpo.group_size is 1; expected at least 2 completions per prompt",
    "--model.grounder=DetectorGroundr": "model.grounder: there is no class `DetectorGroundr`",
    "--data.rot=x": "data.rot is no setting of RefAVSDataModule; did you mean `data.root`?",
    "--data.train_size=many": "data.train_size is many, expected int",
    "--trainer.devcies=2": "trainer.devcies is no setting; did you mean `trainer.devices`?",
    "--rewards.format.wieght=2": "rewards.format.wieght is no setting of FormatReward; did you mean",
    "--rewards.formt=null": "rewards.formt: this run has no such reward; it has format, diversity, count",
    "--rewards.mine.weight=2": "To add one, give its class first: --rewards.mine my_pkg.MyReward.",
    "--checkpoint.every=2": "checkpoint.every is no setting",
    "--ckpt_path=nothing.ckpt": "ckpt_path: there is no file nothing.ckpt",
    "--resume=nowhere": "resume: expected a run folder with config.yaml, found 'nowhere', which does not exist",
    "--config=configs/refav.yaml": "did you mean `configs/refavs.yaml`?",
    "--threads=0": "threads",
}


@pytest.mark.parametrize("flag", MISTAKES)
def test_a_mistake_gets_one_line_and_exit_code_2(
    flag: str, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command([*FIT, flag]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("Seed set")]
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert MISTAKES[flag] in lines[0]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (["fitt"], "`fitt` is none of fit, validate, test, predict; did you mean `fit`?"),
        ([], "say what to do first"),
        (["fit"], "Name a run, for example --config configs/refavs.yaml"),
        (["fit", "--config=configs/tiny/propagator.yaml", "--rewards.format=FormatReward"], "takes no rewards"),
    ],
)
def test_an_incomplete_line_says_what_is_missing(
    line: list[str], expected: str, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(line) == 2
    assert expected in capsys.readouterr().err


def test_debug_shows_what_the_parser_tried(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    assert command([*FIT, "--data.train_size=many", "--debug"]) == 2
    assert "Does not validate against any of the Union subtypes" in capsys.readouterr().err


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[OmniCLI]:
    """Build everything and run nothing; the commands that were built."""
    seen: list[OmniCLI] = []
    monkeypatch.setattr(OmniCLI, "_run_subcommand", lambda self, subcommand: seen.append(self))
    return seen


def test_rewards_are_changed_added_and_removed(command: Command, built: list[OmniCLI], tmp_path) -> None:
    flags = ["--rewards.format.weight=0.5", "--rewards.length=null", "--rewards.mine=cli_doubles.LowTokens"]
    line = ["fit", "--config=configs/scale/revos_7b.yaml", "--trainer.accelerator=cpu", "--trainer.devices=1"]
    assert command([*line, "--trainer.strategy=auto", *flags, "--rewards.mine.weight=3"]) == 0
    terms = built[0].model.suite.terms
    assert terms["format"].weight == 0.5
    assert terms["mine"].weight == 3
    assert "length" not in terms
    assert "consistency" in terms


def test_a_later_file_changes_single_settings_of_a_callback(command: Command, built: list[OmniCLI], tmp_path) -> None:
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text("checkpoint: {save_top_k: -1}\nmodel: {init_args: {grpo: {beta: 0.0}}}\n")
    assert command([*FIT, f"--config={overlay}"]) == 0
    cli = built[0]
    assert cli.trainer.checkpoint_callback.save_top_k == -1
    first = yaml.safe_load(Path("configs/refavs.yaml").read_text())["checkpoint"]["every_n_train_steps"]
    assert cli.trainer.checkpoint_callback._every_n_train_steps == first, "the first file's setting is kept"
    assert cli.model.grpo.beta == 0
    assert cli.model.grpo.group_size == 8


def test_switches_of_the_trainer_turn_callbacks_off(command: Command, built: list[OmniCLI]) -> None:
    off = ["--trainer.enable_checkpointing=false", "--trainer.enable_progress_bar=false"]
    assert command([*FIT, *off]) == 0
    assert built[0].trainer.checkpoint_callback is None
    assert built[0].trainer.progress_bar_callback is None


def test_commands_that_do_not_train_keep_no_checkpoints(command: Command, built: list[OmniCLI]) -> None:
    assert command(["test", *FIT[1:]]) == 0
    cli = built[0]
    assert cli.trainer.checkpoint_callback is None
    assert cli.trainer.logger.version.startswith("test_")


def test_checkpoints_are_written_atomically_by_one_thread(command: Command, built: list[OmniCLI]) -> None:
    import torch

    from lightning_modules.checkpoint import AtomicCheckpointIO

    assert command(FIT) == 0
    assert isinstance(built[0].trainer.strategy.checkpoint_io, AtomicCheckpointIO)
    assert torch.get_num_threads() == 1


def test_help_and_print_config_run_nothing(
    command: Command, built: list[OmniCLI], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(["fit", "--help"]) == 0
    printed = capsys.readouterr().out
    assert "--rewards" in printed
    assert "--resume" in printed
    assert command([*FIT, "--print_config", "--rewards.format.weight=0.25"]) == 0
    assert "weight: 0.25" in capsys.readouterr().out
    assert not built
