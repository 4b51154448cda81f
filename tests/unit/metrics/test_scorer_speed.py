"""The benchmark of the scorer runs, and what it compares agrees; its figures are for people."""

import subprocess
import sys
from pathlib import Path

import pytest


def test_the_benchmark_runs_and_its_programs_agree():
    pytest.importorskip("skimage", reason="scikit-image comes with the extra `bench`")
    script = Path(__file__).parents[3] / "benchmarks" / "scorer_speed.py"
    small = ["--expressions=3", "--frames=2", "--height=60", "--width=90", "--compared=2", "--workers=1"]
    done = subprocess.run(
        [sys.executable, str(script), *small], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("times ours") == 3
