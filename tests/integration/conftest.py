"""One command line in this process, on random weights and a benchmark of a few clips."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from random_weights import fast_flags, write_random_weights

from lightning_modules.cli import run
from train import CALLBACKS

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="session")
def benchmark_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Generated benchmarks are made once per test session, away from the user's cache."""
    return tmp_path_factory.mktemp("avshapes")


@pytest.fixture
def fast(weights: Path, benchmark_cache: Path, tmp_path: Path) -> list[str]:
    return fast_flags(weights, benchmark_cache, tmp_path / "runs")


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[[Sequence[str]], int]:
    """Run a command as `python train.py` would; gives the exit code."""
    monkeypatch.chdir(Path(__file__).parents[2])
    monkeypatch.setattr("sys.argv", ["train.py"])

    def execute(arguments: Sequence[str]) -> int:
        try:
            return run(list(arguments), callbacks=CALLBACKS)
        except SystemExit as stop:
            return int(stop.code or 0)

    return execute
