"""How fast a run is, and how much of a step is spent waiting for data.

The parts of a step time themselves (`time/…_s`); this adds what lies around them: the whole step, the wait for the next
batch, tokens per second and peak memory.
"""

from __future__ import annotations

import resource
import sys
import time

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback


class Throughput(Callback):
    """Logs one value per step and key: "time/step_s", "time/waiting_s", "throughput/…" and "memory/peak_gb"."""

    def __init__(self, *, enabled: bool = True) -> None:
        """Keep the setting.

        Args:
            enabled: False logs nothing.
        """
        self.enabled = enabled
        self._asked_s: float | None = None
        self._began_s = 0.0
        self._tokens = 0

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: object, batch_idx: int
    ) -> None:
        """A batch has arrived."""
        self._began_s = time.perf_counter()
        self._tokens = getattr(pl_module, "num_tokens", 0)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Log this step; the first one has not waited."""
        if self.enabled:
            step_s = time.perf_counter() - self._began_s
            waiting_s = 0.0 if self._asked_s is None else max(0.0, self._began_s - self._asked_s)
            values = {
                "time/step_s": step_s,
                "time/waiting_s": waiting_s,
                "throughput/waiting_share": waiting_s / (waiting_s + step_s),
                "memory/peak_gb": peak_memory_gb(pl_module.device),
            }
            pl_module.log_dict(values | self._token_rates(trainer, pl_module, step_s))
        self._asked_s = time.perf_counter()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """What came between two steps was no waiting."""
        self._asked_s = None

    def _token_rates(self, trainer: L.Trainer, pl_module: L.LightningModule, step_s: float) -> dict[str, float]:
        """Completion tokens per second of rollout, and prompt and completion tokens per second of the step.

        Tokens are those of all processes; a prompt counts once per rollout, however often it is computed.
        """
        trained = getattr(pl_module, "num_tokens", 0) - self._tokens
        values = trainer.callback_metrics
        if not trained or "completions/mean_length" not in values:
            return {}
        groups = getattr(pl_module, "last_groups", ())
        rollouts = trainer.world_size * sum(len(group.rollouts) for group in groups)
        completion = float(values["completions/mean_length"]) * rollouts
        rates = {
            "throughput/prompt_tokens_per_s": (trained - completion) / step_s,
            "throughput/completion_tokens_per_s": completion / step_s,
        }
        if rollout_s := float(values.get("time/rollout_s", 0.0)):
            rates["throughput/sampled_tokens_per_s"] = completion / rollout_s
        return rates


def peak_memory_gb(device: torch.device) -> float:
    """Most memory so far in gigabytes (1e9 bytes): allocated on a CUDA device, else resident in this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, kibibytes on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
