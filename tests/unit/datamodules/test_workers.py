"""Workers of every loader outlive the signals that stop a training, and end when the training process ends them."""

import os
import signal
import subprocess
import sys
from multiprocessing import active_children

import pytest
from benchmark_trees import NumberedClips

from datamodules.avshapes.recipes import PerceptionData
from datamodules.order import ClipLoader, EvalOrder
from datamodules.serving import ClipSet


def clip_loader():
    return ClipLoader(ClipSet(NumberedClips(20)), EvalOrder(20, batch_size=1), num_workers=2)


def scene_loader():
    return PerceptionData(20, pairs=1, clips=1, val_pairs=2, workers=2).train_dataloader()


def begun(loader):
    """Batches of a loader that has begun, and its workers; other tests may have left processes of their own."""
    before = active_children()
    batches = iter(loader())
    next(batches)
    return batches, [process for process in active_children() if process not in before]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("loader", [clip_loader, scene_loader])
def test_signals_from_elsewhere_do_not_end_workers(loader, number):
    batches, workers = begun(loader)
    assert len(workers) == 2

    numbers = [worker.pid for worker in workers]
    subprocess.run([sys.executable, "-c", f"import os; [os.kill(pid, {number:d}) for pid in {numbers}]"], check=True)

    assert len(list(batches)) >= 19, "two workers may draw every scene twice"
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
