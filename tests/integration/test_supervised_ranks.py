"""Supervised training on two processes, with weights whole or spread, is that of one on the same global batch."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

UNIT = Path(__file__).parents[1] / "unit"
sys.path[:0] = [str(UNIT), str(UNIT / "lightning_modules")]

from doubles import LayerCalls, trainer_of  # noqa: E402
from rank_runs import STRATEGIES, Batches, prepare  # noqa: E402
from ranks import run_ranks  # noqa: E402
from small_models import noisy_clip  # noqa: E402

from datamodules.lessons import Lesson, Turn  # noqa: E402
from lightning_modules.sft_module import SFTModule  # noqa: E402
from lightning_modules.trainable_state import whole  # noqa: E402
from models.reasoner import LoRA, Reasoner  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")


def lessons() -> list[Lesson]:
    """One clip after the other for either process: answers of one word and of many, with and without sound."""
    short = (Turn("is it red", "yes", "color"),)
    long = (Turn("what is it", "find the red circle, the blue square, and the red circle once more", "shape"), *short)
    return [
        Lesson(noisy_clip("a", has_audio=False), short, ()),
        Lesson(noisy_clip("b"), long, ()),
        Lesson(noisy_clip("c", seconds=6), short, ()),
        Lesson(noisy_clip("d", has_audio=False, seconds=6), long, ()),
    ]


def run(
    weights: Path, *, rank: int = 0, world_size: int = 1, is_checkpointing: bool = False, **own: Any
) -> dict[str, Any]:
    """Three steps on the same four lessons."""
    prepare()
    reasoner = Reasoner(
        str(weights / "reasoner"), template="short", lora=LoRA(r=4, alpha=8), gradient_checkpointing=is_checkpointing
    )
    module, calls = SFTModule(reasoner, learning_rate=1e-3), LayerCalls()
    trainer = trainer_of(
        max_steps=3,
        max_epochs=3,
        devices=world_size,
        callbacks=[calls],
        gradient_clip_val=1.0,
        use_distributed_sampler=False,
        **own,
    )
    trainer.fit(module, Batches([lessons()[rank::world_size]]))
    return {
        "weights": {n: whole(p).detach().clone() for n, p in module.named_parameters() if p.requires_grad},
        "loss": float(trainer.callback_metrics["loss"]),
        "layers per pass": calls.per_pass,
    }


def two_ranks(rank: int, weights: Path, folder: Path) -> None:
    for name, strategy in STRATEGIES.items():
        torch.save(run(weights, strategy=strategy(), rank=rank, world_size=2), folder / f"{name}-{rank}.pt")
    again = run(weights, strategy=STRATEGIES["sharded"](), rank=rank, world_size=2, is_checkpointing=True)
    torch.save(again, folder / f"again-{rank}.pt")


def test_the_number_of_processes_does_not_change_what_is_learned(weights: Path, tmp_path: Path) -> None:
    """Rank 0 has the answers of one word; a mean of the processes' means would let each of their tokens weigh more."""
    expected = run(weights)
    run_ranks(two_ranks, weights, tmp_path)
    for name in (*STRATEGIES, "again"):
        for rank in (0, 1):
            found = torch.load(tmp_path / f"{name}-{rank}.pt", weights_only=True)
            assert found["loss"] == pytest.approx(expected["loss"], rel=1e-5), name
            assert found["layers per pass"] == (4 if name == "again" else 2), name
            for weight, value in expected["weights"].items():
                torch.testing.assert_close(found["weights"][weight], value, rtol=0, atol=1e-5, msg=f"{name} {weight}")
    assert any(value.any() for weight, value in expected["weights"].items() if "lora_B" in weight)
