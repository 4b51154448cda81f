"""The README's main command, shortened, on the weights that it would use."""

import re
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def main_command() -> list[str]:
    """The arguments of the first training that the README shows."""
    found = re.search(r"^python train.py (fit .*)$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert found is not None
    return shlex.split(found.group(1))


@pytest.mark.skipif(
    not (ROOT / "weights" / "tiny" / "reasoner").is_dir(), reason="weights/tiny/reasoner is not in this checkout"
)
def test_the_main_command_of_the_readme_runs(
    command: Callable[[Sequence[str]], int], benchmark_cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shorter = [
        "--config=configs/debug/fast.yaml",
        f"--trainer.logger.save_dir={tmp_path}",
        f"--data.avshapes_cache={benchmark_cache}",
    ]
    assert command([*main_command(), *shorter]) == 0
    assert (tmp_path / "debug_fast" / "version_0" / "adapter" / "adapter_model.safetensors").exists()
    assert "tensorboard --logdir" in capsys.readouterr().out
