"""What each way of training is worth: no training, supervised training, and GRPO with every set of rewards.

    python benchmarks/baselines.py
    python benchmarks/baselines.py --quick

One policy per row and seed is trained on the RefAVS and ReVOS sides of AVShapes together and tested on both, on the
same clips for every row. Two runs go side by side, each as a user starts it; a stopped table goes on where it was.
Written: `docs/results.md` with a plot, and every number in `benchmarks/results/baselines.json`.

Intervals are percentile bootstraps over videos and seeds, paired: per clip the mean over seeds of a row minus that of
another, all clips of a video drawn together, and a seed for all clips. The spread after ± is the standard deviation
over seeds.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datamodules.avshapes.make import ensure_avshapes
from outcomes import Outcome, commits_of, finished
from rows import (
    GRPO,
    QUIET,
    SFT,
    TESTED,
    Row,
    drawn_flags,
    job_name,
    places,
    seed_flags,
    weights_flags,
    with_seeds,
)
from score_tables import (
    ABSENT,
    absent_table,
    difference_table,
    differences_of,
    draw,
    reward_table,
    says_absent,
    score_table,
)
from side_by_side import Job, leave_if_failed, remember, remember_configurations, run_jobs
from table_options import differences, fill_in, made_with, say_if_less, table_parser, usual_or_beside

RUNS = "baselines"
"""Folder of the runs, unless another is named."""


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
One policy per row and seed, trained on the RefAVS-like and the ReVOS-like half of AVShapes together and tested on both:
J&F of RefAVS by its own rules, per clip, on *seen* and *unseen* pairs; J&F of DAVIS on *referring* and *reasoning*
questions of ReVOS and their mean (*overall*); and the share of absent targets that is handled *right*: the answer says
that the target is absent, or System 2 marks nothing for what it describes. All scores are times 100; higher is better.
The first row says on how many clips and videos a column rests; where it says *few*, the numbers mean little. The spread
after ± is over seeds. *Prompts* counts what was trained on, repeats included: the supervised rows go twelve times
through the prompts that the others see once. *Seconds* are those of the training steps, the median over seeds and the
least and the most, with the named number of runs side by side; whatever else the machine did is in them."""

_UNSEEN = """\
*Unseen* are pairs of color and shape, or of shape and pitch, that no training clip and no demonstration of the task
holds. The embedded reasoner has met them in its lessons about the world ([avshapes.md](avshapes.md)), so the column
measures whether training carries over, not whether new things are recognized. No run has looked at a test clip, and
settings were chosen on validation clips. The embedded weights were not chosen blindly: an earlier table on these
splits, with a reasoner that had never met the unseen pairs (one seed, J&F unseen: no training 43.1, supervised 51.2,
GRPO 38.1), led to this one."""

_ROWS = """\
The supervised rows learn the frames with the greatest visible area. Their description is the expression, which is what
a benchmark labels; *oracle descriptions* are true ones from the generator, which no benchmark has: that row competes
with nobody. All rows with GRPO have the format reward (weight 1) and, but for the last, the null reward (2). R_K is
diversity (0.25), count (0.25) and saliency (1), R_A alignment (1), R_G global consistency (4); with more rewards, each
has a smaller share of the total.

The embedded reasoner was made to leave room for all this: what it was shown are arbitrary frames with vague
descriptions, and it answers right within eight samples far more often than greedily
([card](../weights/tiny/CARD.md)). The table shows that the method and its rewards work, and how they differ. It
predicts nothing about models of 7B or real videos."""

_ABSENT = """\
An absent target is handled right by saying so, or by describing something that System 2 does not find. *Says absent* is
the share of answers, in percent, that say so; where the target is there they are wrong. *Null S* is the size of masks
on absent targets by the benchmark's formula, per clip, 0..1, lower is better. *Unusable* answers name neither a moment
nor an absence."""

_INTERVALS = """\
Paired over clips, with 95 % intervals of a bootstrap over videos and seeds. With three seeds, their part of an interval
is too narrow: a bootstrap of n has sqrt((n - 1) / n) of the spread. Where no row differed in truth, one of twenty
intervals would leave zero out."""

_REWARDS = """\
What the answers to test clips would have earned, before weights, times 100 (see [rewards.md](rewards.md)), with a dash
where a configuration does not have a term. *Saliency* is the area of the target on the named frames, relative to its
largest in the clip: it rises if a choice of frames follows the clip. *Diversity* and *count* rise if more frames are
named, and further apart, whatever the clip shows."""

COMPARED = ("base", "sft", "rk_ra_rg")
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
    """One job per row and seed.

    Args:
        rows: What to run.
        seeds: Of weights, sampling and the drawn prompts.
        prompts: Training prompts of each benchmark.
        clips: Most test clips of each split of RefAVS, the same ones for every job; see `revos_part` for the others.
        extra: Flags for every command.
    """
    sizes = [f"--data.sources.{name}.train_size={prompts}" for name in ("refavs", "revos")]
    revos = [f"--data.sources.revos.{name}={value}" for name, value in revos_part(clips).items()]
    test = (*drawn_flags(clips), *TESTED, *revos, *extra)
    jobs = []
    for row, seed in with_seeds(rows, seeds):
        fit = (*seed_flags(seed), *row.sampling_flags(seed), *sizes, *QUIET, *extra)
        jobs.append(Job(job_name(row.name, seed), row.configs, fit if row.trains else None, test))
    return jobs


