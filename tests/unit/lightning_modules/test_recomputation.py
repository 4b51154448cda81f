"""With gradient checkpointing the layers of a model that was read from disk run twice per update, else once."""

from collections.abc import Iterator

import lightning as L
import pytest
import torch
from doubles import LayerCalls, loader, module_of, trainer_of
from small_models import noisy_clip

from datamodules.lessons import Lesson, lesson_from_labels
from lightning_modules.sft_module import SFTModule
from lightning_modules.two_system_module import TwoSystemModule
from models.reasoner import LoRA, Reasoner
from models.tiny.reasoner import TinySizes, build_processor, build_thinker, build_tokenizer

pytestmark = pytest.mark.filterwarnings("ignore")
LAYERS = 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model on disk: one that is built in memory is in training mode from the start."""
    path = tmp_path_factory.mktemp("reasoner")
    tokenizer = build_tokenizer(["find the red circle"], vocabulary=270)
    sizes = TinySizes(hidden=64, layers=LAYERS, heads=2, key_value_heads=1, feed_forward=96, vision_layers=1)
    build_thinker(tokenizer, sizes, seed=0).save_pretrained(path)
    build_processor(tokenizer, sizes).save_pretrained(path)
    return str(path)


class Lessons:
    """One batch of them."""

    def __init__(self, *lessons: Lesson) -> None:
        self.lessons = list(lessons)

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[list[Lesson]]:
        return iter([self.lessons])


def trained(kind: str, reasoner: Reasoner) -> tuple[TwoSystemModule, LayerCalls]:
    """One step; the module, and how often its layers were called."""
    clips = [noisy_clip("a", has_audio=False), noisy_clip("b", seconds=6)]
    calls = LayerCalls()
    trainer: L.Trainer = trainer_of(max_steps=1, callbacks=[calls])
    torch.manual_seed(0)
    if kind == "sft":
        module: TwoSystemModule = SFTModule(reasoner)
        trainer.fit(module, Lessons(*(lesson_from_labels(clip, keyframes=2) for clip in clips)))
    else:
        module = module_of(reasoner, engine=kind, beta=0.1)
        trainer.fit(module, loader(clips))
    return module, calls


@pytest.mark.parametrize("kind", ["shared", "plain", "sft"])
def test_layers_run_again_where_that_is_asked_for(folder: str, kind: str) -> None:
    """The update is the same either way."""
    weights = []
    for is_checkpointing, times in ((False, 1), (True, 2)):
        reasoner = Reasoner(folder, template="short", lora=LoRA(r=4, alpha=8), gradient_checkpointing=is_checkpointing)
        module, calls = trained(kind, reasoner)
        assert calls.per_pass == LAYERS * times
        weights.append([p.detach().clone() for p in module.parameters() if p.requires_grad])
    for without, with_it in zip(*weights, strict=True):
        torch.testing.assert_close(with_it, without, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["shared", "sft"])
def test_dropout_acts_on_a_model_that_was_read(folder: str, kind: str) -> None:
    """The adapter's second matrices, which a first step moves, see less of their input."""
    ends = []
    for dropout in (0.0, 0.5):
        module, _ = trained(kind, Reasoner(folder, template="short", lora=LoRA(r=4, alpha=8, dropout=dropout)))
        ends.append(torch.cat([p.detach().flatten() for n, p in module.named_parameters() if "lora_B" in n]))
    assert not torch.allclose(ends[0], ends[1], rtol=1e-2, atol=0)


def test_towers_are_frozen_and_stay_in_evaluation_mode(folder: str) -> None:
    reasoner = Reasoner(folder, template="short")
    reasoner.load()
    modes = {
        name: part.training for name, part in reasoner.thinker.named_modules() if "tower" in name or "visual" in name
    }
    assert modes
    assert not any(modes.values())
    assert all(part.training for part in reasoner.language_model.modules())
