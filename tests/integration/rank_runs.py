"""Short runs on real classes with random weights, the same on any number of processes and with any strategy."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning as L
import torch
from doubles import PLAN, LayerCalls, LowTokens, NeedsBoxes, Watch, module_of, trainer_of
from lightning.pytorch.strategies import DDPStrategy, Strategy
from small_models import noisy_clip
from torch.distributed.tensor import DTensor

from datamodules.records import Clip, Rollout
from grpo.rollout import Completion
from grpo.sampling import Sampling
from lightning_modules.checkpoint import AtomicCheckpointIO
from lightning_modules.grpo_module import GRPOModule
from lightning_modules.sharded_strategy import ShardedStrategy
from lightning_modules.trainable_state import whole
from models.box_grounder import ReasonerGrounder
from models.grounder import Candidates
from models.plan import parse_plan
from models.reasoner import LoRA, Reasoner

WAIT = timedelta(seconds=180)
STRATEGIES: dict[str, Any] = {
    "ddp": lambda: DDPStrategy(process_group_backend="gloo", timeout=WAIT),
    "sharded": lambda: ShardedStrategy(timeout=WAIT),
    "replicated": lambda: ShardedStrategy(1, consolidate=True, timeout=WAIT),
    "layer": lambda: ShardedStrategy(gather="layer", timeout=WAIT),
}


class HastyReasoner(Reasoner):
    """Ends a turn with every fifth token, so that completions have many lengths."""

    @property
    def end_of_turn_ids(self) -> tuple[int, ...]:
        return tuple(range(0, 270, 5))


class HalfReadable(GRPOModule):
    """Reads a plan in every completion about a clip whose name says so, and in none about another."""

    def _read(self, clip: Clip, index: int, completion: Completion) -> Rollout:
        rollout = super()._read(clip, index, completion)
        if not clip.id.startswith("readable"):
            return rollout
        # What is asked for depends on the completion, so that boxes tell completions of one prompt apart.
        text = PLAN.replace("red circle", f"red circle {int(completion.ids.sum())}")
        return replace(rollout, text=text, plan=parse_plan(text, fps=1.0, frames=clip.frames.count, max_keyframes=4))


class LetterBoxes(ReasonerGrounder):
    """Asks the base model; whatever it answers, one to three boxes, which depend on every letter."""

    def _read(self, text: str, image: tuple[int, int]) -> Candidates:
        count = 1 + sum(map(ord, text)) % 3
        return Candidates(torch.tensor([[8.0, 8.0, 24.0, 24.0]]).repeat(count, 1), torch.ones(count))


class Batches:
    """Batches as they are, empty ones too."""

    def __init__(self, batches: Sequence[list[Clip]]) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[Clip]]:
        return iter(self.batches)


@dataclass
class SaveFirst(L.Callback):
    """Saves after the first rollout."""

    path: Path
    is_saved: bool = field(default=False)

    def on_train_batch_end(self, trainer: L.Trainer, *_: object) -> None:
        if not self.is_saved:
            self.is_saved = True
            trainer.save_checkpoint(self.path)


def clips() -> list[Clip]:
    """Two clips with readable answers and two without; with and without sound, of two lengths."""
    return [
        noisy_clip("readable a", has_audio=False),
        noisy_clip("noise b"),
        noisy_clip("readable c", seconds=6),
        noisy_clip("noise d", has_audio=False, seconds=6),
    ]


def prepare() -> None:
    """One thread, no warnings, the same seed."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.getLogger("lightning").setLevel(logging.ERROR)
    L.seed_everything(0, verbose=False)


def module(weights: Path, *, is_half: bool = False, **settings: Any) -> GRPOModule:
    """GRPO with two updates per rollout, on weights that are read from disk."""
    sparing: dict[str, Any] = {"dtype": "bfloat16", "gradient_checkpointing": True} if is_half else {}
    prepare()
    return module_of(
        HastyReasoner(str(weights / "reasoner"), template="short", lora=LoRA(r=4, alpha=8), **sparing),
        rewards={"low": LowTokens(), "boxes": NeedsBoxes()},
        kind=HalfReadable,
        updates_per_rollout=2,
        micro_batch_tokens=200,
        sampling=Sampling(max_new_tokens=12),
        optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=1e-3),
        **settings,
    )


def run(
    weights: Path,
    *,
    strategy: Strategy | None = None,
    rank: int = 0,
    world_size: int = 1,
    save: Path | None = None,
    resume: Path | None = None,
    callbacks: Sequence[L.Callback] = (),
    steps: int = 4,
    is_half: bool = False,
    asks_base: bool = False,
    **settings: Any,
) -> dict[str, Any]:
    """Two rollouts with two updates each, on the same global batch of four clips whatever the number of processes.

    With `is_half` the base is bfloat16 and activations are computed again, with `asks_base` System 2's boxes come from
    the base model, both as in the large configurations. Other settings are the trainer's.

    Returns:
        Trained weights at the end, what every step logged, what the validations before and after it found, how many
        layers ran per pass through the decoder, and how many rows of each of the reasoner's weights this process keeps.
    """
    grounder = {"grounder": LetterBoxes(max_new_tokens=6, nms_iou=1.0)} if asks_base else {}
    trained, watch, calls = module(weights, is_half=is_half, **grounder), Watch(), LayerCalls()
    own = {} if strategy is None else {"strategy": strategy, "devices": world_size}
    own |= {"precision": "bf16-mixed"} if is_half else {}
    defaults = {"limit_val_batches": None, "check_val_every_n_epoch": 1, "use_distributed_sampler": False}
    trainer = trainer_of(
        max_steps=steps,
        callbacks=[watch, calls, *callbacks, *([SaveFirst(save)] if save else [])],
        plugins=[AtomicCheckpointIO()],
        **defaults | own | settings,
    )
    mine = clips()[rank::world_size]
    # Three held-out clips: with two processes or more one of them has nothing to do in the end.
    held_out = [noisy_clip("readable e"), noisy_clip("noise f"), noisy_clip("noise g", has_audio=False)]
    turns = -(-len(held_out) // world_size)
    blocks = [held_out[turn * world_size + rank :][:1] for turn in range(turns)]
    trainer.fit(trained, Batches([mine]), Batches(blocks), ckpt_path=resume)
    return {
        "weights": {n: whole(p).detach().clone() for n, p in trained.named_parameters() if p.requires_grad},
        "metrics": watch.metrics,
        "lengths": {g.rollouts[0].clip.id: [len(r.completion_ids) for r in g.rollouts] for g in watch.groups[0]},
        "validation": trained.last_validation.metrics if trained.last_validation else {},
        "layers per pass": calls.per_pass,
        "kept": [
            {"name": name, "rows": len(p), "kept": len(p.to_local() if isinstance(p, DTensor) else p)}
            for name, p in trained.reasoner.named_parameters()
        ],
    }
