"""The benchmarks of speed run, on models so small that their figures say nothing, and write what they found."""

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from datamodules.records import Clip, ParseReport, Plan

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"
HOLES = """
import torch
from update_memory import peak, reset_peak

freed = [torch.ones(2**18) for _ in range(400)]
del freed
start = reset_peak(torch.device("cpu"))
needed = torch.ones(300 * 2**18)
print((peak(torch.device("cpu")) - start) / 2**20)
"""


def run(name: str, *options: str) -> str:
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / name), *options],
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
    run("system2.py", "--quick", f"--out={out}")
    (row,) = rows(out)
    assert row["seconds"].keys() == {"1", "2", "2, one by one"}
    assert all(parts["masks"] > 0 for parts in row["seconds"].values())
    run("system2.py", "--quick", f"--out={out}")
    assert rows(out) == [row], "what is there is not measured again"
    pictures = tmp_path / "pictures"
    printed = run("plot_speed.py", f"--results={tmp_path}", f"--pictures={pictures}")
    assert [Path(line).name for line in printed.split()] == ["speed_system2.png"]
    assert (pictures / "speed_system2.png").stat().st_size > 1000


def test_a_group_is_compared_with_rollouts_that_name_frames(script):
    """Boxes cost one second for every rollout of a group and masks two, where frames are named."""
    system2 = script("system2")
    clock = [0.0]

    class Counted:
        def ground(self, clip, plans):
            clock[0] += sum(len(plan.keyframes) > 0 for plan in plans)
            return plans

        def propagate(self, clip, plans):
            clock[0] += 2 * sum(len(plan.keyframes) > 0 for plan in plans)

    laps = script("speed.laps").Laps(torch.device("cpu"))
    laps.now = lambda: clock[0]
    named, absent = system2.plan_number(0, 4), Plan((), True, ParseReport(True))
    clips = [Clip(name, "video", "", "", "", system2.DiscFrames(4, 32)) for name in "ab"]
    cases = [(clips[0], [absent, named, named, named]), (clips[1], [named, named, named, named])]
    found = system2.one_round(Counted(), cases, [2, 4], laps)
    assert found["1"] == {"boxes": pytest.approx(1), "masks": pytest.approx(2)}
    assert found["2"] == {"boxes": 1.5, "masks": 3.0}
    assert found["4"] == found["4, one by one"] == {"boxes": 3.5, "masks": 7.0}


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
    """Eight completions of 256 tokens on a prompt of 256: 4096 tokens row by row, 2304 in one, and logits in chunks.

    Smaller ones would need less than what a process happens to keep: repeated runs differ by a hundred megabytes.
    """
    out = tmp_path / "memory.json"
    point = ("--shape=quick", "--points=256x256", "--vocabulary=32768")
    run("update_memory.py", *point, "--sides", "shared", "plain", f"--out={out}")
    found = {row["point"]["side"]: row["bytes"] for row in rows(out)}
    assert 2**20 < found["shared"] < 0.8 * found["plain"]


def test_memory_that_was_freed_before_an_update_does_not_hide_what_it_needs(script):
    """400 MiB are freed, and then 300 are needed, under the allocator settings of the measurement."""
    paths = os.pathsep.join([str(ROOT), str(BENCHMARKS)])
    found = subprocess.check_output(
        [sys.executable, "-c", HOLES],
        env={**os.environ, **script("speed.processes").ALLOCATOR, "PYTHONPATH": paths},
        text=True,
    )
    assert 299 < float(found) < 350


def test_what_was_measured_with_other_code_is_named(script, tmp_path, monkeypatch):
    results = script("speed.results").Results(tmp_path / "some.json")
    results.add({"prompt": 1}, 0, {"seconds": 2.0})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not results.missing({"prompt": 1}, 0)
    results.rows[0]["provenance"]["commit"] = "0123456789abcdef"
    with pytest.warns(UserWarning, match=r"some\.json holds measurements of commit 0123456789ab .* may mix the two"):
        assert not results.missing({"prompt": 1}, 0)
    assert results.missing({"prompt": 1}, 1)


