"""What sharing is worth in a whole default run, and that it learns the same: shared and plain side by side.

    python benchmarks/whole_run.py

Needs `pip install -e ".[bench]"`.

`python train.py fit --config configs/refavs.yaml` twice at the same time, each on one core: as it is, and in the plain
form (`--model.grpo.engine plain`, `--model.propagator.batched false`). The plain form is no straw man: it runs the
towers and reads the prompt once as well, and then has a row per completion while sampling and in reference and update,
and follows one object after another; the detector shares in both. Both draw the same noise. In exact arithmetic they
would be one run; sums in another order make single probabilities differ in the sixth digit, until somewhere another
token is drawn and the two go on like two seeds. Printed: seconds of every part of a step, their ratios, after how many
steps the mean rewards first differ, and what both have learned. Written: `benchmarks/results/whole_run.json` and `.md`,
and `docs/images/whole_run.png`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import matplotlib as mpl
import numpy as np

from callbacks.media import markdown_table
from default_run import Run, run_once, smooth
from speed.results import FOLDER, ROOT, provenance

PLAIN = ("--model.grpo.engine", "plain", "--model.propagator.batched", "false")
PARTS = ("rollout_s", "system_2_s", "update_s", "step_s")


def main() -> None:
    """Run, write and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--config", default="refavs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "whole_run", help="where the run folders go")
    parser.add_argument("--out", type=Path, default=FOLDER / "whole_run.json")
    parser.add_argument("--picture", type=Path, default=ROOT / "docs" / "images" / "whole_run.png")
    options, extra = parser.parse_known_args()
    flags = {"shared": extra, "plain": [*PLAIN, *extra]}
    with ThreadPoolExecutor(2) as pool:
        jobs = {
            side: pool.submit(run_once, options.config, options.seed, options.folder.resolve() / side, more)
            for side, more in flags.items()
        }
        runs = {side: job.result() for side, job in jobs.items()}
    source = provenance()
    text = f"{table(runs)}\n\n{differ(runs)}\n"
    options.out.parent.mkdir(parents=True, exist_ok=True)
    content = {"provenance": source, "runs": {side: asdict(run) for side, run in runs.items()}}
    options.out.write_text(json.dumps(content, indent=1) + "\n")
    notes = "\n".join(f"- {name}: {value}" for name, value in source.items())
    options.out.with_suffix(".md").write_text(f"# A whole run, shared and plain\n\n{text}\n{notes}\n")
    draw(runs, options.picture)
    sys.stdout.write(text)


def table(runs: Mapping[str, Run]) -> str:
    """Seconds per part of a step and of the whole process, what was learned, and how many times longer plain takes."""
    rows = [
        [part.removesuffix("_s").replace("_", " "), *(run.part_s[f"time/{part}"] for run in runs.values())]
        for part in PARTS
    ]
    rows.append(["whole run", *(run.wall_s for run in runs.values())])
    cells = [[str(row[0]), *(f"{value:.2f}" for value in row[1:]), f"{row[2] / row[1]:.2f}"] for row in rows]
    for key, title in (("val/jf", "held-out J&F"), ("val/null_accuracy", "null right")):
        changes = [run.changes[key] for run in runs.values() if key in run.changes]
        if len(changes) == len(runs):
            cells.append([title, *(f"{change['first']:.3f} → {change['last']:.3f}" for change in changes), ""])
    return markdown_table(["seconds", *runs, "plain / shared"], cells)


def differ(runs: Mapping[str, Run]) -> str:
    """Where the mean rewards of the two part, in words."""
    ours, theirs = (np.array([value for _, value in run.curves["reward"]]) for run in runs.values())
    apart = np.flatnonzero(np.abs(ours - theirs) > 1e-4)
    if not len(apart):
        return f"The mean reward is the same in all {len(ours)} steps, within 1e-4."
    later = slice(apart[0], None)
    return (
        f"The mean reward is the same in the first {apart[0]} of {len(ours)} steps, within 1e-4; over the others it is "
        f"{ours[later].mean():.2f} and {theirs[later].mean():.2f} in the mean."
    )


def draw(runs: Mapping[str, Run], path: Path) -> None:
    """Training reward over rollout steps, and over time."""
    mpl.use("agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3), sharey=True, layout="constrained")
    for side, run in runs.items():
        steps, rewards = np.array(run.curves["reward"]).T
        axes[0].plot(steps, smooth(rewards), label=side)
        axes[1].plot(np.arange(1, len(steps) + 1) * run.part_s["time/step_s"] / 60, smooth(rewards), label=side)
    axes[0].set_ylabel("reward in training, mean of 9", fontsize=8)
    for axis, label in zip(axes, ("rollout step", "minutes"), strict=True):
        axis.set_xlabel(label, fontsize=8)
        axis.grid(alpha=0.3)
        axis.tick_params(labelsize=8)
    axes[0].legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
