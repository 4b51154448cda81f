"""Trainings and tests of them, several processes at a time, that go on where they were stopped.

A job is one training and one test, each `python train.py` as a user types it, in a folder of its own. What is done is
seen from the files that it leaves: a job whose test has written its results is finished, one with a checkpoint goes on
from there. A folder remembers what it was made with, configuration files included, and refuses anything else.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

ROOT = Path(__file__).parents[1]
ADAPTER = Path("adapter") / "adapter_model.safetensors"
"""What a training leaves when it ends."""


@dataclass(frozen=True)
class Job:
    """One row of a table with one seed.

    Attributes:
        name: Its folder.
        configs: Configuration files, later ones win.
        fit: Flags of the training; None does not train.
        test: Flags of the test alone.
    """

    name: str
    configs: tuple[str, ...]
    fit: tuple[str, ...] | None
    test: tuple[str, ...]


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
        commit: Of the code that tested; empty where it is not known.
    """

    metrics: dict[str, float]
    clips: dict[str, dict[str, float]]
    texts: dict[str, str]
    batches: int
    prompts: int
    seconds: float
    curves: dict[str, list[tuple[int, float]]]
    commit: str = ""


CURVES = ("reward", "loss", "val/jf", "val/null_accuracy")


def remember(folder: Path, settings: dict[str, Any]) -> None:
    """Keep what a folder's runs are made with, or compare with what was kept.

    Args:
        folder: Made when it is missing.
        settings: Plain values; those that were not asked for before are kept from now on.

    Raises:
        SystemExit: The folder holds runs of other settings; names the difference.
    """
    path = folder / "settings.json"
    folder.mkdir(parents=True, exist_ok=True)
    if not path.is_file():
        path.write_text(json.dumps(settings, indent=1) + "\n")
        return
    before = json.loads(path.read_text())
    changed = [f"{key}: {before[key]} -> {value}" for key, value in settings.items() if before.get(key, value) != value]
    if changed:
        raise SystemExit(
            f"{folder} holds runs with other settings ({'; '.join(changed)}). Remove it, or name another with --folder."
        )
    path.write_text(json.dumps(before | settings, indent=1) + "\n")


def config_digests(jobs: Sequence[Job]) -> dict[str, str]:
    """Twelve digits per configuration file of some jobs, which differ whenever the file does."""
    files = sorted({config for job in jobs for config in job.configs})
    return {file: hashlib.sha256((ROOT / file).read_bytes()).hexdigest()[:12] for file in files}


def commits_of(table: Mapping[str, Sequence[Outcome]]) -> str:
    """The code that rows were tested with: one commit, or each with the rows that are its."""
    rows: dict[str, list[str]] = {}
    for name, outcomes in table.items():
        for commit in dict.fromkeys(outcome.commit or "unknown" for outcome in outcomes):
            rows.setdefault(commit, []).append(name)
    return next(iter(rows)) if len(rows) == 1 else ", ".join(f"{one} ({', '.join(of)})" for one, of in rows.items())


def weights_digest(folder: Path) -> str:
    """Twelve digits that differ whenever a weight file below a folder does."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.safetensors")):
        digest.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def run_jobs(jobs: Sequence[Job], folder: Path, *, processes: int = 2) -> None:
    """Run what is not finished.

    Args:
        jobs: In order of importance.
        folder: Where their folders are.
        processes: How many at a time.

    Raises:
        subprocess.CalledProcessError: A job failed; those that were running have ended, no other was begun.
    """
    left = [job for job in jobs if results_of(folder / job.name) is None]
    print(f"{len(jobs) - len(left)} of {len(jobs)} jobs are finished", flush=True)
    if processes == 1:
        for job in left:
            _run(job, folder)
        return
    failed = Event()
    with ThreadPoolExecutor(processes) as pool:
        for one in [pool.submit(_run_unless, failed, job, folder) for job in left]:
            one.result()


def results_of(folder: Path) -> Path | None:
    """The results of a job's test, once there are any."""
    return next((path for path in sorted(folder.glob("test_*/results.json"))), None)


def _run_unless(failed: Event, job: Job, folder: Path) -> None:
    """Begin nothing more once a job has failed."""
    if failed.is_set():
        return
    try:
        _run(job, folder)
    except subprocess.CalledProcessError:
        failed.set()
        raise


def _run(job: Job, folder: Path) -> None:
    place = folder / job.name
    place.mkdir(parents=True, exist_ok=True)
    where = ["--trainer.logger.save_dir", str(folder), "--trainer.logger.name", job.name]
    described = [part for config in job.configs for part in ("--config", config)]
    if job.fit is None:
        _call(["test", *described, *where, *job.test], place)
        return
    run = _newest(place)
    if run is None or not (run / ADAPTER).is_file():
        begun = run is not None and (run / "checkpoints" / "last.ckpt").exists()
        _call(["fit", "--resume", str(run)] if begun else ["fit", *described, *where, *job.fit], place)
        run = _newest(place)
    # By the exported adapter, as whoever is given it would.
    trained = ["--config", f"{run}/config.yaml", "--model.reasoner.adapter", f"{run}/adapter"]
    _call(["test", *trained, *where, *job.test], place)


def _newest(place: Path) -> Path | None:
    runs = sorted(place.glob("version_*"), key=lambda path: int(path.name.rpartition("_")[2]))
    return runs[-1] if runs else None


def _call(arguments: Sequence[str], place: Path) -> None:
    """One command; what it prints goes into a file, whose end is shown when it fails."""
    command = [sys.executable, "train.py", *arguments, "--trainer.enable_progress_bar", "false"]
    print(f"{place.name}: {arguments[0]}", flush=True)
    log = place / f"{arguments[0]}.log"
    with log.open("a") as file:
        code = subprocess.run(command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, check=False).returncode
    if code:
        print(f"{place.name} failed; the end of {log}:\n{log.read_text()[-2000:]}", flush=True)
        raise subprocess.CalledProcessError(code, command)


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
    run = _newest(folder)
    curves = {} if run is None else _curves(run)
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
        commit=content["provenance"]["commit"] or "",
    )


def _prompts_per_step(run: Path | None) -> int:
    if run is None:
        return 0
    return int(yaml.safe_load((run / "config.yaml").read_text())["data"]["init_args"]["prompts_per_step"])


def _curves(run: Path) -> dict[str, list[tuple[int, float]]]:
    """Logged numbers; of a step that was run twice, because of a resume, the second time."""
    events = EventAccumulator(str(run), size_guidance={"scalars": 0})
    events.Reload()
    wanted = [tag for tag in events.Tags()["scalars"] if tag in (*CURVES, "time/step_s", "time/waiting_s")]
    return {tag: sorted({event.step: event.value for event in events.Scalars(tag)}.items()) for tag in wanted}
