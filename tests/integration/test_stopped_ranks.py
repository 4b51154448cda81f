"""Two processes are told to stop, wherever each of them is: both end their step, save and stop together."""

import os
import signal
import sys
import time
from dataclasses import dataclass, field
from multiprocessing import get_context, set_forkserver_preload
from pathlib import Path

import lightning as L
import pytest
import torch
from lightning.pytorch.utilities.exceptions import SIGTERMException

UNIT = Path(__file__).parents[1] / "unit"
sys.path[:0] = [str(UNIT), str(UNIT / "lightning_modules")]

from rank_runs import STRATEGIES, run  # noqa: E402
from ranks import MODULES, enter, free_port  # noqa: E402

from callbacks.checkpoint import RunCheckpoint  # noqa: E402
from callbacks.interrupt import GracefulInterrupt  # noqa: E402
from callbacks.rank_watch import RankWatch  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")
STOPPED = 130


@dataclass
class Signals(L.Callback):
    """In the second step one process dawdles until the other waits for it, and then signals some of them.

    Attributes:
        folder: Where processes leave their numbers.
        where: The part of the step, or "validation".
        late: Who dawdles.
        told: Who gets the signal.
        number: Which signal.
    """

    folder: Path
    where: str
    late: int
    told: tuple[int, ...]
    number: int = signal.SIGTERM
    is_done: bool = field(default=False)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self.trainer = trainer
        (self.folder / f"process-{trainer.global_rank}").write_text(str(os.getpid()))
        pl_module.clock.listeners.append(self.on_phase)

    def on_phase(self, phase: str) -> None:
        place = "validation" if self.trainer.validating else phase
        if self.is_done or self.trainer.global_step < 2 or (self.where, self.late) != (place, self.trainer.global_rank):
            return
        self.is_done = True
        time.sleep(2)
        for rank in self.told:
            os.kill(int((self.folder / f"process-{rank}").read_text()), self.number)
        time.sleep(0.5)


def stopped(rank: int, port: int, weights: Path, strategy: str, signals: Signals) -> None:
    os.dup2(os.open(signals.folder / f"rank-{rank}.txt", os.O_WRONLY | os.O_CREAT), 2)
    enter(rank, 2, port)
    try:
        run(
            weights,
            strategy=STRATEGIES[strategy](),
            rank=rank,
            world_size=2,
            callbacks=[
                GracefulInterrupt(),
                RankWatch(every_s=0.2),
                signals,
                RunCheckpoint(str(signals.folder / "checkpoints"), every_n_train_steps=100),
            ],
            steps=8,
            enable_checkpointing=True,
            limit_val_batches=None if signals.where == "validation" else 0,
        )
    except SIGTERMException:
        sys.exit(STOPPED)


def codes(weights: Path, strategy: str, signals: Signals) -> list[int | None]:
    """Exit codes of both processes; None for one that has not ended within a minute of the signal."""
    set_forkserver_preload(MODULES)
    context, port = get_context("forkserver"), free_port()
    ranks = [context.Process(target=stopped, args=(rank, port, weights, strategy, signals)) for rank in (0, 1)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(timeout=120)
    ended = [process.exitcode for process in ranks]
    for process in ranks:
        process.kill()
        process.join()
    return ended


@pytest.mark.parametrize(
    ("where", "strategy", "late", "told", "number"),
    [
        pytest.param("rewards", "ddp", 1, (0, 1), signal.SIGTERM, id="rank 0 ahead"),
        pytest.param("rewards", "sharded", 0, (0, 1), signal.SIGTERM, id="rank 1 ahead"),
        pytest.param("update", "ddp", 0, (1,), signal.SIGTERM, id="only rank 1 is told"),
        pytest.param("rollout", "layer", 1, (0, 1), signal.SIGINT, id="Ctrl-C"),
        pytest.param("validation", "sharded", 0, (0, 1), signal.SIGTERM, id="in validation"),
    ],
)
def test_processes_that_are_told_to_stop_save_and_stop_together(
    where: str, strategy: str, late: int, told: tuple[int, ...], number: int, weights: Path, tmp_path: Path
) -> None:
    assert codes(weights, strategy, Signals(tmp_path, where, late, told, number)) == [STOPPED, STOPPED]
    words = "".join((tmp_path / f"rank-{rank}.txt").read_text() for rank in (0, 1))
    assert "is gone" not in words, "who ends first is not missed by the other"
    assert words.count("Stopping after this step") == (number == signal.SIGINT)
    last = tmp_path / "checkpoints" / "last.ckpt"
    step = 2 if where == "validation" else 4
    assert last.resolve().name == f"step={step}.ckpt"
    if where == "validation":
        validate = {"limit_val_batches": None}
        resumed, whole = run(weights, resume=last, steps=4, **validate), run(weights, steps=4, **validate)
        for name, value in whole["weights"].items():
            torch.testing.assert_close(resumed["weights"][name], value, rtol=0, atol=1e-5)
