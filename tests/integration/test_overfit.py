"""Learning, end to end: on two prompts that come again and again, the reward has to rise."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from random_weights import SIZES
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def test_the_reward_rises_on_prompts_that_come_again(
    command: Callable[[Sequence[str]], int], benchmark_cache: Path, tmp_path: Path
) -> None:
    given = ["--config=configs/refavs.yaml", "--config=configs/debug/overfit.yaml"]
    places = [f"--trainer.logger.save_dir={tmp_path}", f"--data.avshapes_cache={benchmark_cache}"]
    smaller = [f"--data.avshapes_sizes={SIZES}", "--data.train_size=2", "--data.prompts_per_step=2"]
    shorter = ["--trainer.max_steps=30", "--trainer.num_sanity_val_steps=0", "--trainer.limit_val_batches=0"]
    assert command(["fit", *given, *places, *smaller, *shorter]) == 0

    events = EventAccumulator(str(tmp_path / "debug_overfit" / "version_0"))
    events.Reload()
    rewards = np.array([event.value for event in events.Scalars("reward")])
    assert len(rewards) == 15
    first, last = rewards[:5], rewards[-5:]
    # The same prompts at every step: what differs is the policy and the noise of 16 completions a step.
    noise = np.sqrt(first.var(ddof=1) / len(first) + last.var(ddof=1) / len(last))
    assert last.mean() - first.mean() > max(0.2, 3 * noise)
