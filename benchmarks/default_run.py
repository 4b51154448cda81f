"""What the default runs reach: both of them, over several seeds, exactly as a user starts them.

    python benchmarks/default_run.py

Needs `pip install -e ".[bench]"`.

Every run is a process of its own, `python train.py fit --config configs/<name>.yaml --seed_everything <seed>`, as many
at once as `--at-once` says (2, each of which computes on one core). Read from its run folder: held-out scores before
and after with their paired 95 % intervals, the training reward (mean of the first and of the last quarter of the
steps), how many rewards were logged; from the operating system: wall time and peak memory, workers included. Written:
`benchmarks/results/default_run.json`, the same as a table in `default_run.md`, and `docs/images/default_run.png` with
the curves. Started again, it goes on: a run that has ended is not made anew, as long as the command, the commit and the
weights are the same and the checkout has no changes.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import psutil

from callbacks.media import markdown_table
from metrics.version import commit
from outcomes import curves_of, newest_run
from side_by_side import ROOT, weights_digest

KEYS = ("val/jf", "val/null_accuracy", "val/false_absent", "val/reward")


@dataclass(frozen=True)
class Run:
    """One training and what it changed.

    Attributes:
        config: Name of the configuration.
        seed: Of everything.
        wall_s: Seconds from start to end of the process.
        peak_gb: Largest resident memory of the process and its workers together, in gigabytes (1e9 bytes).
        changes: Rows of the run's own summary for `KEYS`.
        curves: (step, value) of the rewards and the held-out scores.
        part_s: Seconds per part of a step, averaged over the run.
    """

    config: str
    seed: int
    wall_s: float
    peak_gb: float
    changes: dict[str, dict[str, Any]]
    curves: dict[str, list[tuple[int, float]]]
    part_s: dict[str, float]

    @property
    def reward(self) -> tuple[float, float]:
        """Mean training reward of the first and of the last quarter of the steps."""
        values = np.array([value for _, value in self.curves["reward"]])
        part = max(1, len(values) // 4)
        return float(values[:part].mean()), float(values[-part:].mean())


def run_once(config: str, seed: int, folder: Path, extra: Sequence[str]) -> Run:
    """Train once and read what came out.

    Raises:
        subprocess.CalledProcessError: The training failed; its output stands above.
    """
    name = f"{config}_seed{seed}"
    command = [sys.executable, "train.py", "fit", "--config", f"configs/{config}.yaml", "--seed_everything", str(seed)]
    command += ["--trainer.logger.save_dir", str(folder), "--trainer.logger.name", name, *extra]
    asked = {"command": command, "commit": commit(ROOT), "weights": weights_digest(ROOT / "weights" / "tiny")}
    ended = folder / name / "result.json"
    if (found := finished(ended, asked)) is not None:
        return found
    print(" ".join(command), flush=True)
    start = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT)
    peak = 0
    while process.poll() is None:
        peak = max(peak, _resident(process.pid))
        time.sleep(1)
    wall_s = time.perf_counter() - start
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    run = read_run(config, seed, folder / name, wall_s=wall_s, peak_gb=peak / 1e9)
    draft = ended.with_suffix(".draft")
    draft.write_text(json.dumps({"asked": asked, "run": asdict(run)}) + "\n")
    draft.replace(ended)
    return run


def finished(file: Path, asked: dict[str, Any]) -> Run | None:
    """A run that has ended, if it was asked for in the same way and by code that a commit names."""
    code = asked["commit"]
    if code is None or code.endswith("+changes") or not file.exists():
        return None
    content = json.loads(file.read_text())
    return Run(**content["run"]) if content["asked"] == asked else None


def read_run(config: str, seed: int, place: Path, *, wall_s: float, peak_gb: float) -> Run:
    """What the newest training in a folder has left; see `Run`.

    Raises:
        FileNotFoundError: There is no training.
    """
    newest = newest_run(place)
    if newest is None:
        raise FileNotFoundError(f"{place} has no training: expected a folder version_0")
    rows = json.loads((newest / "summary.json").read_text())["changes"]
    logged = curves_of(newest)
    kept = [key for key in (*KEYS, "reward", "kl") if key in logged]
    curves = {key: [(step, round(value, 6)) for step, value in logged[key]] for key in kept}
    seconds = {key: float(np.mean([v for _, v in values])) for key, values in logged.items() if key.startswith("time/")}
    return Run(config, seed, wall_s, peak_gb, {r["key"]: r for r in rows if r["key"] in KEYS}, curves, seconds)


def table(runs: Sequence[Run]) -> str:
    """One row per run: before, after and the paired interval of every key, reward, time and memory."""
    header = ["config", "seed", "J&F", "null right", "wrongly absent", "reward in training", "rewards", "minutes", "GB"]
    rows = []
    for run in runs:
        cells = [run.config, str(run.seed)]
        for key in KEYS[:3]:
            row = run.changes[key]
            interval = f" ({row['low']:+.3f} .. {row['high']:+.3f})" if key == "val/jf" else ""
            cells.append(f"{row['first']:.3f} → {row['last']:.3f}{interval}")
        first, last = run.reward
        cells += [f"{first:.2f} → {last:.2f}", str(len(run.curves["reward"]))]
        rows.append([*cells, f"{run.wall_s / 60:.1f}", f"{run.peak_gb:.1f}"])
    return markdown_table(header, rows)


def draw(runs: Sequence[Run], path: Path) -> None:
    """Held-out scores and training reward over steps, one line per seed."""
    mpl.use("agg")
    from matplotlib import pyplot as plt

    configs = list(dict.fromkeys(run.config for run in runs))
    panels = {"val/jf": "held-out J&F", "val/null_accuracy": "held-out null accuracy", "reward": "reward in training"}
    figure, axes = plt.subplots(len(configs), 3, figsize=(11, 2.6 * len(configs)), squeeze=False, layout="constrained")
    for row, config in zip(axes, configs, strict=True):
        for axis, (key, title) in zip(row, panels.items(), strict=True):
            for run in (run for run in runs if run.config == config):
                steps, values = np.array(run.curves[key]).T
                if key == "reward":
                    values = smooth(values)
                axis.plot(steps, values, marker="" if key == "reward" else "o", markersize=3, label=f"seed {run.seed}")
            axis.set_title(f"{config}: {title}" + (", mean of 9" if key == "reward" else ""), fontsize=9)
            axis.grid(alpha=0.3)
            axis.tick_params(labelsize=8)
    axes[-1][0].set_xlabel("rollout step", fontsize=8)
    axes[0][0].legend(fontsize=7)
    figure.savefig(path, dpi=110)


def smooth(values: np.ndarray) -> np.ndarray:
    """The mean of every value and its four neighbors on either side; the ends stand in for what lies beyond them."""
    return np.convolve(np.pad(values, 4, mode="edge"), np.ones(9) / 9, mode="valid")


def _resident(pid: int) -> int:
    """Bytes of a process and its children that lie in memory; shared pages count in each."""
    total = 0
    for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:  # a worker that has just ended
            continue
    return total


def main() -> None:
    """Run, write and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--configs", nargs="+", default=["refavs", "revos"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "default_run", help="where the run folders go")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--picture", type=Path, default=ROOT / "docs" / "images" / "default_run.png")
    parser.add_argument("--at-once", type=int, default=2, help="runs that go on at the same time")
    options, extra = parser.parse_known_args()
    jobs = [(config, seed) for seed in options.seeds for config in options.configs]
    with ThreadPoolExecutor(options.at_once) as pool:
        done = list(pool.map(lambda job: run_once(*job, options.folder.resolve(), extra), jobs))
    runs = sorted(done, key=lambda run: (options.configs.index(run.config), run.seed))
    source = {
        "command": " ".join(["python", "benchmarks/default_run.py", *sys.argv[1:]]),
        "commit": commit(ROOT),
        "machine": f"{psutil.cpu_count()} CPU threads, {platform.machine()}, no accelerator used",
        "at once": f"{options.at_once} runs",
    }
    options.out.mkdir(parents=True, exist_ok=True)
    content = {"provenance": source, "runs": [asdict(run) for run in runs]}
    (options.out / "default_run.json").write_text(json.dumps(content, indent=1) + "\n")
    notes = "\n".join(f"- {name}: {value}" for name, value in source.items())
    (options.out / "default_run.md").write_text(f"# Default runs\n\n{table(runs)}\n\n{notes}\n")
    draw(runs, options.picture)
    print(table(runs))


if __name__ == "__main__":
    main()
