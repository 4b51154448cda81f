"""How the processes that read ahead behave: one thread for computing each, and no end before their loader's."""

from __future__ import annotations

import os
import signal
import sys
import threading
from multiprocessing import parent_process

import torch


def start_method(workers: int) -> str | None:
    """How a loader starts its workers: on Linux as copies of the training process, whatever Python prefers.

    Since Python 3.14 a server would start them. It ends with the first signal to a whole group of processes, and the
    workers with it, as they take it for the training process; and when that is killed, they live on. Each worker would
    also import everything anew, in every epoch.

    Args:
        workers: Their number.

    Returns:
        What a `DataLoader` takes as `multiprocessing_context`; None, the platform's own way, on other systems, where
        copies are not safe, and where there are no workers.
    """
    return "fork" if workers and sys.platform == "linux" else None


def set_up_worker(worker: int) -> None:
    """To be called first in every worker of a loader.

    A worker has one computing thread: workers run side by side, and threads of a forked process may wait for ever. It
    outlives what stops a training: Ctrl-C, torchrun, `timeout` and systemd signal a whole group of processes, and
    without its workers the training process could not end the step that it is in. Workers end with their loader, with
    the training process, or when that asks them to.

    Args:
        worker: Its number, 0-based.
    """
    torch.set_num_threads(1)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    training = parent_process()  # not the process of `getppid`, where a server has started the worker
    if training is not None and hasattr(signal, "sigwaitinfo"):  # on macOS, SIGTERM to a whole group still ends workers
        # SIGTERM cannot just be ignored: with it the training process ends its workers when it exits, and waits for
        # them. So it is held back from the process and taken up by a thread that sees who has sent it.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_obey, args=(training.pid,), daemon=True, name=f"worker-{worker}-signals").start()


def _obey(sender: int) -> None:
    """End this process at a SIGTERM from this process and no other."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != sender:
        pass
    os._exit(0)
