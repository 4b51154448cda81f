import copy
import math
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch.loggers import CSVLogger

from datamodules.avshapes_video import AVShapesVideoDataModule, TrackingCase, tracking_case
from datamodules.errors import ConfigError
from datamodules.masks import MaskTrack
from datamodules.records import Clip, Grounding
from lightning_modules.propagator_gates import CaseScore, PropagatorGates, gates, score_case
from lightning_modules.propagator_module import PropagatorModule
from models.propagator import Propagator, SAM2Propagator


class Painter(Propagator):
    """Answers with given masks."""

    def __init__(self, masks: np.ndarray) -> None:
        super().__init__()
        self.masks = masks

    def load(self) -> None:
        """Nothing to load."""

    def propagate(self, clip: Clip, groundings: list[Grounding]) -> list[MaskTrack]:
        return [MaskTrack.from_dense(self.masks)] * len(groundings)


def case_with(truth: np.ndarray, keyframe: int) -> TrackingCase:
    case = tracking_case((0, 1, 5), size=32, jitter=0.0)
    found = case.grounding.keyframes[0]
    moved = Grounding((type(found)(keyframe, found.boxes, found.scores),))
    clip = Clip("c", "video", "", "", "", case.clip.frames, mask_source=lambda: MaskTrack.from_dense(truth))
    return TrackingCase(clip, moved)


def test_a_case_is_scored_frame_by_frame():
    """Frames: right; half of the truth (IoU 1/2); missed; rightly nothing; falsely something."""
    truth, found = np.zeros((2, 5, 1, 4, 4), dtype=bool)
    truth[0, 0, :2] = found[0, 0, :2] = True
    truth[1, 0, :2], found[1, 0, :1] = True, True
    truth[2, 0, :2] = True
    found[4, 0, 3, 3] = True
    score = score_case(Painter(found), case_with(truth, keyframe=1))
    assert score == CaseScore(
        keyframe_iou=0.5, ious=(1.0, 0.5, 0.0), misses=(False, False, True), false_masks=(False, True)
    )


def test_a_case_without_truth_is_refused():
    clip = Clip("blind", "video", "", "", "", tracking_case((0, 1, 5), size=32, jitter=0.0).clip.frames)
    with pytest.raises(ValueError, match="blind: expected a clip with true masks"):
        score_case(Painter(np.zeros((5, 1, 4, 4), dtype=bool)), TrackingCase(clip, Grounding(())))


def test_gates_average_per_case_and_then_over_cases():
    """J is (mean(1, 0.5) + mean(0)) / 2 = 0.375; one of 3 frames missed; one of 2 absent frames painted."""
    scores = [
        CaseScore(0.9, (1.0, 0.5), (False, False), (True,)),
        CaseScore(0.5, (0.0,), (True,), (False,)),
    ]
    assert gates(scores) == PropagatorGates(keyframe_iou=0.7, j=0.375, missed=1 / 3, false_masks=0.5)


def test_clips_without_absence_say_nothing_about_false_masks():
    found = gates([CaseScore(0.9, (0.9,), (False,), ())])
    assert math.isnan(found.false_masks)
    assert found.are_passed


@pytest.mark.parametrize(
    ("numbers", "are_passed"),
    [((0.85, 0.7, 0.3), True), ((0.84, 0.9, 0.0), False), ((0.9, 0.69, 0.0), False), ((0.9, 0.9, 0.31), False)],
)
def test_every_gate_counts(numbers, are_passed):
    keyframe_iou, j, false_masks = numbers
    found = PropagatorGates(keyframe_iou=keyframe_iou, j=j, missed=0.0, false_masks=false_masks)
    assert found.are_passed is are_passed
    assert f"{j:.3f}" in found.table()


def test_the_learning_rate_follows_both_stages():
    """Up over 4 steps, 1 until half of the first stage, down to 0.5, then along a cosine to 2 % of that."""
    module = PropagatorModule(
        pair_steps=20, video_steps=10, learning_rate=1e-3, memory_learning_rate=5e-4, warmup_steps=4
    )
    assert [module.factor(step) for step in (0, 1, 3, 10)] == [0.25, 0.5, 1.0, 1.0]
    assert module.factor(15) == pytest.approx(0.75)
    assert module.factor(20) == pytest.approx(0.5)
    assert module.factor(25) == pytest.approx(0.5 * 0.51)
    assert module.factor(30) == module.factor(99) == pytest.approx(0.01)


def fit(folder: Path, *, steps: int = 2, **model) -> PropagatorModule:
    module = PropagatorModule(pair_steps=1, video_steps=1, gate_cases=1, export_dir=str(folder / "out"), **model)
    data = AVShapesVideoDataModule(
        pair_steps=1, video_steps=1, images=2, window_clips=1, window_frames=3, val_cases=1, case_size=64
    )
    trainer = L.Trainer(
        accelerator="cpu",
        max_steps=steps,
        max_epochs=1,
        val_check_interval=2,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        use_distributed_sampler=False,
        log_every_n_steps=1,
        logger=CSVLogger(folder, name="", version=""),
    )
    trainer.fit(module, data)
    return module


def test_the_recipe_trains_saves_and_measures(tmp_path):
    module = fit(tmp_path)
    logged = (tmp_path / "metrics.csv").read_text().splitlines()[0].split(",")
    for key in ("loss/pair_mask", "loss/video_mask", "loss/video_object", "val/keyframe_iou", "val/j"):
        assert key in logged
    card = yaml.safe_load((tmp_path / "out" / "card.yaml").read_text())
    assert card["steps"] == [1, 1]
    assert card["bytes"] == (tmp_path / "out" / "model.safetensors").stat().st_size < 10_000_000
    assert set(card["quality"]) == {"keyframe_iou", "j", "missed", "false_masks"}
    propagator = SAM2Propagator(str(tmp_path / "out"))
    propagator.load()
    saved = propagator.predictor.state_dict()
    fresh = PropagatorModule()
    fresh.configure_model()
    for name, tensor in module.predictor.state_dict().items():
        assert torch.equal(saved[name], tensor.half().float()), name
    assert not torch.equal(saved["no_mem_embed"], fresh.predictor.state_dict()["no_mem_embed"])


def test_validation_leaves_the_model_as_it_is():
    """The watched copy is frozen and evaluated; the model that is trained must notice nothing."""
    module = PropagatorModule()
    module.configure_model()
    before = copy.deepcopy(module.predictor.state_dict())
    module.on_validation_start()
    module.validation_step(tracking_case((0, 1, 5), size=64, jitter=0.0), 0)
    assert all(parameter.requires_grad for parameter in module.predictor.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in module.predictor.state_dict().items())


def test_nothing_is_written_without_a_folder(tmp_path):
    module = PropagatorModule(export_dir=None)
    module.on_fit_end()
    assert not list(tmp_path.iterdir())


def test_first_weights_depend_on_the_seed_alone():
    modules = [PropagatorModule(seed) for seed in (3, 3, 4)]
    for module in modules:
        torch.rand(7)
        module.configure_model()
    one, again, other = (module.predictor.no_mem_embed for module in modules)
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_stages_must_agree_with_the_data(tmp_path):
    module = PropagatorModule(pair_steps=2, video_steps=1, export_dir=None)
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    with pytest.raises(ConfigError, match=r"model.pair_steps is 2 and data.pair_steps is 1; set both"):
        trainer.fit(module, AVShapesVideoDataModule(pair_steps=1, video_steps=1))
