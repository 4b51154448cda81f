"""Several processes of one machine as the ranks of a run."""

import os
import socket
from collections.abc import Callable
from multiprocessing import set_forkserver_preload
from typing import Any

from torch import multiprocessing

# The server that processes are forked from imports once what all of them need, which takes longer than their runs.
MODULES = ["torch.distributed.fsdp", "lightning.pytorch.strategies", "lightning_modules.sharded_strategy", "train"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def enter(rank: int, world_size: int, port: int) -> None:
    """Tell Lightning that it is one of several processes which somebody else has started."""
    os.environ.update(
        {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "GROUP_RANK": "0",
            "WORLD_SIZE": str(world_size),
            "LOCAL_WORLD_SIZE": str(world_size),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "TORCHELASTIC_RUN_ID": "test",
        }
    )


def _run(rank: int, function: Callable[..., None], world_size: int, port: int, arguments: tuple[Any, ...]) -> None:
    enter(rank, world_size, port)
    function(rank, *arguments)


def run_ranks(function: Callable[..., None], *arguments: Any, world_size: int = 2) -> None:
    """Call a function on every rank and wait for all; the first argument is the rank."""
    set_forkserver_preload(MODULES)
    multiprocessing.start_processes(
        _run, (function, world_size, free_port(), arguments), nprocs=world_size, start_method="forkserver"
    )
