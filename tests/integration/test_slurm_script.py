"""The example job for SLURM, with programs in SLURM's place that write down what they are asked for."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "slurm.sh"
STEP = """#!/bin/bash
echo "srun $*" >> calls
echo "${SRUN_CPUS_PER_TASK:-none}" > cores
if [ -e waits ]; then trap "[ -e stubborn ] || exit $(cat code)" TERM; fi
echo $$ > step
while [ -e waits ]; do sleep 0.05; done
exit "$(cat code)"
"""
OTHERS = {
    "scancel": '#!/bin/bash\necho "scancel $*" >> calls\nkill -TERM "$(cat step)"\n',
    # The job is queued again, and what still runs of it is ended.
    "scontrol": '#!/bin/bash\necho "scontrol $*" >> calls\nkill -KILL "$(cat step)" 2> /dev/null\n',
}


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """An empty folder in which such a job runs."""
    for name, text in {"srun": STEP, **OTHERS}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "code").write_text("0")
    return tmp_path


def start(job: Path, *arguments: str, **changes: str) -> subprocess.Popen[bytes]:
    slurm = {"SLURM_JOB_ID": "7", "SLURM_NNODES": "2", "SLURM_NTASKS_PER_NODE": "8", "SLURM_CPUS_PER_TASK": "6"}
    environment = os.environ | slurm | {"PATH": f"{job}:{os.environ['PATH']}"} | changes
    return subprocess.Popen(["bash", str(SCRIPT), *arguments], cwd=job, env=environment)


def calls(job: Path) -> list[str]:
    return (job / "calls").read_text().splitlines()


def test_a_job_runs_what_it_is_given_in_a_folder_of_its_own(job: Path) -> None:
    assert start(job, "--config", "a.yaml").wait(timeout=60) == 0
    (line,) = calls(job)
    assert line.startswith("srun python train.py fit --config a.yaml --trainer.logger.save_dir runs ")
    assert line.endswith("--trainer.logger.version job_7 --trainer.num_nodes 2 --trainer.devices 8")


def test_a_job_that_has_saved_goes_on(job: Path) -> None:
    (job / "runs/slurm/job_7/checkpoints/last.ckpt").mkdir(parents=True)
    assert start(job, "--config", "a.yaml").wait(timeout=60) == 0
    assert calls(job) == [
        "srun python train.py fit --resume runs/slurm/job_7 --trainer.num_nodes 2 --trainer.devices 8"
    ]


def told(job: Path, **changes: str) -> subprocess.Popen[bytes]:
    """A job that is told that its time is nearly over."""
    (job / "waits").touch()
    running = start(job, **changes)
    deadline = time.monotonic() + 60
    while not ((job / "step").exists() and (job / "step").read_text().strip()):
        assert time.monotonic() < deadline, "the step has not begun"
        time.sleep(0.05)
    running.send_signal(signal.SIGUSR1)
    return running


def test_every_process_has_the_cores_of_its_task(job: Path) -> None:
    assert start(job).wait(timeout=60) == 0
    assert (job / "cores").read_text().strip() == "6"


def test_a_job_whose_time_is_over_stops_in_order_and_comes_again(job: Path) -> None:
    (job / "code").write_text("130")
    assert told(job).wait(timeout=60) == 0
    assert calls(job)[1:] == ["scancel --signal=TERM 7", "scontrol requeue 7"]


def test_a_job_that_does_not_stop_in_time_comes_again_all_the_same(job: Path) -> None:
    """A step that takes longer than what is left of the job; it is queued once."""
    (job / "stubborn").touch()
    assert told(job, REQUEUE_AFTER_S="1").wait(timeout=60) == 0
    assert calls(job)[1:] == ["scancel --signal=TERM 7", "scontrol requeue 7"]


def test_a_job_that_ends_while_it_is_told_to_stop_does_not_come_again(job: Path) -> None:
    assert told(job).wait(timeout=60) == 0
    assert calls(job)[1:] == ["scancel --signal=TERM 7"]


def test_a_run_that_fails_is_not_repeated(job: Path) -> None:
    (job / "code").write_text("1")
    assert start(job).wait(timeout=60) == 1
    assert len(calls(job)) == 1
