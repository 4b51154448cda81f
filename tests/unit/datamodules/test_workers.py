"""Workers of every loader outlive the signals that stop a training, and end when the training process ends them."""

import contextlib
import os
import signal
import subprocess
import sys
from multiprocessing import active_children, get_context, set_start_method

import pytest
from benchmark_trees import NumberedClips
from torch.utils.data import DataLoader

from datamodules.order import ClipLoader, EvalOrder
from datamodules.serving import ClipSet
from datamodules.workers import set_up_worker


def clip_loader():
    return ClipLoader(ClipSet(NumberedClips(20)), EvalOrder(20, batch_size=1), num_workers=2)


def scene_loader():
    # Lightning comes with it, which every process that these tests start would have to import.
    from datamodules.avshapes.recipes import PerceptionData

    return PerceptionData(20, pairs=1, clips=1, val_pairs=2, workers=2).train_dataloader()


def begun(loader):
    """Batches of a loader whose workers are set up, and the workers; other tests may have left processes of their own.

    Workers take turns, so that one batch of each of the two has come.
    """
    before = active_children()
    batches = iter(loader())
    for _ in range(2):
        next(batches)
    return batches, [process for process in active_children() if process not in before]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("loader", [clip_loader, scene_loader])
def test_signals_from_elsewhere_do_not_end_workers(loader, number):
    batches, workers = begun(loader)
    assert len(workers) == 2

    numbers = [worker.pid for worker in workers]
    subprocess.run([sys.executable, "-c", f"import os; [os.kill(pid, {number:d}) for pid in {numbers}]"], check=True)

    assert len(list(batches)) >= 18, "two workers may draw every scene twice"
    assert [worker.exitcode for worker in workers] == [0, 0]


@pytest.mark.parametrize("loader", [clip_loader, scene_loader])
def test_the_training_process_can_end_its_workers(loader):
    """As it does when it exits with a loader still open; it would wait for them for ever otherwise."""
    batches, workers = begun(loader)
    assert len(workers) == 2

    for worker in workers:
        os.kill(worker.pid, signal.SIGTERM)
        worker.join(timeout=30)

    assert [worker.exitcode for worker in workers] == [0, 0]
    del batches


def exit_code(training, *arguments):
    """What a function ends with as a new process with a group of its own, none of which is left behind."""
    process = get_context("spawn").Process(target=training, args=arguments)
    process.start()
    try:
        process.join(timeout=200)
        return process.exitcode
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.join()


def fail_with_a_loader_open(method):
    os.setpgrp()
    batches = iter(DataLoader(range(9), num_workers=1, worker_init_fn=set_up_worker, multiprocessing_context=method))
    next(batches)
    sys.exit(3)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_training_process_that_fails_is_not_kept_by_its_workers(method):
    assert exit_code(fail_with_a_loader_open, method) == 3


def go_on_after_a_signal_to_all(method):
    os.setpgrp()
    set_start_method(method, force=True)
    signal.signal(signal.SIGTERM, lambda *_: None)
    batches, _ = begun(clip_loader)
    subprocess.run([sys.executable, "-c", "import os, signal; os.killpg(0, signal.SIGTERM)"], check=False)
    sys.exit(len(list(batches)))


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_workers_outlive_a_signal_to_the_group_whatever_python_starts_processes_with(method):
    assert exit_code(go_on_after_a_signal_to_all, method) == 18
