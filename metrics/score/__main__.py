"""Score a folder of predictions as the benchmark's own program does: `python -m metrics.score --help`."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import joblib
import rich
import torch
from tqdm import tqdm

from datamodules.errors import DataLayoutError, MediaError
from metrics.score.answers import Answer, oddities_by_kind, problems_by_kind
from metrics.score.plan import KNOWN_SPLITS, Benchmark, Plan, make_plan
from metrics.score.report import Report, average, listed, stops_official, write_report
from metrics.tables import MARGIN, console_table, official_table
from metrics.version import code_version


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: Without the program's name; None reads them from the command line.

    Returns:
        0 when there are numbers; 1 when the data, the folder or an expression cannot be used, with the reason on the
        error stream.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    known = KNOWN_SPLITS[options.benchmark]
    unknown = [split for split in options.splits if split not in known]
    if unknown:
        parser.error(f"--splits: {options.benchmark} has {', '.join(known)}, found {', '.join(unknown)}")
    if options.out.suffix != ".json":
        parser.error(f"--out: expected a .json file, found {options.out}")
    try:
        report = score(
            options.benchmark,
            options.root,
            options.predictions,
            splits=options.splits,
            workers=options.workers,
            counts_invalid=options.invalid == "worst",
        )
    except (DataLayoutError, MediaError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    show(report)
    write_report(report, options.out)
    sys.stdout.write(f"written to {options.out}, {options.out.with_suffix('.md').name} and .jsonl\n")
    return 0 if report.scores else 1


def score(
    benchmark: Benchmark,
    root: Path,
    predictions: Path,
    *,
    splits: Sequence[str] = (),
    workers: int | None = None,
    counts_invalid: bool = False,
) -> Report:
    """Score a folder of predictions.

    Args:
        benchmark: Which one.
        root: The benchmark's folder; only tables and masks are read.
        predictions: One folder per video, in it one per expression, in it one PNG per frame.
        splits: The benchmark's own names; none takes its test splits.
        workers: Processes; None is one per core.
        counts_invalid: Count expressions as the worst answer where the official program has no number for them.

    Returns:
        Without scores when some expression has a problem that the official program has no number for.

    Raises:
        DataLayoutError: The benchmark cannot be read, or the folder holds no predictions for it.
        MediaError: The ground truth is damaged.
    """
    started = time.monotonic()
    plan = make_plan(benchmark, root, predictions, splits)
    answers = _run(plan, workers or joblib.cpu_count())
    against = stops_official(benchmark, answers)
    scores = average(benchmark, answers) if counts_invalid or not against else {}
    origin = {
        "seconds": round(time.monotonic() - started, 2),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "root": str(root),
        "predictions": str(predictions),
        "code": code_version(),
    }
    unofficial = len(against) if counts_invalid else 0
    return Report(benchmark, plan.splits, scores, tuple(answers), plan.remarks, unofficial, origin)


def show(report: Report) -> None:
    """Print the table, and what should be known about it."""
    console = rich.get_console()
    if report.scores:
        title = f"{report.benchmark}, {report.counts['expressions']} expressions, {MARGIN}"
        console.print(console_table(*official_table(report.scores), title))
    if report.unofficial:
        console.print(report.protocol[0], soft_wrap=True, highlight=False)
    for remark in report.remarks:
        console.print(remark, soft_wrap=True, highlight=False, markup=False)
    for found in (problems_by_kind(report.answers), oddities_by_kind(report.answers)):
        for kind, names in found.items():
            console.print(f"{len(names)} expressions: {kind}", soft_wrap=True, highlight=False, markup=False)
            for line in listed(names):
                console.print(f"  {line}", soft_wrap=True, highlight=False, markup=False)
    if not report.answers:
        sys.stderr.write(f"error: {', '.join(report.splits)} of {report.benchmark} have no expressions to score.\n")
    elif not report.scores:
        against = len(stops_official(report.benchmark, report.answers))
        sys.stderr.write(
            f"error: {against} of {len(report.answers)} expressions cannot be scored, and the official program has no"
            " number then. Correct the files named above, or count such expressions as the worst answer with"
            " --invalid worst.\n"
        )


def _run(plan: Plan, workers: int) -> list[Answer]:
    """All answers, in the order of the jobs."""
    torch.set_num_threads(1)  # One process per core already.
    done = joblib.Parallel(n_jobs=min(workers, len(plan.jobs)) or 1, return_as="generator")(
        joblib.delayed(plan.score)(job) for job in plan.jobs
    )
    # disable=None: no bar in log files, where it would print a line per step.
    return list(tqdm(done, total=len(plan.jobs), desc="Scoring", unit="expression", disable=None))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m metrics.score",
        description="Score a folder of predicted masks as the benchmark's own program does.",
        epilog="Predictions: <folder>/<video>/<expression>/<frame>.png, one channel, 0 and 255, at the original size."
        " docs/evaluation.md has the protocols.",
    )
    parser.add_argument("benchmark", choices=tuple(KNOWN_SPLITS), help="whose rules")
    parser.add_argument("--root", type=Path, required=True, help="folder of the benchmark (tables and masks suffice)")
    parser.add_argument("--predictions", type=Path, required=True, help="folder of the predicted masks")
    parser.add_argument("--out", type=Path, required=True, help=".json file; a .md and a .jsonl are written beside it")
    parser.add_argument("--splits", nargs="+", default=[], help="the benchmark's own names (default: its test splits)")
    parser.add_argument("--workers", type=int, help="processes (default: one per core)")
    parser.add_argument(
        "--invalid",
        choices=("stop", "worst"),
        default="stop",
        help="what cannot be scored, where the official program has no number: no result (stop, the default), or the"
        " worst possible answer (worst; the result is then marked as unofficial)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
