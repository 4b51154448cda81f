"""The command line starts two processes by itself, which train, stop together and are gone on with by one."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch
from random_weights import fast_flags

ROOT = Path(__file__).parents[2]
Command = Callable[[Sequence[str]], int]


@pytest.fixture
def start() -> Iterator[Callable[[Sequence[str]], subprocess.Popen[str]]]:
    """Start `python train.py` as a shell does: in a process group of its own, which Ctrl-C goes to."""
    started: list[subprocess.Popen[str]] = []
    # What tells a process that somebody else has started it must not come from here.
    foreign = ("TORCHELASTIC_", "SLURM_", "MASTER_", "LOCAL_", "NODE_", "RANK", "WORLD_")
    own = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    environment = own | {"PYTHONUNBUFFERED": "1"}

    def begin(arguments: Sequence[str]) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "train.py", *arguments],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            process_group=0,
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def step_of(run: Path) -> int:
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]


def test_two_processes_train_and_one_goes_on(
    start: Callable[[Sequence[str]], subprocess.Popen[str]],
    command: Command,
    weights: Path,
    benchmark_cache: Path,
    tmp_path: Path,
) -> None:
    flags = fast_flags(weights, benchmark_cache, tmp_path)
    process = start(["fit", *flags, "--trainer.accelerator=cpu", "--trainer.devices=2"])
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert "DDPStrategy, a whole base on each of 2 devices" in said
    assert "1 on each of 2 processes = 2" in said
    run = tmp_path / "debug_fast" / "version_0"
    assert step_of(run) == 2
    assert command(["fit", "--resume", str(run), "--trainer.devices=1", "--trainer.max_steps=3"]) == 0
    assert step_of(run) == 3


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_all_processes_and_workers_saves_and_says_how_to_go_on(
    number: int,
    start: Callable[[Sequence[str]], subprocess.Popen[str]],
    command: Command,
    weights: Path,
    benchmark_cache: Path,
    tmp_path: Path,
) -> None:
    flags = fast_flags(weights, benchmark_cache, tmp_path)
    long = ["--trainer.max_steps=400", "--trainer.max_epochs=-1", "--checkpoint.every_n_train_steps=400"]
    calm = ["--trainer.limit_val_batches=0", "--trainer.num_sanity_val_steps=0"]
    process = start(
        ["fit", *flags, *long, *calm, "--data.num_workers=1", "--trainer.accelerator=cpu", "--trainer.devices=2"]
    )
    assert process.stdout is not None
    heard = []
    for line in process.stdout:
        heard.append(line)
        if "/400" in line:
            break
    os.killpg(process.pid, number)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 130, "".join(heard) + said
    assert said.count("Stopping after this step") == (number == signal.SIGINT)
    run = tmp_path / "debug_fast" / "version_0"
    assert f"Go on with: python train.py fit --resume {run}" in said
    step = step_of(run)
    assert 0 < step < 400
    assert command(["fit", "--resume", str(run), "--trainer.devices=1", f"--trainer.max_steps={step + 1}"]) == 0
    assert step_of(run) == step + 1
