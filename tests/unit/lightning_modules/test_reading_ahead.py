"""What needs no weights is done where clips are read, in another process if there is one."""

from types import SimpleNamespace

import lightning as L
import numpy as np
import pytest
import torch
from doubles import BoxPropagator, FixedGrounder
from PIL import Image

from datamodules.kept_frames import KeptFrames
from datamodules.media import FolderFrames
from datamodules.mixture import MixtureDataModule
from datamodules.modules import RefAVSDataModule
from datamodules.order import ClipLoader, EvalOrder
from datamodules.records import Clip, FrameBudget
from datamodules.serving import ClipSet
from datamodules.video import SingleClip
from grpo.settings import GRPOSettings
from lightning_modules.grpo_module import GRPOModule
from lightning_modules.reading_ahead import ReadAhead, let_loaders_prepare
from models.processing import PromptBuilder
from rewards.consistency import ConsistencyReward
from rewards.format import FormatReward


@pytest.fixture
def clip(tmp_path) -> Clip:
    files = [tmp_path / f"{index}.png" for index in range(4)]
    for number, file in enumerate(files):
        Image.fromarray(np.full((56, 56, 3), 40 * number, dtype=np.uint8)).save(file)
    frames = FolderFrames(files, fps=1.0, clip_id="clip")
    return Clip("clip", "refavs", "train", "seen", "the circle", frames, FrameBudget(4, 56 * 56))


@pytest.mark.parametrize("workers", [0, 1])
def test_model_inputs_are_made_where_the_clip_is_read(make_reasoner, clip, workers, monkeypatch):
    """With a worker, this process never runs the processor, and the inputs are those that it would make."""
    reasoner, made = make_reasoner(), []
    expected = reasoner.prepare(clip)
    make = PromptBuilder.from_clip
    monkeypatch.setattr(PromptBuilder, "from_clip", lambda self, clip: (made.append(clip.id), make(self, clip))[1])
    clips = ClipSet(SingleClip(clip), prefetch=ReadAhead(reasoner.builder, has_masks=True))
    ((served,),) = ClipLoader(clips, EvalOrder(1, batch_size=1), num_workers=workers)
    prompt = reasoner.prepare(served)
    assert made == ([] if workers else ["clip"])
    assert torch.equal(prompt.input_ids, expected.input_ids)
    assert prompt.features.keys() == expected.features.keys()
    assert all(torch.equal(prompt.features[name], expected.features[name]) for name in expected.features)
    assert isinstance(served.frames, KeptFrames)


def test_frames_are_not_decoded_for_nobody(make_reasoner, clip):
    ready = ReadAhead(make_reasoner().builder, has_masks=False)(clip)
    assert ready is clip
    assert ready.frames is clip.frames


@pytest.mark.parametrize(
    ("reward", "stage", "has_masks"),
    [(FormatReward(), "fit", False), (ConsistencyReward(), "fit", True), (FormatReward(), "test", True)],
)
def test_a_module_asks_its_data_module_as_far_as_masks_are_needed(make_reasoner, reward, stage, has_masks):
    module = GRPOModule(
        make_reasoner(),
        grounder=FixedGrounder(),
        propagator=BoxPropagator(),
        rewards={"one": reward},
        grpo=GRPOSettings(),
    )
    data = RefAVSDataModule()
    module._trainer = SimpleNamespace(datamodule=data, state=SimpleNamespace(fn=stage))
    module.configure_model()
    assert data.prefetch == ReadAhead(module.reasoner.builder, has_masks)


def test_data_of_another_kind_is_left_alone(make_reasoner):
    module = GRPOModule(make_reasoner(), grounder=FixedGrounder(), propagator=BoxPropagator())
    module.trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    module.configure_model()
    assert module.trainer.datamodule is None


def test_every_source_of_a_mixture_is_read_ahead(make_reasoner):
    data = MixtureDataModule()
    let_loaders_prepare(data, make_reasoner().builder, has_masks=True)
    assert len(data.parts) == 4
    assert all(isinstance(part.prefetch, ReadAhead) for part in data.parts.values())
