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
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datamodules.avshapes.make import ensure_avshapes
from outcomes import Outcome, commits_of, read_outcome, results_of
from score_tables import difference_table, draw, score_table
from side_by_side import (
    ROOT,
    Job,
    asks_for_all,
    config_digests,
    remember,
    run_jobs,
    usual_or_beside,
    weights_digest,
)
from speed.results import machine

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
a moment nor an absence. The first row says on how many clips and videos a column rests; where it says *few*, the
numbers mean little. The spread after ± is over seeds. *Prompts* counts what was trained on, repeats included: the
supervised rows go four times through the prompts that the others see once. *Seconds* are those of the training steps,
with the named number of runs side by side. No run has looked at a test clip; settings were chosen on validation clips,
which no run trains on."""

_SUPERVISED = """\
The supervised rows learn the frames with the greatest visible area. Their description is the expression, which is what
a benchmark labels; *oracle descriptions* are true ones from the generator, which no benchmark has."""

COMPARED = {"base": "no training", "sft": "supervised"}
"""Rows that the others are compared with."""


def revos_part(clips: int) -> dict[str, Any]:
    """What is drawn of ReVOS to test on: twice as many with a target as of each RefAVS split, and half as many without.

    With 120 that is every absent target of the generated benchmark.

    Args:
        clips: Most test clips of each split of RefAVS.
    """
    return {"test_size": clips * 5 // 2, "test_null_fraction": 0.2}


def make_jobs(
    rows: Sequence[Row], seeds: Sequence[int], *, prompts: int, clips: int, extra: Sequence[str]
) -> list[Job]:
    """One job per row and seed, the first seed of every row first; without training one seed says all.

    Args:
        rows: What to run.
        seeds: Of weights, sampling and the drawn prompts.
        prompts: Training prompts of each benchmark.
        clips: Most test clips of each split of RefAVS, the same ones for every job; see `revos_part` for the others.
        extra: Flags for every command.
    """
    sizes = [f"--data.sources.{name}.train_size={prompts}" for name in ("refavs", "revos")]
    quiet = ["--trainer.limit_val_batches=0", "--trainer.num_sanity_val_steps=0", "--overlays.clips=0"]
    test = ["--data.seed=0", f"--data.test_size={clips}", "--data.val_batch_size=16", "--overlays.clips=0"]
    test += [f"--data.sources.revos.{name}={value}" for name, value in revos_part(clips).items()]
    jobs = []
    for seed in seeds:
        for row in rows:
            if not row.trains and seed != seeds[0]:
                continue
            sampling = [f"--model.sampling.seed={seed}"] if row.configs[0] == GRPO else []
            fit = [f"--seed_everything={seed}", f"--data.seed={seed}", *sampling, *sizes, *quiet, *extra]
            trained = tuple(fit) if row.trains else None
            jobs.append(Job(f"{row.name}_seed{seed}", row.configs, trained, (*test, *extra)))
    return jobs


def finished(rows: Sequence[Row], seeds: Sequence[int], folder: Path) -> dict[str, list[Outcome]]:
    """The outcomes of those rows of which every seed is there."""
    places = {
        row.name: [folder / f"{row.name}_seed{seed}" for seed in (seeds if row.trains else seeds[:1])] for row in rows
    }
    return {name: [read_outcome(one) for one in own] for name, own in places.items() if all(map(results_of, own))}


def write_page(
    table: Mapping[str, Sequence[Outcome]],
    missing: Sequence[str],
    source: Mapping[str, Any],
    page: Path,
    picture: Path,
) -> None:
    """The page of results.

    Args:
        table: Runs by row.
        missing: Rows that are not finished.
        source: Where the numbers come from.
        page: Markdown file.
        picture: Of the plot, made here too.
    """
    titles = {row.name: row.title for row in ROWS}
    draw(table, titles, picture, pale=COMPARED)
    parts = ["# Results on AVShapes", _PROTOCOL, _SUPERVISED, score_table(table, titles)]
    if missing:
        parts.append(f"Not finished: {'; '.join(titles[name] for name in missing)}.")
    parts.append(f"![The same numbers as bars, over clips / videos; dots are seeds]({_relative(picture, page)})")
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
    parser.add_argument("--rows", nargs="+", choices=[row.name for row in ROWS], help="default: all")
    parser.add_argument(
        "--prompts", type=int, help="training prompts of each benchmark (default: 256, with --quick 96)"
    )
    parser.add_argument(
        "--clips",
        type=int,
        help="most test clips of each split of RefAVS; of ReVOS 2.5 times as many (default: 120, with --quick 40)",
    )
    parser.add_argument("--processes", type=int, default=2, help="runs side by side")
    parser.add_argument("--folder", type=Path, help="where the run folders go (default: runs/baselines or ..._quick)")
    parser.add_argument("--page", type=Path, help="default: docs/results.md, of a part of the table in the folder")
    parser.add_argument("--picture", type=Path, help="default: docs/images/results.png, likewise")
    parser.add_argument("--json", type=Path, help="default: benchmarks/results/baselines.json, likewise")
    parser.add_argument("--weights", type=Path, default=ROOT / "weights" / "tiny")
    return parser.parse_known_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is left, write and print.

    Raises:
        SystemExit: Some jobs failed; what is finished is written all the same.
    """
    options, extra = parse(arguments)
    is_default = not extra and asks_for_all(options, parse([])[0])
    seeds = options.seeds or ([0] if options.quick else [0, 1, 2])
    prompts = options.prompts or (96 if options.quick else 256)
    clips = options.clips or (40 if options.quick else 120)
    folder = (options.folder or ROOT / "runs" / ("baselines_quick" if options.quick else "baselines")).resolve()
    weights = options.weights.resolve()
    extra = [*(f"--model.{part}.path={weights / part}" for part in PARTS), *extra]
    rows = [row for row in ROWS if row.name in (options.rows or [one.name for one in ROWS])]
    jobs = make_jobs(rows, seeds, prompts=prompts, clips=clips, extra=extra)
    settings = {"prompts": prompts, "clips": clips, "extra": extra, "weights": weights_digest(weights)}
    remember(folder, settings | config_digests(jobs))
    if not any(flag.startswith(("--data.root", "--data.avshapes")) for flag in extra):
        for benchmark in ("refavs", "revos"):
            ensure_avshapes(benchmark)
    failed = run_jobs(jobs, folder, processes=options.processes)
    table = finished(rows, seeds, folder)
    if table:
        source = {
            "command": " ".join(["python", "benchmarks/baselines.py", *(arguments or sys.argv[1:])]),
            "commit": commits_of(table),
            "machine": f"{machine()}, {options.processes} runs side by side",
            "weights": settings["weights"],
        }
        missing = [row.name for row in rows if row.name not in table]
        write_all(table, missing, source, options, folder, is_whole=is_default and not failed)
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}. Their logs are in {folder}; the same command runs them again.")


