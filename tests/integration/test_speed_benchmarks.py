"""The benchmarks of speed run, on models so small that their figures say nothing, and write what they found."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(script: str, *options: str) -> str:
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / script), *options],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def rows(path: Path) -> list[dict]:
    found = json.loads(path.read_text())["rows"]
    assert path.with_suffix(".md").read_text().count("benchmarks/") >= 1, "where the numbers come from"
    assert all(row["provenance"].keys() >= {"command", "commit", "machine", "versions"} for row in found)
    return found


def test_system_2(tmp_path):
    out = tmp_path / "system2.json"
    run("system2.py", "--quick", "--separately", f"--out={out}")
    (row,) = rows(out)
    assert row["seconds"].keys() == {"1", "2", "2, one by one"}
    assert all(parts["masks"] > 0 for parts in row["seconds"].values())
    run("system2.py", "--quick", "--separately", f"--out={out}")
    assert rows(out) == [row], "what is there is not measured again"
    pictures = tmp_path / "pictures"
    printed = run("plot_speed.py", f"--results={tmp_path}", f"--pictures={pictures}")
    assert [Path(line).name for line in printed.split()] == ["speed_system2.png"]
    assert (pictures / "speed_system2.png").stat().st_size > 1000


@pytest.mark.parametrize("how", [[], ["--unshared"]], ids=["shared", "unshared"])
def test_system_2_that_asks_the_base_model(tmp_path, how):
    out = tmp_path / "system2.json"
    run("system2.py", "--quick", "--grounder", "reasoner", *how, f"--out={out}")
    (row,) = rows(out)
    assert row["point"]["size"] == ", ".join(
        ["random", "reasoner quick", "answers of 4", *(["unshared"] if how else [])]
    )
    assert all(parts["boxes"] > 0 and parts["masks"] > 0 for parts in row["seconds"].values())


def test_memory_of_an_update(tmp_path):
    out = tmp_path / "memory.json"
    run("update_memory.py", "--quick", "--sides", "shared", "plain", f"--out={out}")
    found = {row["point"]["side"]: row["bytes"] for row in rows(out)}
    assert found.keys() == {"shared", "plain"}
    assert all(size > 2**20 for size in found.values())


def test_a_step_beside_trl(tmp_path):
    pytest.importorskip("trl", reason="TRL comes with the extra `bench`")
    out = tmp_path / "trl_step.json"
    printed = run("trl_step.py", "--quick", "--lengths", "varied", "--caches", "default", f"--out={out}")
    (row,) = rows(out)
    assert row["ratios"].keys() == {"rollout", "reference", "forward", "backward", "update", "step"}
    assert all(ratio > 0 for ratio in row["ratios"].values())
    assert "prompt 96, completion 8 varied, group 4, default cache" in printed


def test_the_loss_sees_what_the_sampler_saw_and_trl_does_not(tmp_path):
    pytest.importorskip("trl", reason="TRL comes with the extra `bench`")
    out = tmp_path / "correctness.json"
    run("correctness.py", "--quick", "--kinds", "video", f"--out={out}")
    gaps = {row["point"]["side"]: row["gaps"] for row in rows(out)}
    assert gaps["ours"]["loss"]["max"] < 1e-4
    assert gaps["ours"]["sampling"]["max"] < 1e-4
    assert gaps["trl"]["loss"]["mean"] > 0.05


def test_measurements_of_several_prompts_are_drawn_as_curves(tmp_path):
    seconds = {side: {"generate": 1.0, "forward": 2.0} for side in ("trl", "ours")}
    fixed = {"completion": 64, "group": 8, "lengths": "varied", "cache": "default"}
    found = [
        {"point": {"prompt": prompt, **fixed}, "run": run, "seconds": seconds, "ratios": {"step": 3.0 + run}}
        for prompt in (512, 1024)
        for run in range(2)
    ]
    (tmp_path / "trl_step.json").write_text(json.dumps({"rows": found}))
    printed = run("plot_speed.py", f"--results={tmp_path}", f"--pictures={tmp_path}")
    assert [Path(line).name for line in printed.split()] == ["speed_step.png"]
