"""What the headers of the large configurations say about memory is what is planned."""

import re
import shlex
from pathlib import Path

import pytest

from lightning_modules.cli_strategy import chosen_strategy
from lightning_modules.planning import judge, workload
from scripts.doctor import PlanCLI, devices_of, main
from train import CALLBACKS

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "configs" / "scale").glob("*.yaml"))
CARD = re.compile(r"GPUs? with (\d+) GB")
FIGURE = re.compile(r"([\d.]+) GB on ([\dx, or]+)")


def header(path: Path) -> tuple[list[str], str]:
    """Arguments of the command, and what is said about hardware."""
    lines = path.read_text().splitlines()
    return shlex.split(lines[1].removeprefix("# Command: "))[3:], lines[2]


def devices(text: str) -> list[int]:
    """Numbers of devices in "1, 2 or 8" or in "2 x 8"."""
    if "x" in text:
        nodes, each = map(int, text.split("x"))
        return [nodes * each]
    return [int(number) for number in re.findall(r"\d+", text)]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_preset_fits_and_its_header_names_the_planned_peak(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    arguments, hardware = header(path)
    cli = PlanCLI(["fit", *arguments], callbacks=CALLBACKS)
    config = cli.config_init["fit"]
    card = CARD.search(hardware)
    figures = [(float(gb), count) for gb, text in FIGURE.findall(hardware) for count in devices(text)]
    assert card is not None
    assert figures
    if isinstance(config.trainer.devices, int):
        assert [count for _, count in figures] == [devices_of(config.trainer)]
    for gb, count in figures:
        strategy = chosen_strategy(
            "ddp" if config.trainer.strategy == "auto" else config.trainer.strategy, config.sharding
        )
        sizes, load = workload(
            cli.model, cli.datamodule, devices=count, strategy=strategy, precision=str(config.trainer.precision)
        )
        verdict = judge(sizes, load, float(card.group(1)))
        assert verdict.fits
        assert gb == pytest.approx(verdict.plan.peak, abs=0.051), f"on {count}: {verdict.plan.rows}"
        assert load.prompts == 1


def test_presets_are_there_for_both_models_and_all_cards() -> None:
    names = {path.stem for path in FILES}
    assert {f"{size}b_{card}gb" for size in (3, 7) for card in (24, 48, 80)} <= names
    assert {"7b_1x24gb", "2x8", "2x8_sharded"} <= names


def test_the_planner_is_a_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(ROOT)
    run = ["--config", "configs/scale/refavs_7b.yaml", "--trainer.devices", "1", "--trainer.strategy", "auto"]
    assert main(["--card_gb", "80", *run]) == 0
    said = capsys.readouterr().out
    assert "KV cache" in said
    assert re.search(r"fits: \d+\.\d of 80\.0 GB", said)
    assert main([*run, "--card_gb", "25"]) == 1
    assert re.search(r"which has 25\.0 GB\. Set --\S+ \S+", capsys.readouterr().out.replace("\n", " "))
    assert main([*run, "--card_gb", "25", "--sharding.offload", "true"]) == 2
    assert "sharding.offload is set, but trainer.strategy is auto" in capsys.readouterr().err


def test_a_precision_that_nobody_set_is_that_of_the_trainer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`configs/refavs.yaml` names none, and the trainer computes in float32 then."""
    monkeypatch.chdir(ROOT)
    run = ["--card_gb", "80", "--config", "configs/refavs.yaml", "--trainer.accelerator", "cpu"]
    assert main(run) == 0
    left_out = capsys.readouterr().out
    assert main([*run, "--trainer.precision", "32-true"]) == 0
    assert capsys.readouterr().out == left_out
    assert main([*run, "--trainer.precision", "bf16-mixed"]) == 0
    assert capsys.readouterr().out != left_out
