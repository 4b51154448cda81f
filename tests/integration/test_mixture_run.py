"""The mixture under the real command line: every benchmark takes its turn, and a resumed run is the same run."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

Command = Callable[[Sequence[str]], int]

SIZES = {
    "refavs": "{train: 2, val: 1, test_s: 1, test_u: 1, test_n: 1, null_train: 1, null_val: 1}",
    "revos": "{train: 4, valid: 1, non_existent_every: 1}",
    "mevis": "{train: 3, valid_u: 1, valid: 0}",
    "refcocog": "{train: 3}",
}


def line(weights: Path, cache: Path, runs: Path, *, steps: int) -> list[str]:
    """Four steps are one of each benchmark."""
    sources = [f"--data.sources.{name}.avshapes_sizes={sizes}" for name, sizes in SIZES.items()]
    taken = [f"--data.sources.{name}.train_size=2" for name in SIZES]
    return [
        "--config=configs/mixture.yaml",
        *(f"--model.{part}.path={weights / part}" for part in ("reasoner", "grounder", "propagator")),
        f"--trainer.logger.save_dir={runs}",
        f"--data.avshapes_cache={cache}",
        *sources,
        *taken,
        "--data.prompts_per_step=1",
        "--data.val_size=1",
        "--data.val_null_fraction=null",
        "--model.grpo.group_size=2",
        "--model.grpo.updates_per_rollout=1",
        "--model.sampling.max_new_tokens=16",
        f"--trainer.max_steps={steps}",
        "--trainer.val_check_interval=4",
        "--trainer.num_sanity_val_steps=0",
        "--model.schedule.total_steps=4",
        "--checkpoint.every_n_train_steps=2",
        "--rewards.low=cli_doubles.LowTokens",
        "--overlays.clips=0",
    ]


def curve(run: Path, tag: str) -> list[tuple[int, float]]:
    events = EventAccumulator(str(run), size_guidance={"scalars": 0})
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(tag)]


@pytest.mark.filterwarnings("ignore")
def test_every_benchmark_takes_its_turn_and_a_resumed_run_is_the_same(
    command: Command, weights: Path, benchmark_cache: Path, tmp_path: Path
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert command(["fit", *line(weights, benchmark_cache, whole, steps=4)]) == 0
    assert command(["fit", *line(weights, benchmark_cache, parts, steps=2)]) == 0
    run, again = whole / "mixture" / "version_0", parts / "mixture" / "version_0"
    place = torch.load(again / "checkpoints" / "last.ckpt", weights_only=True)["loops"]["fit_loop"]["state_dict"]
    assert sum(place["combined_loader"][0]["parts"].values()) == 2
    assert command(["fit", "--resume", str(again), "--trainer.max_steps=4"]) == 0

    adapters = [load_file(folder / "adapter" / "adapter_model.safetensors") for folder in (run, again)]
    assert any(value.any() for name, value in adapters[0].items() if "lora_B" in name)
    assert all(torch.equal(value, adapters[1][name]) for name, value in adapters[0].items())
    assert curve(run, "reward") == curve(again, "reward")
    assert len(curve(run, "reward")) == 4

    last = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["loops"]["fit_loop"]["state_dict"]
    assert last["combined_loader"][0]["parts"] == dict.fromkeys(SIZES, 1)
    keys = {row["key"] for row in json.loads((run / "summary.json").read_text())["changes"]}
    assert {"val/jf", "val/refavs/jf", "val/revos/jf", "val/mevis/jf", "val/rewards/alignment"} <= keys


@pytest.mark.filterwarnings("ignore")
def test_one_test_command_reports_every_benchmark(
    command: Command, weights: Path, benchmark_cache: Path, tmp_path: Path
) -> None:
    assert command(["test", *line(weights, benchmark_cache, tmp_path, steps=1), "--data.test_size=1"]) == 0
    results = json.loads((tmp_path / "mixture" / "test_0" / "results.json").read_text())
    assert set(results["official"]) == {"refavs", "revos", "mevis"}
    assert {"test/refavs/jf", "test/revos/jf", "test/unseen/jf"} <= set(results["metrics"])
