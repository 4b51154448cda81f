"""What a scoring comes to, as numbers, files and a table for people."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from metrics.refavs import SIZE
from metrics.refavs_scores import RefAVSParts, RefAVSScores, worst_parts
from metrics.score.answers import Answer, Problem, oddities_by_kind, problems_by_kind
from metrics.score.plan import Benchmark
from metrics.tables import MARGIN, nested, official_table
from metrics.video_parts import WORST, VideoParts
from metrics.video_scores import MeViSScores, ReVOSScores

_COUNTED_AS_ZERO: dict[Benchmark, frozenset[Problem]] = {
    "refavs": frozenset(),
    "revos": frozenset(Problem),
    "mevis": frozenset({Problem.NO_VIDEO}),
}
"""Problems that the official program counts as 0; anything else stops it. Ref-AVS has no program for predictions."""

_SHOWN = 20

PROTOCOL: dict[Benchmark, tuple[str, ...]] = {
    "refavs": (
        "masks at 256x256 (bilinear, any remaining value is foreground), predictions and ground truth alike",
        "J: IoU per frame, share of background where the truth is empty; F: squared beta 0.3, best of 255 thresholds of"
        " the mean curve over frames with a target; S: square root of the share of marked pixels",
        "four expressions to a call of the scorer in the order of the table, mean over calls",
        "test_n has S in place of J and F; mix is the mean of test_s and test_u",
    ),
    "revos": (
        "DAVIS J and F at the original size, mean over all frames of the video",
        "per expression rounded to hundredths of a percent, mean per group, overall = mean of referring and reasoning",
        "R_official and A_official on the stored values, as published; R_binary and A_binary on masks of 0 and 1",
        "beyond the official program: non-existent, single (one object) and multi (several), unweighted means",
        "an expression with a missing or unreadable picture or a wrong size counts 0 in every score",
    ),
    "mevis": (
        "DAVIS J and F at the original size, mean over all frames of the video, then over all expressions",
        "a missing video folder counts 0; any other problem stops the official program, so there is no number",
    ),
}
"""What the numbers are, one sentence each."""


@dataclass(frozen=True)
class Report:
    """A finished scoring.

    Attributes:
        benchmark: Which one.
        splits: The splits that were scored.
        scores: Values in 0..1 by ``<group>/<score>``; empty when problems stand against a number.
        answers: Every expression.
        remarks: What should be known, one line each.
        unofficial: Problems that were counted as the worst score though the official program has no number then.
        origin: Command, date, seconds, code version.
    """

    benchmark: Benchmark
    splits: tuple[str, ...]
    scores: dict[str, float]
    answers: tuple[Answer, ...]
    remarks: tuple[str, ...]
    unofficial: int
    origin: Mapping[str, Any]

    @property
    def protocol(self) -> tuple[str, ...]:
        """What the numbers are."""
        variant = (
            f"NOT THE OFFICIAL NUMBER: {self.unofficial} expressions that cannot be scored count as the worst answer"
            " (--invalid worst)",
        )
        return (variant if self.unofficial else ()) + PROTOCOL[self.benchmark]

    @property
    def counts(self) -> dict[str, int]:
        """How many expressions, and how many of them had a problem."""
        failed = sum(answer.problem is not None for answer in self.answers)
        videos = {(answer.split, answer.name.rpartition("/")[0]) for answer in self.answers}
        return {
            "videos": len(videos),
            "expressions": len(self.answers),
            "scored": len(self.answers) - failed,
            "with_a_problem": failed,
            "frames": sum(answer.frames for answer in self.answers),
        }


def stops_official(benchmark: Benchmark, answers: Sequence[Answer]) -> list[Answer]:
    """Expressions with a problem that the official program has no number for."""
    zero = _COUNTED_AS_ZERO[benchmark]
    return [answer for answer in answers if answer.problem is not None and answer.problem not in zero]


def average(benchmark: Benchmark, answers: Sequence[Answer]) -> dict[str, float]:
    """The official averages; what could not be scored counts as the worst answer.

    Args:
        benchmark: Which one.
        answers: Every expression.

    Returns:
        Values in 0..1 by ``<group>/<score>``.
    """
    metric: RefAVSScores | ReVOSScores | MeViSScores
    if benchmark == "refavs":
        metric = RefAVSScores(sync_on_compute=False)
        for answer in answers:
            worst = worst_parts(answer.frames, answer.frames * SIZE * SIZE)
            parts = answer.parts if isinstance(answer.parts, RefAVSParts) else worst
            metric.update(parts, split=answer.split, position=answer.position)
    elif benchmark == "revos":
        metric = ReVOSScores(sync_on_compute=False)
        for answer in answers:
            metric.update(_video(answer), kind=answer.group, objects=answer.objects, position=answer.position)
    else:
        metric = MeViSScores(sync_on_compute=False)
        for answer in answers:
            metric.update(_video(answer), split=answer.split, position=answer.position)
    return {key: float(value) for key, value in metric.compute().items()}


def _video(answer: Answer) -> VideoParts:
    return answer.parts if isinstance(answer.parts, VideoParts) else WORST


def write_report(report: Report, out: Path) -> None:
    """Write the `.json`, and beside it a `.md` for people and a `.jsonl` with one line per expression.

    Args:
        report: What to write.
        out: The `.json` file; folders are made.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "benchmark": report.benchmark,
        "splits": report.splits,
        "scores": nested(report.scores),
        "counts": report.counts,
        "protocol": report.protocol,
        "problems": problems_by_kind(report.answers),
        "oddities": oddities_by_kind(report.answers),
        "remarks": report.remarks,
        **report.origin,
    }
    out.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    out.with_suffix(".md").write_text("\n".join(markdown(report)) + "\n", encoding="utf-8")
    with out.with_suffix(".jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(expression_record(answer)) + "\n" for answer in report.answers)


def expression_record(answer: Answer) -> dict[str, Any]:
    """One expression as plain values: its own scores, 0..1 (Ref-AVS: as a call of its own), or its problem."""
    record: dict[str, Any] = {"expression": answer.name, "split": answer.split, "group": answer.group}
    if isinstance(answer.parts, RefAVSParts):
        record |= {"J": answer.parts.j, "F": answer.parts.f, "S": answer.parts.s}
    elif answer.parts is not None:
        known = {key: value for key, value in asdict(answer.parts).items() if value == value}
        record |= {key[0].upper() + key[1:]: value for key, value in known.items()}
    if answer.problem is not None:
        record |= {"problem": str(answer.problem), "detail": answer.detail}
    return record


def markdown(report: Report) -> list[str]:
    """The report as lines of Markdown."""
    header, rows = official_table(report.scores)
    cells = [header, ["---"] * len(header), *rows]
    lines = [f"# {report.benchmark}: {', '.join(report.splits)}", "", f"{MARGIN[0].upper()}{MARGIN[1:]}.", ""]
    lines += ["| " + " | ".join(row) + " |" for row in cells]
    lines += ["", "## Protocol", "", *(f"- {line}" for line in report.protocol)]
    lines += ["", "## Counts", "", *(f"- {name.replace('_', ' ')}: {count}" for name, count in report.counts.items())]
    lines += [f"- {remark}" for remark in report.remarks]
    for title, found in (
        ("Problems", problems_by_kind(report.answers)),
        ("Oddities", oddities_by_kind(report.answers)),
    ):
        if found:
            lines += ["", f"## {title}"]
        for kind, names in found.items():
            lines += ["", f"{len(names)}: {kind}", "", *listed(names)]
    return [*lines, "", "## Origin", "", *(f"- {name}: {value}" for name, value in report.origin.items())]


def listed(names: Sequence[str]) -> list[str]:
    """Names as a list; a long one is cut, as the `.json` has them all."""
    more = [f"- ... and {len(names) - _SHOWN} more; the .json file names them all"] if len(names) > _SHOWN else []
    return [*(f"- {name}" for name in names[:_SHOWN]), *more]
