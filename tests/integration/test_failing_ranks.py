"""One of two processes is killed, fails or stalls in any part of a run: the other ends soon, and says why."""

import faulthandler
import os
import re
import signal
import sys
import time
from multiprocessing import get_context, set_forkserver_preload
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch

# Seconds for a run on busy cores; shortly before they are over each process writes down where it stands.
PATIENCE_S = 180
UNIT = Path(__file__).parents[1] / "unit"
sys.path[:0] = [str(UNIT), str(UNIT / "lightning_modules")]

from rank_runs import STRATEGIES, run  # noqa: E402
from ranks import MODULES, enter, free_port, run_ranks  # noqa: E402

from callbacks.rank_watch import RankWatch  # noqa: E402
from lightning_modules.phases import STEP_PHASES  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")


class Trap(L.Callback):
    """Does something to a process in the second step, when a part of it begins."""

    def __init__(self, where: str, what: str, *, victim: int = 1) -> None:
        self.where, self.what, self.victim = where, what, victim
        self.folder = Path()

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self.trainer = trainer
        pl_module.clock.listeners.append(self.on_phase)
        if self.where == "a reward":
            score = pl_module.suite.score
            pl_module.suite.score = lambda groups: (self.on_phase(self.where), score(groups))[1]

    def on_phase(self, phase: str) -> None:
        is_validating = self.trainer.validating
        if self.trainer.global_step < 2 or self.where != ("validation" if is_validating else phase):
            return
        for watch in self.trainer.callbacks:
            if self.what == "sleep" and isinstance(watch, RankWatch):
                watch.stalled_after_s, watch.stop_after_s = 2.0, 5.0
        self.act()

    def on_save_checkpoint(self, trainer: L.Trainer, *_: object) -> None:
        if self.where == "saving" and trainer.global_step > 2:
            self.act()

    def act(self) -> None:
        if self.trainer.global_rank != self.victim:
            return
        if self.what == "kill":
            (self.folder / "killed").write_text(str(time.monotonic()))
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.what == "fail":
            raise ZeroDivisionError("no luck")
        time.sleep(60)


class SaveLater(L.Callback):
    """Saves after the second rollout, as the first save of a run is needed for another purpose."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_batch_end(self, trainer: L.Trainer, *_: object) -> None:
        if trainer.global_step == 4:
            trainer.save_checkpoint(self.path)


def trapped(rank: int, port: int, weights: Path, folder: Path, strategy: str, trap: Trap) -> None:
    os.dup2(os.open(folder / f"rank-{rank}.txt", os.O_WRONLY | os.O_CREAT), 2)
    faulthandler.dump_traceback_later(PATIENCE_S - 20)
    enter(rank, 2, port)
    watch = RankWatch(every_s=0.2)
    run(
        weights,
        strategy=STRATEGIES[strategy](),
        rank=rank,
        world_size=2,
        save=folder / "first.ckpt",
        callbacks=[watch, trap, SaveLater(folder / "second.ckpt")],
        steps=6,
    )


def resumed(rank: int, weights: Path, folder: Path, strategy: str) -> None:
    """Go on with what the first step has left."""
    found = run(
        weights,
        strategy=STRATEGIES[strategy](),
        rank=rank,
        world_size=2,
        resume=folder / "first.ckpt",
        steps=6,
        limit_val_batches=0,
    )
    kept = {"weights": found["weights"], "steps": len(found["metrics"])}
    torch.save(kept, folder / f"resumed-{rank}.pt")


@pytest.fixture(scope="module")
def undisturbed(weights: Path) -> dict[str, Any]:
    """One process on all four clips, from the beginning to the end."""
    return run(weights, steps=6, limit_val_batches=0)


def survivor(weights: Path, folder: Path, strategy: str, trap: Trap) -> tuple[int | None, str]:
    """Exit code and last words of the process whose companion walks into the trap."""
    trap.folder = folder
    set_forkserver_preload(MODULES)
    context, port = get_context("forkserver"), free_port()
    ranks = [context.Process(target=trapped, args=(rank, port, weights, folder, strategy, trap)) for rank in (0, 1)]
    for process in ranks:
        process.start()
    survives = 1 - trap.victim
    ranks[survives].join(timeout=PATIENCE_S)
    ended = time.monotonic()
    for process in ranks:
        process.kill()
        process.join()
    words = [(folder / f"rank-{rank}.txt").read_text() for rank in (0, 1)]
    if trap.what == "kill":
        codes = [process.exitcode for process in ranks]
        assert (folder / "killed").exists(), f"nobody came to the trap; exit codes {codes}, {words}"
        assert ended - float((folder / "killed").read_text()) < 60, "within a minute"
    return ranks[survives].exitcode, words[survives]


@pytest.mark.parametrize(
    ("where", "strategy"),
    [
        *zip(STEP_PHASES, ("ddp", "layer", "sharded", "ddp", "sharded"), strict=True),
        ("validation", "ddp"),
        ("saving", "sharded"),
    ],
)
def test_when_a_process_is_killed_the_other_says_so_and_ends(
    where: str, strategy: str, weights: Path, tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    """And two new ones go on from the last checkpoint, to where one that was never disturbed arrives."""
    code, words = survivor(weights, tmp_path, strategy, Trap(where, "kill"))
    assert code == 1
    assert "rank 1 is gone (its process has ended); it was last seen in step" in words
    assert not (tmp_path / "second.ckpt").exists(), "half a checkpoint never takes a checkpoint's name"
    run_ranks(resumed, weights, tmp_path, strategy)
    for rank in (0, 1):
        found = torch.load(tmp_path / f"resumed-{rank}.pt", weights_only=True)
        assert found["steps"] == 2, "the second and the third"
        for name, value in undisturbed["weights"].items():
            torch.testing.assert_close(found["weights"][name], value, rtol=0, atol=1e-5)


def test_when_the_first_process_is_killed_the_other_says_so_and_ends(weights: Path, tmp_path: Path) -> None:
    """The first process also keeps what all of them write on."""
    code, words = survivor(weights, tmp_path, "ddp", Trap("update", "kill", victim=0))
    assert code == 1
    assert "rank 0 is gone" in words


def test_when_a_process_fails_the_other_repeats_its_message(weights: Path, tmp_path: Path) -> None:
    code, words = survivor(weights, tmp_path, "sharded", Trap("System 2", "fail"))
    assert code == 1
    assert "rank 1 failed in step 1, System 2" in words
    assert "ZeroDivisionError: no luck" in words


def test_a_stalled_run_says_who_is_behind_where_and_with_which_clip(weights: Path, tmp_path: Path) -> None:
    """The first process waits in the exchange for the second, whose reward sleeps over its first clip."""
    code, words = survivor(weights, tmp_path, "sharded", Trap("a reward", "sleep"))
    assert code == 1
    assert "no process has moved for" in words
    assert re.search(r"rank 1: step 1, rewards, with noise b \(for \d+ s\); rank 0: step 1, exchange", words)
