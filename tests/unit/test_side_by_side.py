"""Jobs that fail, wait, are stopped, or go on: with commands that take no time, or real ones where that matters."""

import fcntl
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Barrier

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def side(script):
    return script("side_by_side")


def jobs_named(side, *names):
    return [side.Job(name, (), None, ()) for name in names]


def finish(place):
    (place / "test_0").mkdir(exist_ok=True)
    (place / "test_0" / "results.json").write_text("{}")


def as_command(side, monkeypatch, program):
    """Let every command be a program of Python."""
    (root := Path(program).parent / "root").mkdir()
    (root / "train.py").write_text(Path(program).read_text())
    monkeypatch.setattr(side, "ROOT", root)


def test_a_folder_keeps_to_its_settings(side, tmp_path):
    side.remember(tmp_path / "runs", {"prompts": 4, "weights": "abc"})
    side.remember(tmp_path / "runs", {"prompts": 4, "weights": "abc"})
    with pytest.raises(SystemExit, match=r"other settings \(weights: abc -> def\)\. Remove it, or name another"):
        side.remember(tmp_path / "runs", {"prompts": 4, "weights": "def"})
    side.remember(tmp_path / "runs", {"prompts": 4, "clips": "123"})
    with pytest.raises(SystemExit, match=r"other settings \(clips: 123 -> 456\)"):
        side.remember(tmp_path / "runs", {"prompts": 4, "clips": "456"})
    side.remember(tmp_path / "runs", {"weights": "abc"})


def test_a_job_keeps_to_what_its_own_configuration_files_say(side, tmp_path, monkeypatch):
    """Comments and the files of other jobs may change."""
    monkeypatch.setattr(side, "ROOT", tmp_path)
    (tmp_path / "a.yaml").write_text("beta: 0")
    (tmp_path / "b.yaml").write_text("beta: 0")
    one, two = side.Job("one", ("a.yaml",), None, ()), side.Job("two", ("a.yaml", "b.yaml"), None, ())
    side.remember_configurations([one, two], tmp_path / "runs")
    (tmp_path / "b.yaml").write_text("# Measured.\nbeta: 0")
    side.remember_configurations([one, two], tmp_path / "runs")
    (tmp_path / "b.yaml").write_text("beta: 1")
    side.remember_configurations([one], tmp_path / "runs")
    with pytest.raises(SystemExit, match=r"two holds runs with other settings \(configuration: "):
        side.remember_configurations([two], tmp_path / "runs")


def test_a_job_without_results_is_not_finished(script, tmp_path):
    outcomes = script("outcomes")
    (tmp_path / "test_0").mkdir()
    assert outcomes.results_of(tmp_path) is None
    with pytest.raises(FileNotFoundError, match="the job is not finished"):
        outcomes.read_outcome(tmp_path)


def test_a_failed_job_does_not_stop_the_others(side, tmp_path, capsys, monkeypatch):
    """The first one ends with its command's own message; a file that is missing is a failure like any other."""
    program = tmp_path / "program.py"
    program.write_text("import sys; sys.exit('nowhere.yaml is not there')")
    as_command(side, monkeypatch, program)
    assert side.run_jobs(jobs_named(side, "one"), tmp_path, processes=1) == ["one"]
    printed = capsys.readouterr().out
    assert "0 of 1 jobs are finished" in printed
    assert "one: the end of" in printed
    assert "nowhere.yaml is not there" in printed

    def run(self, job, place, lock):
        if job.name == "two":
            raise FileNotFoundError("no checkpoint")
        finish(place)

    monkeypatch.setattr(side.Crew, "_train_and_test", run)
    assert side.run_jobs(jobs_named(side, "two", "three"), tmp_path, processes=2) == ["two"]
    assert (tmp_path / "three" / "test_0" / "results.json").is_file()
    assert "two failed: no checkpoint" in capsys.readouterr().out


def test_failures_end_the_script(side, tmp_path):
    side.leave_if_failed([], tmp_path)
    with pytest.raises(SystemExit, match=r"failed: one, two\. Their logs are in \S+; the same command runs them again"):
        side.leave_if_failed(["one", "two"], tmp_path)


def test_jobs_run_side_by_side(side, tmp_path, monkeypatch):
    """Both threads are needed to get past the barrier."""
    barrier = Barrier(2, timeout=60)

    def run(self, job, place, lock):
        barrier.wait()
        finish(place)

    monkeypatch.setattr(side.Crew, "_train_and_test", run)
    names = ("one", "two", "three", "four")
    assert side.run_jobs(jobs_named(side, *names), tmp_path, processes=2) == []
    assert all((tmp_path / name / "test_0" / "results.json").is_file() for name in names)


def test_a_training_that_was_asked_to_stop_stops_all(side, tmp_path, monkeypatch):
    begun = []

    def run(self, job, place, lock):
        begun.append(job.name)
        raise subprocess.CalledProcessError(side.STOPPED, ["train.py"])

    monkeypatch.setattr(side.Crew, "_train_and_test", run)
    with pytest.raises(KeyboardInterrupt):
        side.run_jobs(jobs_named(side, "one", "two"), tmp_path, processes=1)
    assert begun == ["one"]


SAVES = """
import signal, sys, time

def save(*_):
    time.sleep(1)
    print("saved", flush=True)
    sys.exit(130)

signal.signal(signal.SIGTERM, save)
print("begun", flush=True)
time.sleep(60)
"""
"""A command that takes a while to end."""

