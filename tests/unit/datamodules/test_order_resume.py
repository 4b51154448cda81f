"""The loaders under Lightning's own loop: every place where a run can be cut and resumed."""

import warnings

import lightning as L
import pytest
import torch
from benchmark_trees import NumberedClips
from lightning.pytorch.callbacks import ModelCheckpoint

from datamodules.order import ClipLoader, EvalOrder, ResumableLoader, TrainOrder
from datamodules.serving import ClipSet


class Recorder(L.LightningModule):
    """Writes down what it is given; one optimizer step per batch."""

    automatic_optimization = False

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen = []
        self.evaluated = []

    def training_step(self, batch, batch_idx):
        optimizer = self.optimizers()
        self.manual_backward(self.weight.sum() * 0)
        optimizer.step()
        self.seen.append((self.current_epoch, batch_idx, [clip.id for clip in batch]))

    def validation_step(self, batch, batch_idx):
        self.evaluated.append([clip.id for clip in batch])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1.0)

    def transfer_batch_to_device(self, batch, device, dataloader_idx):
        return batch


def fit(folder, *, workers, checkpoint=None, validates=False, **options):
    """Two epochs of nine prompts, two per step; a checkpoint after every step and after every epoch."""
    module = Recorder()
    train = ResumableLoader(ClipSet(NumberedClips(9)), TrainOrder(9, batch_size=2, seed=3), num_workers=workers)
    evaluation = ClipLoader(ClipSet(NumberedClips(5)), EvalOrder(5, batch_size=2)) if validates else None
    keep_all = {"dirpath": folder, "save_top_k": -1}
    trainer = L.Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=2,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=[
            ModelCheckpoint(filename="{step}", every_n_train_steps=1, **keep_all),
            ModelCheckpoint(filename="end-{epoch}", every_n_epochs=1, save_on_train_epoch_end=True, **keep_all),
        ],
        **options,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(module, train, evaluation, ckpt_path=checkpoint)
    return module


@pytest.mark.parametrize(
    ("workers", "options"),
    [(0, {}), (1, {}), (0, {"limit_train_batches": 2}), (0, {"validates": True, "val_check_interval": 2})],
    ids=str,
)
def test_every_checkpoint_resumes_to_what_would_have_come(tmp_path, workers, options):
    """Steps in the middle of an epoch, on its last batch, at its end, and in epochs that are cut short."""
    whole = fit(tmp_path / "whole", workers=workers, **options).seen
    checkpoints = sorted((tmp_path / "whole").glob("*.ckpt"))

    assert len(checkpoints) == len(whole) + 2
    for checkpoint in checkpoints:
        done = torch.load(checkpoint, weights_only=True)["global_step"]
        resumed = fit(tmp_path / "again", workers=workers, checkpoint=checkpoint, **options).seen
        assert resumed == whole[done:], checkpoint.name


def test_lightning_hands_out_evaluation_batches_as_they_are(tmp_path):
    module = fit(tmp_path, workers=0, validates=True)

    assert module.evaluated == [["0v0", "1v0"], ["2v0", "3v0"], ["4v0"]] * 2