def write_page(
    table: Mapping[str, Sequence[Outcome]],
    missing: Sequence[str],
    source: Mapping[str, str],
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
    draw(table, titles, picture, reference="base")
    parts = ["# Results on AVShapes", _PROTOCOL, _UNSEEN, _ROWS, score_table(table, titles)]
    if missing:
        parts.append(f"Not finished: {'; '.join(titles[name] for name in missing)}.")
    said = "Every column of the table; lines are means, dots are seeds, dashed is no training. Clips / videos on top."
    parts.append(f"![{said}]({_relative(picture, page)})")
    parts += ["## Absent targets", _ABSENT, absent_table(table, titles)]
    parts += ["## Rewards", _REWARDS, reward_table(table, titles), "## Differences", _INTERVALS]
    for other in COMPARED:
        if other in table and len(table) > 1:
            parts += [f"### Against {titles[other]}", difference_table(table, titles, other)]
    parts.append("\n".join(f"- {name}: {value}" for name, value in source.items()))
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text("\n\n".join(parts) + "\n")


def _relative(path: Path, page: Path) -> str:
    return Path(os.path.relpath(path.resolve(), page.resolve().parent)).as_posix()


def parse(arguments: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """Options with their defaults filled in, and flags that are passed on to every command."""
    names = [row.name for row in ROWS]
    parser = table_parser(
        (__doc__ or "").splitlines()[0],
        runs=RUNS,
        prompts="training prompts of each benchmark",
        clips="most test clips of each split of RefAVS; of ReVOS 2.5 times as many",
    )
    parser.add_argument("--rows", nargs="+", choices=names, default=names, help="default: all")
    parser.add_argument("--page", type=Path, help="default: docs/results.md, of a part of the table in the folder")
    parser.add_argument("--picture", type=Path, help="default: docs/images/results.png, likewise")
    parser.add_argument("--json", type=Path, help="default: benchmarks/results/baselines.json, likewise")
    options, extra = parser.parse_known_args(arguments)
    return fill_in(options, RUNS), extra


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is left, write and print.

    Raises:
        SystemExit: Some jobs failed; what is finished is written all the same.
    """
    options, extra = parse(arguments)
    less = differences(options, parse([])[0], extra)
    flags = [*weights_flags(options.weights), *extra]
    rows = [row for row in ROWS if row.name in options.rows]
    jobs = make_jobs(rows, options.seeds, prompts=options.prompts, clips=options.clips, extra=flags)
    source = made_with("baselines.py", arguments, options)
    kept = {"prompts": options.prompts, "clips": options.clips, "extra": extra, "weights": source["weights"]}
    remember(options.folder, kept)
    remember_configurations(jobs, options.folder)
    if not any(flag.startswith(("--data.root", "--data.avshapes")) for flag in extra):
        for benchmark in ("refavs", "revos"):
            ensure_avshapes(benchmark)
    failed = run_jobs(jobs, options.folder, processes=options.processes)
    table = finished(places(rows, options.seeds, options.folder))
    if table:
        missing = [row.name for row in rows if row.name not in table]
        source["commit"] = commits_of({row.title: table[row.name] for row in rows if row.name in table})
        write_all(table, missing, source, options, less=[*less, *(f"{name} failed" for name in failed)])
    leave_if_failed(failed, options.folder)


def write_all(
    table: Mapping[str, Sequence[Outcome]],
    missing: Sequence[str],
    source: Mapping[str, str],
    options: argparse.Namespace,
    *,
    less: Sequence[str],
) -> None:
    """Page, plot and numbers, and the table on the screen.

    Args:
        table: Runs by row.
        missing: Rows that are not finished.
        source: Where the numbers come from.
        options: Which files were asked for, and the folder of the runs.
        less: What makes this another table than the whole one, at its full size; nothing if it is that.
    """
    folder, is_whole = options.folder, not less
    page = usual_or_beside(options.page, "docs/results.md", folder, is_whole=is_whole)
    picture = usual_or_beside(options.picture, "docs/images/results.png", folder, is_whole=is_whole)
    file = usual_or_beside(options.json, "benchmarks/results/baselines.json", folder, is_whole=is_whole)
    write_page(table, missing, source, page, picture)
    rows = {name: [outcome_record(outcome) for outcome in outcomes] for name, outcomes in table.items()}
    compared = {f"minus {other}": differences_of(table, other) for other in COMPARED if other in table}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"provenance": source, "rows": rows, "differences": compared}) + "\n")
    print(score_table(table, {row.name: row.title for row in ROWS}))
    print(f"written to {page}, {picture} and {file}")
    say_if_less(less)


def outcome_record(outcome: Outcome) -> dict[str, Any]:
    """A run in the file of numbers: means, time, curves and code, without single clips."""
    left_out = ("clips", "texts")
    kept = {name: value for name, value in vars(outcome).items() if name not in left_out}
    return kept | {
        "says_absent": {group: says_absent(outcome, key) for group, key in ABSENT.items() if key in outcome.metrics}
    }


if __name__ == "__main__":
    main()
