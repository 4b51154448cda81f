"""The order of training prompts in runs that go from two processes to one and on to four, wherever they were cut."""

import json
import logging
import sys
import warnings
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.strategies import DDPStrategy
from ranks import run_ranks

sys.path[:0] = [str(Path(__file__).parents[1] / "unit" / "datamodules")]

from benchmark_trees import NumberedClips  # noqa: E402

from datamodules.order import ResumableLoader, TrainOrder  # noqa: E402
from datamodules.records import Clip  # noqa: E402
from datamodules.serving import ClipSet  # noqa: E402
from lightning_modules.resume_place import match_place  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")
PROMPTS = 24


class Data(L.LightningDataModule):
    """One prompt per step and process."""

    prompts_per_step = 1

    def train_dataloader(self) -> ResumableLoader:
        own = {"rank": self.trainer.global_rank, "world_size": self.trainer.world_size}
        return ResumableLoader(ClipSet(NumberedClips(PROMPTS)), TrainOrder(PROMPTS, batch_size=1, **own))


class Recorder(L.LightningModule):
    """Writes down what it is given; trains nothing."""

    automatic_optimization = False

    def __init__(self, save: str | None) -> None:
        super().__init__()
        self.save = save
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: list[tuple[int, str]] = []

    def training_step(self, batch: list[Clip], batch_idx: int) -> None:
        self.manual_backward(self.weight.sum() * 0)
        self.optimizers().step()
        self.seen += [(self.current_epoch, clip.id) for clip in batch]

    def on_train_batch_end(self, *_: object) -> None:
        # After the fit Lightning would count the epoch as done.
        if self.save is not None and self.global_step == self.trainer.max_steps:
            self.trainer.save_checkpoint(self.save)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        match_place(checkpoint, self.trainer)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1.0)

    def transfer_batch_to_device(self, batch: list[Clip], device: torch.device, dataloader_idx: int) -> list[Clip]:
        return batch


def fit(folder: Path, *, until: int, resume: str | None, save: str | None, **own: Any) -> list[tuple[int, str]]:
    """Two epochs, or fewer steps; what this process was given."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.getLogger("lightning").setLevel(logging.ERROR)
    module = Recorder(None if save is None else str(folder / save))
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=2,
        max_steps=until,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **own,
    )
    trainer.fit(module, datamodule=Data(), ckpt_path=None if resume is None else str(folder / resume))
    return module.seen


def several(rank: int, folder: Path, world_size: int, until: int, resume: str | None, save: str | None) -> None:
    ddp = DDPStrategy(process_group_backend="gloo")
    seen = fit(folder, until=until, resume=resume, save=save, strategy=ddp, devices=world_size)
    (folder / f"{world_size}-{rank}.json").write_text(json.dumps(seen))


def test_two_processes_then_one_then_four_ask_nothing_twice(tmp_path: Path) -> None:
    """5 steps of two prompts, 3 of one, and of the 11 that are left 2 of four; the second epoch is whole."""
    run_ranks(several, tmp_path, 2, 5, None, "two.ckpt", world_size=2)
    seen = fit(tmp_path, until=5 + 3, resume="two.ckpt", save="one.ckpt", devices=1)
    run_ranks(several, tmp_path, 4, -1, "one.ckpt", None, world_size=4)
    for count in (2, 4):
        for rank in range(count):
            seen += [tuple(pair) for pair in json.loads((tmp_path / f"{count}-{rank}.json").read_text())]
    assert len(set(seen)) == len(seen)
    assert sum(epoch == 0 for epoch, _ in seen) == 10 + 3 + 8
    assert sum(epoch == 1 for epoch, _ in seen) == PROMPTS
