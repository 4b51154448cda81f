"""The page about training names every key that a training logs, and no other."""

import re
from pathlib import Path

from doubles import Watch, loader, module_of, trainer_of

from callbacks.throughput import Throughput

PAGE = Path(__file__).parents[3] / "docs" / "grpo.md"


def section() -> str:
    return PAGE.read_text().partition("## What is logged\n")[2].partition("\n## ")[0]


def documented() -> set[str]:
    """Keys in the first column of the table."""
    rows = [line for line in section().splitlines() if line.startswith("| `")]
    return {key for row in rows for key in re.findall(r"`([^`]+)`", row.split(" | ")[0])}


def documented_held_out() -> set[str]:
    """Keys in the paragraph about held-out passes; those per kind are named once, by their pattern."""
    return set(re.findall(r"`(val/[^`<…]+(?:<term>)?)`", section()))


def test_every_logged_key_is_documented_and_every_documented_key_is_logged(make_reasoner, make_clip):
    """A seen and an absent target."""
    module, watch = module_of(make_reasoner()), Watch()
    trainer = trainer_of(
        max_steps=2, callbacks=[Throughput(), watch], limit_val_batches=1.0, val_check_interval=2,
        check_val_every_n_epoch=None,
    )  # fmt: skip
    clips = [make_clip("a"), make_clip("n", is_null=True)]
    timed = loader(clips)
    timed.waited_s = 0.5
    trainer.fit(module, timed, loader(clips))
    logged = {key.replace("rewards/low", "rewards/<term>") for step in watch.metrics for key in step}
    assert logged == documented()
    assert module.last_validation is not None
    held_out = {key.replace("rewards/low", "rewards/<term>") for key in module.last_validation.metrics}
    assert {key for key in held_out if not key.startswith(("val/seen/", "val/null/"))} == documented_held_out()