RUNS = """
import signal, sys
from pathlib import Path
import side_by_side as side

# Programs that a shell has put in the background inherit that Ctrl-C is ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
side.ROOT, folder = Path(sys.argv[1]), Path(sys.argv[2])
jobs = [side.Job(name, (), None, ()) for name in ("one", "two", "three")]
side.run_jobs(jobs, folder, processes=int(sys.argv[3]))
"""


def wait_for_begun(logs, is_running):
    deadline = time.monotonic() + 120
    while not all(log.is_file() and "begun" in log.read_text() for log in logs):
        assert is_running(), "ended before its commands had begun"
        assert time.monotonic() < deadline, "no command has begun"
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("processes", "number", "code"),
    [(1, signal.SIGTERM, 143), (2, signal.SIGTERM, 143), (1, signal.SIGINT, -signal.SIGINT)],
    ids=["one", "two", "Ctrl-C"],
)
def test_the_script_ends_after_its_commands_have_saved(side, tmp_path, processes, number, code):
    """Who started the script may end whatever is left once it is gone."""
    (tmp_path / "train.py").write_text(SAVES)
    logs = [tmp_path / name / "test.log" for name in ("one", "two")[:processes]]
    command = [sys.executable, "-c", RUNS, str(tmp_path), str(tmp_path), str(processes)]
    paths = os.pathsep.join([str(BENCHMARKS), str(BENCHMARKS.parent)])
    environment = {**os.environ, "PYTHONPATH": paths}
    script = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        wait_for_begun(logs, lambda: script.poll() is None)
        script.send_signal(number)
        assert script.wait(timeout=120) == code
        for log in logs:
            with (log.parent / ".lock").open() as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises while the command still holds it
            assert log.read_text().split() == ["begun", "saved"]
        assert not (tmp_path / "three" / "test.log").is_file(), "nothing else is begun"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(script.pid, signal.SIGKILL)
        script.communicate()


def test_a_command_that_ends_while_all_are_told_to_does_not_spare_the_others(side, tmp_path, monkeypatch):
    """Whoever is told first ends, and is forgotten, before the next one's turn."""
    told = []

    class Prompt(subprocess.Popen):
        def terminate(self):
            told.append(self.pid)
            super().terminate()
            self.wait()
            time.sleep(0.1)  # for the thread that waits for it too

    (tmp_path / "train.py").write_text("import time; print('begun', flush=True); time.sleep(60)")
    monkeypatch.setattr(side, "ROOT", tmp_path)
    monkeypatch.setattr(side.subprocess, "Popen", Prompt)
    with side.Crew(tmp_path, processes=2) as crew, ThreadPoolExecutor(1) as other:
        finished = other.submit(crew.run, jobs_named(side, "one", "two"))
        wait_for_begun([tmp_path / name / "test.log" for name in ("one", "two")], lambda: not finished.done())
        crew.stop()
        assert finished.result(timeout=60) == [False, False]
    assert len(told) == 2


def test_a_folder_in_which_a_command_works_is_waited_for(side, tmp_path, monkeypatch):
    """The command of a script that was killed goes on, holds the lock alone, and finishes the job by itself."""
    place = tmp_path / "one"
    place.mkdir()
    left = "import select, sys; print(flush=True); select.select([sys.stdin], [], [], 60)"
    with (place / ".lock").open("a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        command = [sys.executable, "-c", left]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        orphan = subprocess.Popen(command, pass_fds=[lock.fileno()], **pipes)
        lock.write(f"{orphan.pid}\n")
    orphan.stdout.readline()

    said = []

    def let_finish(text, **_):
        said.append(text)
        if "waiting for process" in text:
            finish(place)
            orphan.communicate(b"\n")

    monkeypatch.setattr(side, "print", let_finish, raising=False)
    monkeypatch.setattr(side.Crew, "_train_and_test", lambda *_: pytest.fail("the orphan has finished the job"))
    assert side.run_jobs(jobs_named(side, "one"), tmp_path, processes=1) == []
    assert said[1:] == [f"one: waiting for process {orphan.pid}, which works in it"]


def trained(place, number):
    run = place / f"version_{number}"
    (run / "adapter").mkdir(parents=True)
    (run / "adapter" / "adapter_model.safetensors").touch()
    return run


def test_what_a_kill_has_left_decides_how_a_job_goes_on(side, tmp_path, monkeypatch):
    """Nothing, a run without a checkpoint, one with a checkpoint, half an export, a whole one, half a test."""
    called = []
    place = tmp_path / "one"

    def call(self, arguments, folder, lock):
        called.append(arguments)
        if arguments[0] == "fit" and arguments[1] != "--resume":
            number = len(list(place.glob("version_*")))
            (trained(place, number) / "adapter" / "adapter_config.json").touch()

    monkeypatch.setattr(side.Crew, "_call", call)
    job = side.Job("one", ("a.yaml",), ("--f",), ("--t",))

    def verbs():
        called.clear()
        assert side.run_jobs([job], tmp_path, processes=1) == ["one"], "there are no results"
        return [" ".join(arguments[:2]) for arguments in called]

    place.mkdir()
    (place / "version_0").mkdir()
    assert verbs() == ["fit --config", "test --config"]
    assert called[1][2] == str(place / "version_1" / "config.yaml")
    (place / "test_0").mkdir()
    assert verbs() == ["test --config"]
    half = trained(place, 2)
    (half / "checkpoints").mkdir()
    (half / "checkpoints" / "last.ckpt").touch()
    assert verbs() == ["fit --resume", "test --config"]
    assert called[0][2] == str(half)
