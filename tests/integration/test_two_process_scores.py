"""The official averages over two processes are those of one, however expressions are spread, repeated or missing."""

import os
import socket
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import multiprocessing

from metrics.refavs import hard_logits
from metrics.refavs_scores import RefAVSScores, refavs_parts
from metrics.video_parts import VideoParts
from metrics.video_scores import MeViSScores, ReVOSScores

SPREADS = {
    "in turn": lambda position: (position % 2,),
    "in blocks": lambda position: (position // 6,),
    "all on one": lambda position: (0,),
    "padded": lambda position: (position % 2, 1),
}
"""Which processes hold an expression; every one is held by some."""


def scores(holds) -> dict[str, float]:
    """All three benchmarks over the expressions that `holds` says are ours."""
    refavs, revos, mevis = RefAVSScores(), ReVOSScores(), MeViSScores()
    rng = np.random.default_rng(0)
    for position in range(11):
        masks = torch.from_numpy(rng.random((2, 3, 1, 8, 8)) < 0.4)
        values = VideoParts(*rng.random(6).tolist())
        if not holds(position):
            continue
        parts = refavs_parts(hard_logits(masks[0]), masks[1].float())
        refavs.update(parts, split=("test_s", "test_n")[position % 5 == 4], position=position)
        revos.update(values, kind=("referring", "reasoning")[position % 3 == 0], objects=1, position=position)
        mevis.update(values, split="valid_u", position=position)
    return {key: float(value) for metric in (refavs, revos, mevis) for key, value in metric.compute().items()}


def run_rank(rank: int, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    os.environ.update({"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)})
    dist.init_process_group("gloo", rank=rank, world_size=2)
    found = {name: scores(lambda position, spread=spread: rank in spread(position)) for name, spread in SPREADS.items()}
    torch.save(found, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_the_number_of_processes_does_not_change_a_score(tmp_path):
    multiprocessing.spawn(run_rank, (free_port(), str(tmp_path)), nprocs=2)
    expected = scores(lambda position: True)
    assert {"test_s/F", "test_n/S", "overall/R_official", "valid_u/JF"} <= set(expected)
    for rank in (0, 1):
        for name, found in torch.load(tmp_path / f"{rank}.pt", weights_only=True).items():
            assert found == expected, (rank, name)
