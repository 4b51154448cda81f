"""Where in an epoch a run goes on when its steps have become larger or smaller.

The training loader counts prompts, Lightning counts batches. On another number of processes, or with another number of
prompts per step, the same place is another batch, and an epoch would end too early or too late.
"""

from __future__ import annotations

from typing import Any

import lightning as L


def match_place(checkpoint: dict[str, Any], trainer: L.Trainer) -> None:
    """Let Lightning's batch count within the epoch agree with the loader's count of prompts.

    Args:
        checkpoint: Changed in place; left as it is where it holds no place of a training loader.
        trainer: Its number of processes, and its data module's `prompts_per_step`.
    """
    prompts = getattr(getattr(trainer, "datamodule", None), "prompts_per_step", None)
    loop = checkpoint.get("loops", {}).get("fit_loop", {})
    states = loop.get("state_dict", {}).get("combined_loader", [])
    if prompts is None or not states or "used" not in (states[0] or {}):
        return
    counts = loop["epoch_loop.batch_progress"]["current"]
    # Which of the counts have been raised tells Lightning at which moment of a batch the checkpoint was made.
    shift = states[0]["used"] // (prompts * trainer.world_size) - counts["ready"]
    for name in counts:
        counts[name] += shift
