"""Says when a run is not learning, once, and what to do about it.

Each symptom is watched over a number of steps and reported the first time it lasts; a run is never stopped.
"""

from __future__ import annotations

from collections.abc import Mapping

import lightning as L
from lightning.pytorch.callbacks import Callback

from callbacks.notice import notice


class HealthMonitor(Callback):
    """Watches the logged values for the usual ways in which GRPO goes wrong."""

    def __init__(self, *, patience: int = 8, max_parse_failures: float = 0.5, max_kl: float = 1.0) -> None:
        """Keep the limits.

        Args:
            patience: Training steps in a row that a symptom has to last; 0 switches the monitor off.
            max_parse_failures: Share of unusable completions, 0..1, above which the answer form is lost.
            max_kl: KL divergence from the base model in nats per token above which the policy runs away.
        """
        self.patience = patience
        self.max_parse_failures = max_parse_failures
        self.max_kl = max_kl
        self._lasting: dict[str, int] = {}
        self._said: set[str] = set()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Count how long each symptom has lasted."""
        if not self.patience:
            return
        values = {name: float(value) for name, value in trainer.callback_metrics.items()}
        for symptom, is_there in self._symptoms(values).items():
            self._lasting[symptom] = self._lasting.get(symptom, 0) + 1 if is_there else 0
            if self._lasting[symptom] == self.patience and symptom not in self._said:
                self._said.add(symptom)
                notice(trainer, f"For {self.patience} steps {symptom}")

    def _symptoms(self, values: Mapping[str, float]) -> dict[str, bool]:
        """Texts of all symptoms, and whether each is there now; a value that is not logged shows none."""
        return {
            "all completions of every prompt have earned the same, so there is nothing to learn from. Raise "
            "--model.sampling.temperature or --model.grpo.group_size, or check that the rewards tell answers apart.": (
                values.get("frac_reward_zero_std", 0.0) >= 1.0
            ),
            f"more than {self.max_parse_failures:.0%} of the completions could not be used. Lower "
            "--model.optimizer.lr, raise --model.grpo.beta or --rewards.format.weight, or let answers be "
            "longer with --model.sampling.max_new_tokens.": (
                values.get("completions/parse_failures", 0.0) > self.max_parse_failures
            ),
            f"the policy has been more than {self.max_kl:g} nats per token away from the base model. Lower "
            "--model.optimizer.lr or raise --model.grpo.beta.": values.get("kl", 0.0) > self.max_kl,
            "most completions have been cut off by the token limit. Raise --model.sampling.max_new_tokens, or set "
            "--model.grpo.mask_truncated true.": values.get("completions/clipped_ratio", 0.0) > self.max_parse_failures,
        }
