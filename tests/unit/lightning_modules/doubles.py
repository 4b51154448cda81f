"""System 2 as small as it can be, rewards that are easy to learn, and short fits."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import lightning as L
import numpy as np
import torch
from torch.utils.data import DataLoader

from datamodules.masks import MaskTrack
from datamodules.records import Clip, Grounding, Rollout
from grpo.sampling import Sampling
from grpo.settings import GRPOSettings
from lightning_modules.grpo_module import GRPOModule
from lightning_modules.optim import Schedule
from lightning_modules.two_system_module import TwoSystemModule
from models.grounder import Candidates, Grounder
from models.propagator import Propagator
from models.reasoner import Reasoner
from rewards.base import Reward

PLAN = (
    "<think>a circle</think><answer>"
    '{"start_time": "00:01.00", "end_time": "00:01.50", "description": "the red circle"}</answer>'
)


class FixedGrounder(Grounder):
    """Finds the same box on every frame, and counts how often it is asked."""

    calls = 0

    def load(self, reasoner: object = None) -> None:
        pass

    def find(self, images: np.ndarray, descriptions: Sequence[Sequence[str]]) -> list[list[Candidates]]:
        self.calls += 1
        box = Candidates(torch.tensor([[8.0, 8.0, 24.0, 24.0]]), torch.ones(1))
        return [[box for _ in row] for row in descriptions]


class BoxPropagator(Propagator):
    """Fills the first box of a grounding on all frames, and counts how often it is asked."""

    calls = 0

    def load(self) -> None:
        pass

    def propagate(self, clip: Clip, groundings: Sequence[Grounding]) -> list[MaskTrack]:
        self.calls += 1
        return [self._fill(clip, grounding) for grounding in groundings]

    def _fill(self, clip: Clip, grounding: Grounding) -> MaskTrack:
        boxes = [box for keyframe in grounding.keyframes for box in keyframe.boxes]
        masks = np.zeros((clip.frames.count, min(1, len(boxes)), *clip.frames.size), dtype=bool)
        for x1, y1, x2, y2 in boxes[:1]:
            masks[:, :, int(y1) : int(y2), int(x1) : int(x2)] = True
        return MaskTrack.from_dense(masks)


class LowTokens(Reward):
    """Share of the completion's tokens with a small id: something that any policy can learn."""

    def __call__(self, rollouts: Sequence[Rollout]) -> list[float | None]:
        return [float((rollout.completion_ids < 64).float().mean()) for rollout in rollouts]


class Constant(Reward):
    """The same for everybody, so that no group has spread."""

    def __call__(self, rollouts: Sequence[Rollout]) -> list[float | None]:
        return [1.0] * len(rollouts)


class NeedsMasks(Reward):
    """Share of frames with a mask."""

    needs = frozenset({"boxes", "masks"})

    def __call__(self, rollouts: Sequence[Rollout]) -> list[float | None]:
        return [float(rollout.masks.areas.any()) for rollout in rollouts]


class NeedsBoxes(Reward):
    """Boxes found."""

    needs = frozenset({"boxes"})

    def __call__(self, rollouts: Sequence[Rollout]) -> list[float | None]:
        return [float(sum(len(keyframe.boxes) for keyframe in r.grounding.keyframes)) for r in rollouts]


@dataclass
class Watch(L.Callback):
    """Keeps what every training step logged, and its groups."""

    metrics: list[dict[str, float]] = field(default_factory=list)
    groups: list[tuple[object, ...]] = field(default_factory=list)

    def on_train_batch_end(self, trainer: L.Trainer, module: GRPOModule, *_: object) -> None:
        self.metrics.append({name: float(value) for name, value in trainer.callback_metrics.items()})
        self.groups.append(module.last_groups)


@dataclass
class LayerCalls(L.Callback):
    """Counts, as far as gradients are wanted, passes through the decoder and calls of all of its layers."""

    passes: int = 0
    calls: int = 0

    def on_fit_start(self, trainer: L.Trainer, module: TwoSystemModule) -> None:
        decoder = module.reasoner.language_model
        decoder.norm.register_forward_pre_hook(lambda *_: self._note("passes"))
        for layer in decoder.layers:
            layer.mlp.register_forward_pre_hook(lambda *_: self._note("calls"))

    def _note(self, what: str) -> None:
        setattr(self, what, getattr(self, what) + torch.is_grad_enabled())

    @property
    def per_pass(self) -> float:
        """Calls of layers in and after one pass: their number, twice that where activations are computed again."""
        return self.calls / self.passes


def sgd(parameters: object) -> torch.optim.Optimizer:
    """Updates in proportion to the gradient, so that rounding stays rounding."""
    return torch.optim.SGD(parameters, lr=1.0)


def module_of(
    reasoner: Reasoner,
    rewards: dict[str, Reward | None] | None = None,
    kind: type[GRPOModule] = GRPOModule,
    **settings: object,
) -> GRPOModule:
    """A module around a reasoner; unknown settings are those of `GRPOSettings`."""
    names = ("grounder", "sampling", "optimizer", "schedule", "evaluation")
    own = {name: settings.pop(name) for name in names if name in settings}
    defaults = {
        "grounder": FixedGrounder(),
        "sampling": Sampling(max_new_tokens=6),
        "optimizer": sgd,
        "schedule": Schedule(decay="constant"),
        "grpo": GRPOSettings(**{"group_size": 4} | settings),
    }
    rewards = {"low": LowTokens()} if rewards is None else rewards
    return kind(reasoner, propagator=BoxPropagator(), rewards=rewards, **defaults | own)


def loader(clips: Sequence[Clip], batch_size: int = 2) -> DataLoader[Clip]:
    return DataLoader(list(clips), batch_size=batch_size, collate_fn=list)


def trainer_of(**settings: object) -> L.Trainer:
    defaults = {
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "max_epochs": -1,
        "limit_val_batches": 0,
    }
    return L.Trainer(**defaults | settings)


def fit(module: GRPOModule, clips: Sequence[Clip], steps: int, *, batch_size: int = 2, **settings: object) -> Watch:
    """Train for some optimizer steps on clips in the given order."""
    watch = Watch()
    trainer = trainer_of(max_steps=steps, callbacks=[watch], **settings)
    trainer.fit(module, loader(clips, batch_size))
    return watch


def adapter(module: GRPOModule) -> dict[str, torch.Tensor]:
    """The trained weights, copied."""
    return {name: p.detach().clone() for name, p in module.named_parameters() if p.requires_grad}
