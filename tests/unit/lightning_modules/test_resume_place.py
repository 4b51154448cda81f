"""A run that goes on with larger or smaller steps asks every prompt of the epoch once."""

import warnings
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from small_models import noisy_clip

from datamodules.order import ResumableLoader, TrainOrder
from datamodules.reader import ClipReader
from datamodules.records import Clip
from datamodules.serving import ClipSet
from lightning_modules.resume_place import match_place


class Numbered(ClipReader):
    """Twelve clips that are called by their place."""

    nulls = (False,) * 12

    def clip(self, index: int, *, visit: int = 0) -> Clip:
        return noisy_clip(str(index))


class Data(L.LightningDataModule):
    def __init__(self, prompts_per_step: int) -> None:
        super().__init__()
        self.prompts_per_step = prompts_per_step

    def train_dataloader(self) -> ResumableLoader:
        return ResumableLoader(ClipSet(Numbered()), TrainOrder(12, batch_size=self.prompts_per_step))


class Recorder(L.LightningModule):
    automatic_optimization = False

    def __init__(self, save_after: int | None, path: str) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.save_after, self.path = save_after, path
        self.seen: list[tuple[int, str]] = []

    def training_step(self, batch: list[Clip], batch_idx: int) -> None:
        self.manual_backward(self.weight.sum() * 0)
        self.optimizers().step()
        self.seen += [(self.current_epoch, clip.id) for clip in batch]

    def on_train_batch_end(self, *_: object) -> None:
        if self.save_after is not None and self.global_step == self.save_after:
            self.trainer.save_checkpoint(self.path)

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        match_place(checkpoint, self.trainer)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1.0)

    def transfer_batch_to_device(self, batch: list[Clip], device: torch.device, dataloader_idx: int) -> list[Clip]:
        return batch


def fit(path, *, prompts_per_step, save_after=None, checkpoint=None):
    module = Recorder(save_after, path)
    trainer = L.Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=2,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(module, datamodule=Data(prompts_per_step), ckpt_path=checkpoint)
    return module.seen


@pytest.mark.parametrize(("before", "after", "steps"), [(2, 1, 2), (1, 4, 4), (1, 2, 8), (4, 2, 3), (2, 6, 6)])
def test_every_prompt_is_asked_once_per_epoch(tmp_path, before, after, steps):
    """Saved after some steps of one size, in the middle of an epoch or at its end, and resumed with another size."""
    path = str(tmp_path / "run.ckpt")
    seen = fit(path, prompts_per_step=before, save_after=steps)[: steps * before]
    seen += fit(path, prompts_per_step=after, checkpoint=path)
    assert sorted(seen) == sorted((epoch, str(index)) for epoch in range(2) for index in range(12))


@pytest.mark.parametrize(("before", "after", "steps"), [(1, 4, 5), (2, 5, 3), (5, 2, 1), (2, 4, 3)])
def test_a_place_within_a_step_loses_less_than_a_step(tmp_path, before, after, steps):
    """The epoch that is resumed asks nothing twice and leaves out what fills no step; the next one is whole."""
    path = str(tmp_path / "run.ckpt")
    fresh = 2 * (12 // after) * after
    seen = fit(path, prompts_per_step=before, save_after=steps)[: steps * before]
    seen += fit(path, prompts_per_step=after, checkpoint=path)
    first = [clip for epoch, clip in seen if epoch == 0]
    assert len(set(first)) == len(first) > 12 - after
    assert len(seen) - len(first) == fresh // 2


def test_sources_of_a_mixture_are_counted_one_by_one():
    """3 of 8 and 2 of 5 prompts are used; of steps of 2, two and one are left of four and two."""
    state = {"epoch": 0, "used": 5, "size": 13, "seed": 0, "parts": {"a": 3, "b": 2}, "shares": {"a": 8, "b": 5}}
    counts = {"ready": 5, "completed": 4}
    loop = {"state_dict": {"combined_loader": [state]}, "epoch_loop.batch_progress": {"current": counts}}
    match_place({"loops": {"fit_loop": loop}}, SimpleNamespace(datamodule=Data(1), world_size=2))
    assert counts == {"ready": 3, "completed": 2}


def test_a_checkpoint_without_a_place_is_left_alone():
    trainer = SimpleNamespace(datamodule=Data(2), world_size=1)
    for checkpoint in ({}, {"loops": {"fit_loop": {"state_dict": {"combined_loader": [{}]}}}}):
        before = str(checkpoint)
        match_place(checkpoint, trainer)
        assert str(checkpoint) == before
