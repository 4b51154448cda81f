"""What each way of training is worth: no training, supervised training, and GRPO with every set of rewards.

    python benchmarks/baselines.py
    python benchmarks/baselines.py --quick

One policy per row and seed is trained on the RefAVS and ReVOS sides of AVShapes together and tested on both, on the
same clips for every row. Two runs go side by side, each as a user starts it; a stopped table goes on where it was.
Written: `docs/results.md` with a plot, and every number in `benchmarks/results/baselines.json`.

Intervals are percentile bootstraps over videos, paired: per clip the mean over seeds of a row minus that of another,
and all clips of a video drawn together. They cover the choice of videos. The spread after ± is the standard deviation
over seeds.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datamodules.avshapes.make import ensure_avshapes
from score_tables import difference_table, draw, score_table
from side_by_side import (
    ROOT,
    Job,
    Outcome,
    commits_of,
    config_digests,
    read_outcome,
    remember,
    run_jobs,
    weights_digest,
)

GRPO = "configs/baselines/grpo.yaml"
SFT = "configs/baselines/sft.yaml"
PARTS = ("reasoner", "grounder", "propagator")


@dataclass(frozen=True)
class Row:
    """One way of training.

    Attributes:
        name: Of its folders.
        title: What the table calls it.
        configs: Configuration files, later ones win.
        trains: Whether there is anything to train.
    """

    name: str
    title: str
    configs: tuple[str, ...]
    trains: bool = True


def _rewards(name: str) -> tuple[str, str]:
    return GRPO, f"configs/ablations/{name}.yaml"


ROWS = (
    Row("base", "no training", (GRPO,), trains=False),
    Row("sft", "supervised", (SFT,)),
    Row("sft_oracle", "supervised, oracle descriptions", (SFT, "configs/baselines/sft_oracle.yaml")),
    Row("rk", "GRPO, R_K", _rewards("rk")),
    Row("rk_ra", "GRPO, R_K + R_A", _rewards("rk_ra")),
    Row("rg", "GRPO, R_G", _rewards("rg")),
    Row("rk_rg", "GRPO, R_K + R_G", _rewards("rk_rg")),
    Row("rk_ra_rg", "GRPO, R_K + R_A + R_G", _rewards("rk_ra_rg")),
    Row("without_null", "GRPO, all three, no null reward", _rewards("rk_ra_rg_without_null")),
)

_PROTOCOL = """\
One policy per row and seed, trained on the RefAVS and ReVOS sides together and tested on both: RefAVS seen and unseen
(J&F by its own rules, per clip), ReVOS referring, reasoning and their mean (J&F of DAVIS), and the share of absent
targets that were recognized. Times 100, higher is better; *null S* is the size of masks on absent targets by the
benchmark's formula, per clip, 0..1, lower is better. *Unusable* is the share of answers, in percent, that name neither
a moment nor an absence. The spread after ± is over seeds. *Prompts* counts what was trained on, repeats included: the
supervised rows go four times through the prompts that the others see once. *Seconds* are those of the training steps,
with two runs side by side. No run has looked at a test clip; settings were chosen on validation clips, which no run
trains on."""

_SUPERVISED = """\
The supervised rows learn the frames with the greatest visible area. Their description is the expression, which is what
a benchmark labels; *oracle descriptions* are true ones from the generator, which no benchmark has."""

COMPARED = {"base": "no training", "sft": "supervised"}
"""Rows that the others are compared with."""


def make_jobs(
    rows: Sequence[Row], seeds: Sequence[int], *, prompts: int, clips: int, extra: Sequence[str]
) -> list[Job]:
    """One job per row and seed, the first seed of every row first; without training one seed says all.

    Args:
        rows: What to run.
        seeds: Of weights, sampling and the drawn prompts.
        prompts: Training prompts of each benchmark.
        clips: Most test clips of each split, the same ones for every job.
        extra: Flags for every command.
    """
    sizes = [f"--data.sources.{name}.train_size={prompts}" for name in ("refavs", "revos")]
    quiet = ["--trainer.limit_val_batches=0", "--trainer.num_sanity_val_steps=0", "--overlays.clips=0"]
    test = ["--data.seed=0", f"--data.test_size={clips}", "--overlays.clips=0", *extra]
    jobs = []
    for seed in seeds:
        for row in rows:
            if not row.trains and seed != seeds[0]:
                continue
            sampling = [f"--model.sampling.seed={seed}"] if row.configs[0] == GRPO else []
            fit = [f"--seed_everything={seed}", f"--data.seed={seed}", *sampling, *sizes, *quiet, *extra]
            jobs.append(Job(f"{row.name}_seed{seed}", row.configs, tuple(fit) if row.trains else None, tuple(test)))
    return jobs


def write_page(
    table: Mapping[str, Sequence[Outcome]],
    prompts: Mapping[str, int],
    source: Mapping[str, Any],
    page: Path,
    picture: Path,
) -> None:
    """The page of results.

    Args:
        table: Runs by row.
        prompts: Training prompts of each row.
        source: Where the numbers come from.
        page: Markdown file.
        picture: Of the plot, made here too.
    """
    titles = {row.name: row.title for row in ROWS}
    draw(table, titles, picture, pale=COMPARED)
    parts = [
        "# Results on AVShapes",
        _PROTOCOL,
        _SUPERVISED,
        score_table(table, titles, prompts),
        f"![The same numbers as bars; dots are seeds]({_relative(picture, page)})",
    ]
    for other, title in COMPARED.items():
        if other in table and len(table) > 1:
            lead = f"Difference to *{title}*, paired over clips, with 95 % intervals over videos."
            parts += [f"## Against {title}", lead, difference_table(table, titles, other)]
    parts.append("\n".join(f"- {name}: {value}" for name, value in source.items()))
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text("\n\n".join(parts) + "\n")


def _relative(path: Path, page: Path) -> str:
    return Path(os.path.relpath(path.resolve(), page.resolve().parent)).as_posix()


def parse(arguments: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """Options, and flags that are passed on to every command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one seed, fewer prompts, fewer test clips")
    parser.add_argument("--seeds", nargs="+", type=int, help="default: 0 1 2, with --quick 0")
    parser.add_argument("--rows", nargs="+", choices=[row.name for row in ROWS], default=[row.name for row in ROWS])
    parser.add_argument(
        "--prompts", type=int, help="training prompts of each benchmark (default: 256, with --quick 96)"
    )
    parser.add_argument("--clips", type=int, help="most test clips of each split (default: 120, with --quick 40)")
    parser.add_argument("--processes", type=int, default=2, help="runs side by side")
    parser.add_argument("--folder", type=Path, help="where the run folders go (default: runs/baselines or ..._quick)")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "results.md")
    parser.add_argument("--picture", type=Path, default=ROOT / "docs" / "images" / "results.png")
    parser.add_argument("--json", type=Path, default=ROOT / "benchmarks" / "results" / "baselines.json")
    parser.add_argument("--weights", type=Path, default=ROOT / "weights" / "tiny")
    return parser.parse_known_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is left, write and print."""
    options, extra = parse(arguments)
    seeds = options.seeds or ([0] if options.quick else [0, 1, 2])
    prompts = options.prompts or (96 if options.quick else 256)
    clips = options.clips or (40 if options.quick else 120)
    folder = (options.folder or ROOT / "runs" / ("baselines_quick" if options.quick else "baselines")).resolve()
    extra = [*(f"--model.{part}.path={options.weights / part}" for part in PARTS), *extra]
    rows = [row for row in ROWS if row.name in options.rows]
    jobs = make_jobs(rows, seeds, prompts=prompts, clips=clips, extra=extra)
    settings = {"prompts": prompts, "clips": clips, "extra": extra, "weights": weights_digest(options.weights)}
    remember(folder, settings | config_digests(jobs))
    if not any(flag.startswith(("--data.root", "--data.avshapes")) for flag in extra):
        for benchmark in ("refavs", "revos"):
            ensure_avshapes(benchmark)
    run_jobs(jobs, folder, processes=options.processes)
    table = {
        row.name: [read_outcome(folder / f"{row.name}_seed{seed}") for seed in (seeds if row.trains else seeds[:1])]
        for row in rows
    }
    trained = {row.name: table[row.name][0].prompts for row in rows}
    source = {
        "command": " ".join(["python", "benchmarks/baselines.py", *(arguments or sys.argv[1:])]),
        "commit": commits_of(table),
        "machine": f"{platform.machine()}, no accelerator used, {options.processes} runs side by side",
        "clips": f"at most {clips} of each test split, the same for every row",
        "weights": settings["weights"],
    }
    write_page(table, trained, source, options.page, options.picture)
    content = {name: [outcome_record(outcome) for outcome in outcomes] for name, outcomes in table.items()}
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps({"provenance": source, "rows": content}, indent=1) + "\n")
    print(score_table(table, {row.name: row.title for row in ROWS}, trained))


def outcome_record(outcome: Outcome) -> dict[str, Any]:
    """A run in the file of numbers: means, time and curves, without single clips."""
    return {
        "metrics": outcome.metrics,
        "batches": outcome.batches,
        "prompts": outcome.prompts,
        "seconds": outcome.seconds,
        "curves": outcome.curves,
    }


if __name__ == "__main__":
    main()
