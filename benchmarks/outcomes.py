"""What finished jobs have left: scores, answers, time, curves, and which code made them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from metrics.version import commit

CURVES = ("reward", "loss", "val/jf", "val/null_accuracy")

TRAINED_BY = "trained_by.txt"
"""In a job's folder: the commits that have trained it, one a line."""


@dataclass(frozen=True)
class Outcome:
    """What a finished job left.

    Attributes:
        metrics: Logged means, by key.
        clips: Values of every test clip, by clip id.
        texts: Greedy completions, by clip id.
        batches: Of the training: rollouts of GRPO, optimizer steps of supervised training; 0 without one.
        prompts: Prompts of these batches, repeats included.
        seconds: Time of these batches, waiting for data included.
        curves: (step, value) of what was logged in training, for the keys of `CURVES`.
        tested_by: Commit of the code that tested; empty where it is not known.
        trained_by: Commits of the code that trained, several where a run was resumed with other code.
    """

    metrics: dict[str, float]
    clips: dict[str, dict[str, float]]
    texts: dict[str, str]
    batches: int
    prompts: int
    seconds: float
    curves: dict[str, list[tuple[int, float]]]
    tested_by: str = ""
    trained_by: tuple[str, ...] = ()


def results_of(folder: Path) -> Path | None:
    """The results of a job's test, once there are any."""
    return next((path for path in sorted(folder.glob("test_*/results.json"))), None)


def newest_run(folder: Path) -> Path | None:
    """The run folder of a job's last training, if one was begun."""
    runs = sorted(folder.glob("version_*"), key=lambda path: int(path.name.rpartition("_")[2]))
    return runs[-1] if runs else None


def this_code() -> str:
    """The commit of the code that runs."""
    return commit(Path(__file__).parent) or "unknown"


def remember_code(folder: Path, root: Path, *, goes_on: bool) -> None:
    """Write down which code trains a job.

    Args:
        folder: Of the job.
        root: Of the code.
        goes_on: Whether a training is resumed; otherwise what trained before does not count.
    """
    path = folder / TRAINED_BY
    before = path.read_text().split() if goes_on and path.is_file() else []
    path.write_text("\n".join(dict.fromkeys([*before, commit(root) or "unknown"])) + "\n")


def commits_of(table: Mapping[str, Sequence[Outcome]]) -> str:
    """The code that rows were made with, as `by_code` tells them apart.

    Args:
        table: Runs by what the row is called, in the order of their seeds.
    """
    return by_code({name: [made_by(outcome) for outcome in outcomes] for name, outcomes in table.items()})


def short(text: str) -> str:
    """Twelve digits of every commit that a text names."""
    return re.sub(r"\b([0-9a-f]{12})[0-9a-f]{28}\b", r"\1", text)


def by_code(rows: Mapping[str, Sequence[str]]) -> str:
    """One commit, or each with the runs that are its, in twelve digits.

    Args:
        rows: The code of every run, by what its row is called, in the order of the seeds. Where the runs of a row
            differ in their code, they are told apart by their place in it, from 0.
    """
    names: dict[str, list[str]] = {}
    for name, codes in rows.items():
        for code in dict.fromkeys(codes):
            runs = [str(run) for run, its in enumerate(codes) if its == code]
            which = "" if len(runs) == len(codes) else f", run{'s' if len(runs) > 1 else ''} {', '.join(runs)}"
            names.setdefault(short(code), []).append(f"{name}{which}")
    return next(iter(names)) if len(names) == 1 else "; ".join(f"{one} ({'; '.join(of)})" for one, of in names.items())


def made_by(outcome: Outcome) -> str:
    """The code that trained and tested a run."""
    tested = outcome.tested_by or "unknown"
    if set(outcome.trained_by) <= {tested}:
        return tested
    return f"trained by {' and '.join(outcome.trained_by)}, tested by {tested}"


def read_outcome(folder: Path) -> Outcome:
    """What a finished job left.

    Args:
        folder: Of the job.

    Raises:
        FileNotFoundError: The job is not finished.
    """
    results = results_of(folder)
    if results is None:
        raise FileNotFoundError(f"{folder} has no results; the job is not finished")
    lines = [json.loads(line) for line in (results.parent / "clips.jsonl").read_text().splitlines()]
    known = ("clip", "kind", "text")
    clips = {line["clip"]: {key: value for key, value in line.items() if key not in known} for line in lines}
    content = json.loads(results.read_text())
    metrics = {key.removeprefix("test/"): value for key, value in content["metrics"].items()}
    run, code = newest_run(folder), folder / TRAINED_BY
    curves = {} if run is None else curves_of(run)
    timed = dict(curves.get("time/step_s", []))
    waited = dict(curves.get("time/waiting_s", []))
    return Outcome(
        metrics=metrics,
        clips=clips,
        texts={line["clip"]: line["text"] for line in lines},
        batches=len(timed),
        prompts=len(timed) * _prompts_per_step(run),
        seconds=sum(timed.values()) + sum(waited.values()),
        curves={key: curves[key] for key in CURVES if key in curves},
        tested_by=content["provenance"]["commit"] or "",
        trained_by=tuple(code.read_text().split()) if code.is_file() else (),
    )


def finished(places: Mapping[str, Sequence[Path]]) -> dict[str, list[Outcome]]:
    """The outcomes of those rows of which every job is finished.

    Args:
        places: Folders of the jobs by row.
    """
    return {row: [read_outcome(job) for job in jobs] for row, jobs in places.items() if all(map(results_of, jobs))}


def _prompts_per_step(run: Path | None) -> int:
    if run is None:
        return 0
    return int(yaml.safe_load((run / "config.yaml").read_text())["data"]["init_args"]["prompts_per_step"])


def curves_of(run: Path) -> dict[str, list[tuple[int, float]]]:
    """All numbers that a run has logged, by key; of a step that was run twice, because of a resume, the second time."""
    events = EventAccumulator(str(run), size_guidance={"scalars": 0})
    events.Reload()
    tags = events.Tags()["scalars"]
    return {tag: sorted({event.step: event.value for event in events.Scalars(tag)}.items()) for tag in tags}
