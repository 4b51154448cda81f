"""How fast the scorer is on predictions in the layout of ReVOS, beside a plain NumPy and scikit-image program.

    python benchmarks/scorer_speed.py
    python benchmarks/scorer_speed.py --expressions 20

A ground truth and predictions (PNG) are made in a temporary folder: blobs that move, with ragged rims, several per
expression. First the whole set is scored by `metrics.score` on all cores, from reading the tables to the averages. Then
single expressions are scored in this one process, by the scorer and by the plain program, which must agree to 1e-9;
who begins changes with every expression. The plain program does per frame what the formulas say, boundaries dilated by
scikit-image: by a disk, which is how the definition puts it, and by a distance transform, which is faster.

Written: `benchmarks/results/scorer_speed.json` and `.md`. Needs `pip install -e ".[bench]"`.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import psutil

from callbacks.media import markdown_table
from metrics.score.__main__ import score
from metrics.score.plan import make_plan
from metrics.score.videos import VideoJob, score_expression
from speed.plain_scorer import DILATIONS, PlainProgram
from speed.results import FOLDER, Results
from speed.scorer_set import write_set

OURS = "metrics.score"
POINT = ("expressions", "frames", "height", "width", "workers", "compared")
PACKAGES = ("numpy", "scikit-image", "pillow", "pycocotools")
"""What the figures depend on beside what every measurement names."""


def main() -> None:
    """Measure what is missing and write the page."""
    options = parse()
    results = Results(options.out)
    point = {name: getattr(options, name) for name in POINT}
    if results.missing(point, 0):
        with tempfile.TemporaryDirectory() as place:
            results.add(point, 0, measure(Path(place), point))
    page = f"{whole_table(results)}\n\n{program_table(results)}\n\n{libraries(results)}"
    results.write_page("The scorer on predictions in the layout of ReVOS", page)
    print(page)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--expressions", type=int, default=200)
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--width", type=int, default=854)
    parser.add_argument(
        "--workers", type=int, default=joblib.cpu_count(), help="processes for the whole set (default: one per core)"
    )
    parser.add_argument("--compared", type=int, default=10, help="expressions that the plain program scores too")
    parser.add_argument("--out", type=Path, default=FOLDER / "scorer_speed.json")
    return parser.parse_args()


def measure(place: Path, point: Mapping[str, int]) -> dict[str, Any]:
    """Make the data in a folder and time both: everything by the scorer, single expressions by all programs."""
    root, predictions = place / "revos", place / "predictions"
    write_set(root, predictions, point["expressions"], point["frames"], (point["height"], point["width"]))
    whole = whole_set(root, predictions, point["workers"])
    print(f"whole set: {whole['wall_s']:.1f} s", flush=True)
    jobs = make_plan("revos", root, predictions).jobs
    chosen = [jobs[index] for index in np.linspace(0, len(jobs) - 1, point["compared"]).round().astype(int)]
    spent = compare(chosen, {name: PlainProgram(root, dilated) for name, dilated in DILATIONS.items()})
    ratios = {
        name: [other / own for own, other in zip(spent[OURS], seconds, strict=True)]
        for name, seconds in spent.items()
        if name != OURS
    }
    return {
        "whole_set": whole,
        "compared": [job.name for job in chosen],
        "processor_s": spent,
        "ratios": {
            name: {"median": statistics.median(values), "least": min(values), "most": max(values)}
            for name, values in ratios.items()
        },
        "libraries": {name: version(name) for name in PACKAGES},
    }


def whole_set(root: Path, predictions: Path, workers: int) -> dict[str, float]:
    """Seconds on the wall and of the processors for everything, the start of the processes included."""
    before, started = processor_seconds(), time.perf_counter()
    report = score("revos", root, predictions, workers=workers)
    seconds = time.perf_counter() - started
    return {
        "files": len(list(predictions.rglob("*.png"))),
        "wall_s": seconds,
        "processor_s": processor_seconds() - before,
        "expressions_per_s": len(report.answers) / seconds,
        "jf": report.scores["overall/JF"],
    }


def processor_seconds() -> float:
    """Of this process and those that it started, which joblib keeps for the next call."""
    own = psutil.Process()
    spent = [process.cpu_times() for process in (own, *own.children(recursive=True))]
    return sum(times.user + times.system for times in spent)


def compare(jobs: Sequence[VideoJob], programs: Mapping[str, PlainProgram]) -> dict[str, list[float]]:
    """Score expressions by all in turn, in this process.

    Returns:
        Processor seconds of every expression, by program.

    Raises:
        SystemExit: Two of them differ.
    """
    works: dict[str, Callable[[VideoJob], Sequence[float]]] = {
        OURS: ours,
        **{name: program.score for name, program in programs.items()},
    }
    spent: dict[str, list[float]] = {name: [] for name in works}
    for turn, job in enumerate(jobs):
        found = {}
        order = list(works)
        for name in order[turn % len(order) :] + order[: turn % len(order)]:
            # Processor time: other programs on the machine do not count.
            started = time.process_time()
            found[name] = works[name](job)
            spent[name].append(time.process_time() - started)
        for name, values in found.items():
            if np.abs(np.subtract(values, found[OURS])).max() > 1e-9:
                raise SystemExit(f"{job.name}: {OURS} has {found[OURS]}, {name} {values}")
    return spent


def ours(job: VideoJob) -> tuple[float, ...]:
    """J, F, A and R of one expression by the scorer."""
    answer = score_expression(job)
    return answer.parts.j, answer.parts.f, answer.parts.a_official, answer.parts.r_official


def described(row: Mapping[str, Any]) -> list[str]:
    """The first cells of a line: what was scored."""
    point = row["point"]
    return [str(point["expressions"]), str(point["frames"]), f"{point['width']} x {point['height']}"]


def whole_table(results: Results) -> str:
    """Whole sets on all cores."""
    cells = []
    for row in results.rows:
        whole, count = row["whole_set"], row["point"]["expressions"]
        seconds = [f"{whole['wall_s']:.1f}", f"{whole['expressions_per_s']:.2f}", f"{whole['processor_s'] / count:.3f}"]
        cells.append([*described(row), str(row["point"]["workers"]), *seconds])
    header = ["expressions", "frames", "size", "processes", "seconds", "expressions per second"]
    return markdown_table([*header, "processor seconds per expression"], cells)


def program_table(results: Results) -> str:
    """Single expressions in one process, by the scorer and by the plain programs."""
    cells = []
    for row in results.rows:
        for name, seconds in row["processor_s"].items():
            middle, ratio = statistics.median(seconds), row["ratios"].get(name)
            times = f"{ratio['median']:.1f} ({ratio['least']:.1f} to {ratio['most']:.1f})" if ratio else "1"
            per_frame = f"{1000 * middle / row['point']['frames']:.2f}"
            cells.append([*described(row), name, str(len(seconds)), f"{middle:.3f}", per_frame, times])
    header = ["expressions", "frames", "size", "one process", "compared", "processor seconds per expression, median"]
    return markdown_table([*header, "milliseconds per frame", f"times {OURS}, median (least to most)"], cells)


def libraries(results: Results) -> str:
    """Versions of what reads pictures and computes, beside those that follow."""
    kinds = dict.fromkeys(", ".join(f"{name} {of}" for name, of in row["libraries"].items()) for row in results.rows)
    return f"Made with {'; '.join(kinds)}."


if __name__ == "__main__":
    main()
