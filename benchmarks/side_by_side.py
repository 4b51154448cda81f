"""Trainings and tests of them, several processes at a time, that go on where they were stopped.

A job is one training and one test, each `python train.py` as a user types it, in a folder of its own. What is done is
seen from the files that it leaves: a job whose test has written its results is finished, one with a checkpoint goes on
from there. A job that fails does not keep the others from running. A folder remembers what it was made with, a
job's folder its configuration, and both refuse anything else.

A job's folder is locked while a command works in it, by that command too: if this script is killed and its commands go
on, whoever starts it again waits for them, and no two trainings write into one folder.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Lock
from types import FrameType
from typing import IO, Any, NoReturn, Self

import yaml

from outcomes import newest_run, remember_code, results_of

ROOT = Path(__file__).parents[1]
TRAINED = Path("adapter") / "adapter_config.json"
"""The last file that a training writes."""

STOPPED = 130
"""Exit code of a training that was asked to stop, by Ctrl-C or SIGTERM."""


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


def remember_configurations(jobs: Sequence[Job], folder: Path) -> None:
    """Keep with every job what its configuration files say, comments apart, or compare with what was kept.

    Args:
        jobs: Trained and tested ones as well as those to come.
        folder: Where their folders are.

    Raises:
        SystemExit: A job was made with files that said something else.
    """
    for job in jobs:
        said = [yaml.safe_load((ROOT / config).read_text()) for config in job.configs]
        digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:12]
        remember(folder / job.name, {"configuration": digest})


def weights_digest(folder: Path) -> str:
    """Twelve digits that differ whenever a weight file below a folder does."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.safetensors")):
        digest.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def digest_of(*made_of: str) -> str:
    """Twelve digits that differ whenever one of some texts does."""
    return hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:12]


def run_jobs(jobs: Sequence[Job], folder: Path, *, processes: int = 2) -> list[str]:
    """Run what is not finished. Ctrl-C and SIGTERM stop the commands that run, and this ends once they have saved.

    Args:
        jobs: In order of importance.
        folder: Where their folders are.
        processes: How many at a time.

    Returns:
        Names of the jobs that failed; what the commands printed is in their folders.

    Raises:
        KeyboardInterrupt: This script or one of the trainings was asked to stop.
        SystemExit: SIGTERM came.
    """
    left = [job for job in jobs if results_of(folder / job.name) is None]
    print(f"{len(jobs) - len(left)} of {len(jobs)} jobs are finished", flush=True)
    with _sigterm_raises(), Crew(folder, processes=processes) as crew:
        finished = crew.run(left)
    return [job.name for job, is_finished in zip(left, finished, strict=True) if not is_finished]


def leave_if_failed(failed: Sequence[str], folder: Path) -> None:
    """Let the script end with a message, after whatever could be written was.

    Args:
        failed: Names of jobs, from `run_jobs`.
        folder: Where their folders are.

    Raises:
        SystemExit: There are some.
    """
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}. Their logs are in {folder}; the same command runs them again.")


