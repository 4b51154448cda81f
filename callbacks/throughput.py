"""How fast a run is, and how much of a step is spent waiting for data.

The parts of a step time themselves (`time/…_s`), and the loader times how long its newest batch was waited for; this
adds the whole step, tokens per second and peak memory. What other callbacks do between two steps, such as writing a
checkpoint, is in neither.
"""

from __future__ import annotations

import resource
import sys
import time

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback


class Throughput(Callback):
    """Logs one value per step and key: "time/step_s", "time/waiting_s", "throughput/…" and "memory/peak_gb".

    The wait is missing for loaders that do not time it (`ClipLoader.waited_s`).
    """

    def __init__(self, *, enabled: bool = True) -> None:
        """Keep the setting.

        Args:
            enabled: False logs nothing.
        """
        self.enabled = enabled
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
        """Log this step and the wait for its batch, which for the first one of an epoch is for its workers too."""
        if not self.enabled:
            return
        step_s = time.perf_counter() - self._began_s
        values = {"time/step_s": step_s, "memory/peak_gb": peak_memory_gb(pl_module.device)}
        waiting_s = getattr(trainer.train_dataloader, "waited_s", None)
        if waiting_s is not None:
            values |= {"time/waiting_s": waiting_s, "throughput/waiting_share": waiting_s / (waiting_s + step_s)}
        pl_module.log_dict(values | self._token_rates(trainer, pl_module, step_s))

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
    """Most memory since the process started, reading weights included, in gigabytes (1e9 bytes).

    Allocated on a CUDA device, else resident in this process.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, kibibytes on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
