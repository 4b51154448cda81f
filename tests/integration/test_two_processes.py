"""Two processes with one prompt each make the same update as one process with both."""

import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

UNIT = Path(__file__).parents[1] / "unit"
sys.path[:0] = [str(UNIT), str(UNIT / "lightning_modules")]

from doubles import LowTokens, Watch, adapter, loader, module_of, trainer_of  # noqa: E402
from lightning.pytorch.strategies import DDPStrategy  # noqa: E402
from ranks import run_ranks  # noqa: E402
from small_models import noisy_clip, random_reasoner  # noqa: E402

from datamodules.records import Rollout  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")


class LowOnFirst(LowTokens):
    """Tells the completions of clip a apart and no others, so that the other process has nothing to train."""

    def __call__(self, rollouts: Sequence[Rollout]) -> list[float | None]:
        return super().__call__(rollouts) if rollouts[0].clip.id == "a" else [1.0] * len(rollouts)


SETTINGS = {
    "grpo": {},
    "dapo": {"loss_type": "dapo", "scale_rewards": "batch", "beta": 0.0, "skip_zero_advantage": True},
    "skip": {"skip_zero_advantage": True, "beta": 0.5, "rewards": {"low": LowOnFirst()}},
    "gspo": {"importance_level": "sequence", "micro_batch_tokens": 200, "updates_per_rollout": 2},
}

PROMPTS = {"dapo": "aa"}
"""Prompts of the two processes where they are not "ab"; a clip that occurs twice is sampled anew the second time."""


def train(clips: list[object], settings: dict[str, object], **trainer_settings: object) -> dict[str, object]:
    """Two optimizer steps; weights and what was logged last."""
    torch.set_num_threads(1)
    module, watch = module_of(random_reasoner(), **{"rewards": {"low": LowTokens()}} | settings), Watch()
    trainer = trainer_of(max_steps=2, callbacks=[watch], **trainer_settings)
    trainer.fit(module, loader(clips))
    return {"weights": adapter(module), "metrics": watch.metrics[-1]}


def run_rank(rank: int, folder: Path) -> None:
    for name, settings in SETTINGS.items():
        result = train(
            [noisy_clip(PROMPTS.get(name, "ab")[rank])],
            settings,
            devices=2,
            strategy=DDPStrategy(process_group_backend="gloo"),
            use_distributed_sampler=False,
        )
        torch.save(result, folder / f"{name}-{rank}.pt")


def test_the_number_of_processes_does_not_change_the_update(tmp_path):
    run_ranks(run_rank, tmp_path)
    for name, settings in SETTINGS.items():
        expected = train([noisy_clip(prompt) for prompt in PROMPTS.get(name, "ab")], settings)
        for rank in (0, 1):
            found = torch.load(tmp_path / f"{name}-{rank}.pt", weights_only=True)
            for weight, value in expected["weights"].items():
                torch.testing.assert_close(found["weights"][weight], value, rtol=0, atol=1e-6, msg=f"{name} {weight}")
            for key, value in expected["metrics"].items():
                if not key.startswith("time/"):
                    assert found["metrics"][key] == pytest.approx(value, rel=1e-4, abs=1e-5), (name, key)
