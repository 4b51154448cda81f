"""What the headers of the large configurations say about memory is what is planned."""

import re
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from lightning_modules.cli_strategy import chosen_strategy
from lightning_modules.planning import judge, workload
from models.memory import Workload
from models.sharding import FIRST_OF_MIXED_TYPES
from models.sizes import ReasonerSizes
from scripts.doctor import PlanCLI, devices_of, main
from train import CALLBACKS

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "configs" / "scale").glob("*.yaml"))
CARD = re.compile(r"GPUs? with (\d+) GB")
ALONE = [path for path in FILES if not path.stem.startswith("2x8")]
FIGURE = re.compile(r"([\d.]+) GB on ([\dx, or]+)")
PAPERS_PROMPTS = 8


def header(path: Path) -> tuple[list[str], str]:
    """Arguments of the command, and what is said about hardware."""
    lines = path.read_text().splitlines()
    command = shlex.split(lines[1].removeprefix("# Command: "))
    return command[command.index("fit") + 1 :], lines[2]


def planned(cli: PlanCLI, count: int) -> tuple[ReasonerSizes, Workload]:
    """The workload of a command on so many devices; several take `ddp` where nothing else is said."""
    config = cli.config_init["fit"]
    strategy = chosen_strategy("ddp" if config.trainer.strategy == "auto" else config.trainer.strategy, config.sharding)
    return workload(
        cli.model, cli.datamodule, devices=count, strategy=strategy, precision=str(config.trainer.precision)
    )


def built(arguments: Sequence[str]) -> PlanCLI:
    """A command line as the planner reads it, which is as training does."""
    return PlanCLI(["fit", *arguments], callbacks=CALLBACKS)


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
    cli = built(arguments)
    config = cli.config_init["fit"]
    card = CARD.search(hardware)
    figures = [(float(gb), count) for gb, text in FIGURE.findall(hardware) for count in devices(text)]
    assert card is not None
    assert figures
    if isinstance(config.trainer.devices, int):
        assert [count for _, count in figures] == [devices_of(config.trainer)]
    for gb, count in figures:
        verdict = judge(*planned(cli, count), float(card.group(1)))
        assert verdict.fits
        assert gb == pytest.approx(verdict.plan.peak, abs=0.051), f"on {count}: {verdict.plan.rows}"


@pytest.mark.parametrize(
    "path", [path for path in FILES if "devices: auto" in path.read_text()], ids=lambda path: path.stem
)
def test_a_preset_says_how_fewer_cards_make_the_same_batch_and_it_fits(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight prompts per update, whatever the number of cards."""
    monkeypatch.chdir(ROOT)
    arguments, hardware = header(path)
    said = re.search(r"--data\.prompts_per_step ([\w, ]+)\.", " ".join(path.read_text().replace("#", "").split()))
    pairs = [(int(prompts), int(count)) for prompts, count in re.findall(r"(\d+) on (\d+)", said.group(1))]
    assert pairs
    cli = built(arguments)
    for prompts, count in pairs:
        assert prompts * count == 8
        sizes, load = planned(cli, count)
        assert judge(sizes, replace(load, prompts=prompts), float(CARD.search(hardware).group(1))).fits, f"on {count}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_preset_that_needs_a_newer_pytorch_says_so(path: Path) -> None:
    """Bases in bfloat16 beside adapters in float32 are sharded since a release later than the oldest that works."""
    release = ".".join(map(str, FIRST_OF_MIXED_TYPES))
    assert (f"PyTorch {release} or later" in header(path)[1]) == ("strategy: fsdp" in path.read_text())


@pytest.mark.parametrize("path", ALONE, ids=lambda path: path.stem)
def test_advised_flags_are_read_by_the_command_and_make_it_fit(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On cards from 6 to 48 GB, and on one, two and eight of them."""
    monkeypatch.chdir(ROOT)
    arguments = header(path)[0]
    advised: dict[tuple[str, ...], list[tuple[int, float]]] = {}
    cli = built(arguments)
    for count in (1, 2, 8):
        sizes, load = planned(cli, count)
        for card_gb in (6.0, 10.0, 14.0, 18.0, 24.0, 30.0, 48.0):
            verdict = judge(sizes, load, card_gb)
            if verdict.advice.flags:
                advised.setdefault(verdict.advice.flags, []).append((count, card_gb))
    assert advised
    for flags, places in advised.items():
        changed = built([*arguments, *(word for flag in flags for word in flag.split())])
        for count, card_gb in places:
            verdict = judge(*planned(changed, count), card_gb)
            assert verdict.fits, f"{flags} on {count} x {card_gb} GB: {verdict.message}"


def test_presets_are_there_for_both_models_and_all_cards() -> None:
    names = {path.stem for path in FILES}
    assert {f"{size}b_{card}gb" for size in (3, 7) for card in (24, 48, 80)} <= names
    assert {"7b_1x24gb", "2x8", "2x8_sharded", "refavs_7b", "revos_7b", "mixture_7b"} <= names


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
    assert "sharding.offload is true, but trainer.strategy is auto" in capsys.readouterr().err


def test_the_planner_says_for_how_many_devices_it_plans(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`devices: auto` are those of this machine, which may not be the one that is planned for."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    run = ["--card_gb", "24", "--config", "configs/scale/revos_7b.yaml", "--config", "configs/scale/3b_24gb.yaml"]
    assert main(run) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "trainer.devices is auto and there is no GPU here: planned for 1 per node" in said
    assert "on 1 device:" in said
    assert "held-out clips are looked at whole: there is room for" in said
    assert main([*run, "--trainer.devices", "4", "--trainer.strategy", "fsdp"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "trainer.devices is auto" not in said
    assert "on 4 devices with the base spread over 4 (fsdp):" in said


def test_the_planner_says_what_it_does_not_plan(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    assert main(["--card_gb", "24", "--config", "configs/baselines/sft.yaml"]) == 2
    assert "found SFTModule. Supervised training, test and predict are not" in capsys.readouterr().err


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


def documented() -> list[str]:
    """Every run of this folder that a document, a header or the job script shows how to start."""
    shown = [ROOT / "docs" / "scale.md", ROOT / "scripts" / "slurm.sh", *FILES]
    lines = "\n".join(path.read_text().replace("\\\n", " ") for path in shown).splitlines()
    runs = (line[line.index("--config configs/scale/") :] for line in lines if "--config configs/scale/" in line)
    return sorted({run for run in runs if "--card_gb" not in run})


@pytest.mark.parametrize("run", documented())
def test_a_documented_run_validates_and_saves_within_its_epoch(run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And has the paper's prompts per update, or its last file says how many, on the most cards that its files name."""
    monkeypatch.chdir(ROOT)
    cli = built(shlex.split(run))
    config = cli.config["fit"]
    cards = 8 if config.trainer.devices == "auto" else devices_of(config.trainer)
    prompts, last = cards * cli.datamodule.prompts_per_step, re.findall(r"configs/scale/\w+\.yaml", run)[-1]
    if prompts != PAPERS_PROMPTS:
        assert f"{prompts} prompts per update".replace("1 prompts", "One prompt") in (ROOT / last).read_text()
    # Whole training splits are larger than the 1,600 prompts of RefAVS.
    steps = (getattr(cli.datamodule, "train_size", None) or 1600) // prompts
    assert config.trainer.val_check_interval <= steps
    assert config.checkpoint.every_n_train_steps <= steps
