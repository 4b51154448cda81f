import logging
import math

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from datamodules.avshapes.scene import sample_scene
from datamodules.avshapes_boxes import AVShapesBoxesDataModule
from lightning_modules.grounder_gates import measure_gates, scene_clip
from lightning_modules.grounder_module import GrounderModule
from models.detector import DetectorGrounder
from models.grounder import Candidates, Grounder, GroundingRequest
from models.tiny.detector import DetectorSizes

SMALL = DetectorSizes(
    side=32, patch=8, vision_hidden=24, vision_layers=1, vision_feed_forward=32, text_hidden=16, text_layers=1
)


class FixedGrounder(Grounder):
    """Gives the same share of the picture as a box for everything, or nothing at all."""

    def __init__(self, share: float | None) -> None:
        super().__init__()
        self.share = share

    def load(self, reasoner=None) -> None:
        """Nothing to read."""

    def find(self, images, descriptions):
        side = images.shape[1]
        boxes = torch.zeros(0, 4) if self.share is None else torch.tensor([[0, 0, side, side * self.share]])
        return [[Candidates(boxes, torch.ones(len(boxes))) for _ in row] for row in descriptions]


class Pause(L.Callback):
    """Ends a run after some of its steps."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer, *_) -> None:
        trainer.should_stop = trainer.global_step >= self.step


def make_trainer(steps: int, **settings) -> L.Trainer:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return L.Trainer(
        max_steps=steps, accelerator="cpu", enable_model_summary=False, num_sanity_val_steps=0, **quiet | settings
    )


def fit(module: GrounderModule, data: AVShapesBoxesDataModule, steps: int) -> L.Trainer:
    trainer = make_trainer(steps)
    trainer.fit(module, data)
    return trainer


def small_data(steps: int, **settings) -> AVShapesBoxesDataModule:
    return AVShapesBoxesDataModule(steps=steps, scenes=2, queries=8, side=32, val_batches=1, **settings)


def test_the_recipe_learns_saves_what_the_grounder_loads_and_logs_the_gates(tmp_path, caplog):
    module = GrounderModule(SMALL, export_dir=str(tmp_path / "grounder"), gate_scenes=3, warmup_steps=2)
    with caplog.at_level(logging.INFO):
        trainer = fit(module, small_data(12), 12)
    assert "val/box_iou" in trainer.callback_metrics
    assert "good_iou" in caplog.text
    grounder = DetectorGrounder(str(tmp_path / "grounder"))
    grounder.load()
    saved = dict(grounder.model.named_parameters())
    for name, weights in module.detector.named_parameters():
        torch.testing.assert_close(saved[name], weights.detach(), rtol=0, atol=0)


def test_the_loss_falls_on_a_batch_that_is_seen_again_and_again():
    data = small_data(1)
    batch = next(iter(data.train_dataloader()))
    module = GrounderModule(SMALL, export_dir=None)
    module.configure_model()
    module.log_dict = lambda *_, **__: None
    optimizer = torch.optim.AdamW(module.parameters(), lr=3e-3)
    losses = []
    for _ in range(30):
        loss = module.training_step(batch, 0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


def test_a_continued_run_ends_where_an_uninterrupted_one_does(tmp_path):
    """Four steps in one go, and two steps, a checkpoint, and two more: the same weights."""
    ends = []
    for stops in ((4,), (2, 4)):
        checkpoint = None
        for stop in stops:
            module = GrounderModule(SMALL, export_dir=None, warmup_steps=2)
            keep = ModelCheckpoint(tmp_path, filename=f"{len(stops)}_{stop}", every_n_train_steps=1)
            pause = Pause(stop)
            trainer = make_trainer(4, callbacks=[keep, pause], enable_checkpointing=True)
            trainer.fit(module, small_data(4), ckpt_path=checkpoint)
            checkpoint = str(tmp_path / f"{len(stops)}_{stop}.ckpt")
        assert trainer.global_step == 4
        ends.append(module.detector.state_dict())
    for name, weights in ends[0].items():
        assert torch.equal(weights, ends[1][name]), name


def test_without_a_folder_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fit(GrounderModule(SMALL, export_dir=None), small_data(1), 1)
    assert list(tmp_path.iterdir()) == []


def test_building_twice_keeps_the_model():
    module = GrounderModule(SMALL)
    module.configure_model()
    detector = module.detector
    module.configure_model()
    assert module.detector is detector


def test_gates_of_a_grounder_that_finds_nothing():
    gates = measure_gates(FixedGrounder(None), scenes=6)
    assert (gates.good_iou, gates.poor_iou, gates.worded_iou) == (0, 0, 0)
    assert (gates.missed, gates.vague_recall, gates.absent_false) == (1, 0, 0)
    assert math.isnan(gates.vague_precision)


def test_gates_of_a_grounder_that_always_gives_the_whole_picture():
    """Every thing covers between 1 % and 25 % of the picture, so that is the IoU; nothing is ever absent."""
    gates = measure_gates(FixedGrounder(1.0), scenes=6)
    assert 0.01 < gates.good_iou < 0.25
    assert (gates.missed, gates.absent_false, gates.absent_worst) == (0, 1, 1)
    assert gates.vague_recall == gates.vague_precision == 0
    assert "good_iou" in gates.table()


def test_gate_scenes_do_not_depend_on_how_many_there_are():
    """The mean over two scenes is made of each scene's own numbers, so a third scene changes nothing before it."""
    seen = []

    class Listening(FixedGrounder):
        def ground(self, clip, requests):
            seen.append((clip.id, tuple(requests)))
            return super().ground(clip, requests)

    measure_gates(Listening(None), scenes=2)
    first, seen[:] = list(seen), []
    measure_gates(Listening(None), scenes=3)
    assert first[:2] == seen[:2]


def test_a_scene_clip_is_rendered_when_read():
    clip = scene_clip(sample_scene((1, 2, 3)))
    assert clip.frames.count == 10
    assert clip.close_up([3, 5]).shape == (2, 224, 224, 3)
    (found,) = FixedGrounder(0.5).ground(clip, [GroundingRequest(3, "x")])
    assert found.boxes.tolist() == [[0, 0, 224, pytest.approx(112)]]