def test_a_release_of_trl_whose_head_cannot_be_told_is_refused(script, monkeypatch):
    utils = pytest.importorskip("trl.trainer.utils", reason="TRL comes with the extra `bench`")
    side = script("speed.trl_side")
    answer = side.score_completions_only()
    assert utils._use_triton is answer
    trainer = side.TimedTrainer.__new__(side.TimedTrainer)
    trainer.laps, trainer.completions_only = script("speed.laps").Laps(torch.device("cpu")), answer
    name = "_get_per_token_logps_and_entropies"
    monkeypatch.setattr(side.GRPOTrainer, name, lambda self, ask: ask and utils._use_triton(torch.device("cpu")))
    assert getattr(trainer, name)(ask=True)
    answer.is_asked = False
    with pytest.raises(RuntimeError, match=r"in TRL [\d.]+ the forward pass did not ask it.*trl>=1\.16,<1\.17"):
        getattr(trainer, name)(ask=False)
    monkeypatch.delattr(utils, "_use_triton")
    with pytest.raises(RuntimeError, match="there is none"):
        side.score_completions_only()


def test_a_step_beside_trl(tmp_path):
    pytest.importorskip("trl", reason="TRL comes with the extra `bench`")
    out = tmp_path / "trl_step.json"
    printed = run("trl_step.py", "--quick", "--lengths", "varied", "--caches", "default", f"--out={out}")
    (row,) = rows(out)
    assert row["ratios"].keys() == {"rollout", "reference", "forward", "backward", "update", "step"}
    assert all(ratio > 0 for ratio in row["ratios"].values())
    assert "prompt 96, completion 8 varied, group 4, default cache" in printed


def test_what_does_not_fit_is_kept_as_such_and_the_rest_is_measured(script, monkeypatch, tmp_path, capsys):
    steps = script("trl_step")
    seconds = {side: {"generate": 1.0, "forward": 2.0} for side in ("trl", "ours")}

    def found(_, point):
        if point["prompt"] == 4096:
            return {"out_of_memory": "trl"}
        return {"seconds": seconds, "ratios": dict.fromkeys(steps.RATIOS, 1.0)}

    monkeypatch.setattr(steps, "in_process", found)
    out = tmp_path / "trl_step.json"
    options = ["--points", "4096x64", "512x64", "--caches", "default", "--runs", "1", f"--out={out}"]
    monkeypatch.setattr(sys, "argv", ["trl_step.py", *options])
    steps.main()
    too_large, measured = capsys.readouterr().out.splitlines()[-2:]
    assert too_large.startswith("| prompt 4096")
    assert too_large.split(" | ")[1:4] == ["0", "does not fit", "-"]
    assert measured.split(" | ")[1:4] == ["1", "3.00", "3.00"]
    assert [row.get("out_of_memory") for row in rows(out)] == ["trl", None]


def test_the_loss_sees_what_the_sampler_saw_and_trl_does_not(tmp_path):
    pytest.importorskip("trl", reason="TRL comes with the extra `bench`")
    out = tmp_path / "correctness.json"
    run("correctness.py", "--quick", "--kinds", "video", f"--out={out}")
    gaps = {row["point"]["side"]: row["gaps"] for row in rows(out)}
    assert gaps["ours"]["loss"]["max"] < 1e-4
    assert gaps["ours"]["sampling"]["max"] < 1e-4
    assert gaps["trl"]["loss"]["mean"] > 0.05


@pytest.mark.parametrize("kind", ["image", "audio"])
def test_half_precision_sees_it_up_to_rounding(tmp_path, kind):
    pytest.importorskip("trl", reason="TRL comes with the extra `bench`")
    out = tmp_path / "correctness.json"
    run("correctness.py", "--quick", "--kinds", kind, "--sides", "ours", "--dtype", "bfloat16", f"--out={out}")
    (row,) = rows(out)
    assert 1e-4 < row["gaps"]["loss"]["mean"] < 0.05
    assert 1e-4 < row["gaps"]["sampling"]["mean"] < 0.05
    assert 1e-4 < row["gaps"]["rounding"]["mean"] < 0.05


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
