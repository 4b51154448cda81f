"""Where in an epoch a run goes on when its steps have become larger or smaller.

The training loader counts prompts, Lightning counts batches. On another number of processes, or with another number of
prompts per step, the same place is another batch, and an epoch would end too early or too late. A place within one of
the new steps counts as the end of that step: what is left of the epoch is cut into steps from there on.
"""

from __future__ import annotations

from typing import Any

import lightning as L

from datamodules.order import OrderState


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
    shift = _steps_done(states[0], prompts * trainer.world_size) - counts["ready"]
    for name in counts:
        counts[name] += shift


def _steps_done(state: OrderState, step_size: int) -> int:
    """Steps of an epoch that are behind a place: all but those that are still to come."""
    shares: dict[str, int] = state.get("shares", {"": state["size"]})  # type: ignore[assignment]
    parts: dict[str, int] = state.get("parts", {"": state["used"]})  # type: ignore[assignment]
    return sum(taken // step_size - (taken - parts[name]) // step_size for name, taken in shares.items())