def write_all(
    table: Mapping[str, Sequence[Outcome]],
    missing: Sequence[str],
    source: Mapping[str, Any],
    options: argparse.Namespace,
    folder: Path,
    *,
    is_whole: bool,
) -> None:
    """Page, plot and numbers, and the table on the screen.

    Args:
        table: Runs by row.
        missing: Rows that are not finished.
        source: Where the numbers come from.
        options: Which files were asked for.
        folder: Of the runs.
        is_whole: Whether this is the whole table, at its full size.
    """
    page = usual_or_beside(options.page, "docs/results.md", folder, is_whole=is_whole)
    picture = usual_or_beside(options.picture, "docs/images/results.png", folder, is_whole=is_whole)
    file = usual_or_beside(options.json, "benchmarks/results/baselines.json", folder, is_whole=is_whole)
    write_page(table, missing, source, page, picture)
    content = {name: [outcome_record(outcome) for outcome in outcomes] for name, outcomes in table.items()}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"provenance": source, "rows": content}, indent=1) + "\n")
    print(score_table(table, {row.name: row.title for row in ROWS}))
    print(f"written to {page}, {picture} and {file}")


def outcome_record(outcome: Outcome) -> dict[str, Any]:
    """A run in the file of numbers: means, time, curves and code, without single clips."""
    left_out = ("clips", "texts")
    return {name: value for name, value in vars(outcome).items() if name not in left_out}


if __name__ == "__main__":
    main()
