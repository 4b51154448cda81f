"""The benchmark of the scorer runs, what it compares agrees, and what it finds is kept; its figures are for people."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "scorer_speed.py"
SMALL = ["--expressions=3", "--frames=2", "--height=60", "--width=90", "--compared=2", "--workers=1"]


def run(out):
    command = [sys.executable, str(SCRIPT), *SMALL, f"--out={out}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(out.read_text())["rows"]


def test_the_benchmark_runs_and_its_programs_agree(tmp_path):
    pytest.importorskip("skimage", reason="scikit-image comes with the extra `bench`")
    out = tmp_path / "results" / "scorer_speed.json"
    (row,) = run(out)
    assert row["point"] == {"expressions": 3, "frames": 2, "height": 60, "width": 90, "workers": 1, "compared": 2}
    assert row["compared"] == ["set/video000/0", "set/video000/2"]
    assert {name: len(seconds) for name, seconds in row["processor_s"].items()} == {
        "metrics.score": 2,
        "disk": 2,
        "distance": 2,
    }
    for name in ("disk", "distance"):
        least, median, most = (row["ratios"][name][key] for key in ("least", "median", "most"))
        assert 0 < least <= median <= most
    whole = row["whole_set"]
    assert whole["files"] == 6
    assert whole["expressions_per_s"] == pytest.approx(3 / whole["wall_s"])
    assert row["provenance"].keys() >= {"command", "commit", "day", "machine", "versions"}
    page = out.with_suffix(".md").read_text()
    assert "| expressions per second |" in page
    assert page.count("| 90 x 60 |") == 4, "the whole set and three programs"
    assert "`python benchmarks/scorer_speed.py --expressions=3" in page, "where the numbers come from"
    assert run(out) == [row], "what is there is not measured again"