@contextmanager
def _sigterm_raises() -> Iterator[None]:
    """Python would end at SIGTERM, and leave the commands running."""

    def leave(number: int, frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class Crew:
    """Commands that run side by side; what still runs when this is left is asked to stop, and waited for.

    Threads begin them, also if there is one at a time: signals interrupt the main thread alone, so none can come
    between the start of a command and the note of it that `stop` needs.
    """

    def __init__(self, folder: Path, *, processes: int) -> None:
        """Begin nothing yet.

        Args:
            folder: Where the jobs' folders are.
            processes: How many at a time.
        """
        self._folder = folder
        self._pool = ThreadPoolExecutor(processes)
        self._stopped = Event()
        self._guard = Lock()
        self._running: set[subprocess.Popen[bytes]] = set()

    def __enter__(self) -> Self:
        """Nothing to prepare."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop, and wait for the threads, each of which waits for its command."""
        self.stop()
        self._pool.shutdown(cancel_futures=True)

    def stop(self) -> None:
        """Ask what still runs to stop, and begin nothing more."""
        with self._guard:
            self._stopped.set()
            for process in self._running:
                process.terminate()

    def run(self, jobs: Sequence[Job]) -> list[bool]:
        """Run what is left of some jobs.

        Returns:
            Whether each is finished.

        Raises:
            KeyboardInterrupt: A training was asked to stop; the others are asked too.
        """
        return list(self._pool.map(self._finish, jobs))

    def _finish(self, job: Job) -> bool:
        if self._stopped.is_set():
            return False
        place = self._folder / job.name
        place.mkdir(parents=True, exist_ok=True)
        try:
            with self._alone_in(place) as lock:
                if results_of(place) is None:
                    self._train_and_test(job, place, lock)
        except (subprocess.CalledProcessError, OSError) as error:
            if self._stopped.is_set():
                return False
            if isinstance(error, subprocess.CalledProcessError) and error.returncode == STOPPED:
                self.stop()
                raise KeyboardInterrupt from error
            print(f"{job.name} failed: {error}", flush=True)
            return False
        return results_of(place) is not None

    def _train_and_test(self, job: Job, place: Path, lock: IO[str]) -> None:
        where = ["--trainer.logger.save_dir", str(self._folder), "--trainer.logger.name", job.name]
        described = [part for config in job.configs for part in ("--config", config)]
        if job.fit is None:
            self._call(["test", *described, *where, *job.test], place, lock)
            return
        run = newest_run(place)
        if run is None or not (run / TRAINED).is_file():
            is_begun = run is not None and (run / "checkpoints" / "last.ckpt").exists()
            remember_code(place, ROOT, goes_on=is_begun)
            command = ["fit", "--resume", str(run)] if is_begun else ["fit", *described, *where, *job.fit]
            self._call(command, place, lock)
            run = newest_run(place)
        # By the exported adapter, as whoever is given it would.
        trained = ["--config", f"{run}/config.yaml", "--model.reasoner.adapter", f"{run}/adapter"]
        self._call(["test", *trained, *where, *job.test], place, lock)

    @contextmanager
    def _alone_in(self, place: Path) -> Iterator[IO[str]]:
        """Lock a job's folder; waits for a command that another script has left there.

        Raises:
            InterruptedError: Everything ends.
        """
        with (place / ".lock").open("a+") as lock:
            has_said = False
            while not _is_taken(lock):
                if not has_said:
                    lock.seek(0)
                    print(f"{place.name}: waiting for process {lock.read().strip()}, which works in it", flush=True)
                    has_said = True
                if self._stopped.wait(1.0):
                    raise InterruptedError(f"{place.name}: stopped waiting")
            _sign(lock, os.getpid())
            yield lock

    def _call(self, arguments: Sequence[str], place: Path, lock: IO[str]) -> None:
        """One command; what it prints goes into a file, whose end is shown when it fails."""
        command = [sys.executable, "train.py", *arguments, "--trainer.enable_progress_bar", "false"]
        log = place / f"{arguments[0]}.log"
        with log.open("a") as file:
            with self._guard:
                if self._stopped.is_set():
                    raise InterruptedError(f"{place.name}: stopped before {arguments[0]}")
                print(f"{place.name}: {arguments[0]}", flush=True)
                # With the lock's own descriptor, so that it is held for as long as the command lives.
                held = [lock.fileno()]
                process = subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, pass_fds=held)
                self._running.add(process)
            with process:  # left when it has ended, whatever happens here
                _sign(lock, process.pid)
            with self._guard:
                self._running.discard(process)
        if process.returncode:
            if not self._stopped.is_set():
                print(f"{place.name}: the end of {log}:\n{log.read_text()[-2000:]}", flush=True)
            raise subprocess.CalledProcessError(process.returncode, command)


def _is_taken(lock: IO[str]) -> bool:
    """Take a lock, unless another process has it."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _sign(lock: IO[str], process: int) -> None:
    """Say in a lock whose it is."""
    lock.truncate(0)
    lock.write(f"{process}\n")
    lock.flush()
