"""Puts the curves that belong together onto one page of TensorBoard (the tab "Custom Scalars").

Three groups, in the order in which a run is read: is it getting better, is it healthy, where does the time go. Keys
keep the names that the field uses, so a group is a list of keys and not a prefix.
"""

from __future__ import annotations

import lightning as L
from lightning.pytorch.callbacks import Callback

LAYOUT: dict[str, dict[str, list[str]]] = {
    "progress": {
        "held-out J&F": [r"val/jf", r"val/j", r"val/f"],
        "held-out absent targets": [r"val/null_accuracy", r"val/null_empty", r"val/false_absent"],
        "held-out reward": [r"val/reward"],
        "reward": [r"^reward$"],
        "reward terms": [r"^rewards/.+/mean"],
    },
    "stability": {
        "KL to the reference": [r"^kl$"],
        "entropy": [r"^entropy$"],
        "spread of rewards": [r"^reward_std$", r"frac_reward_zero_std"],
        "gradient norm": [r"grad_norm"],
        "clipped ratios": [r"clip_ratio/.+_mean"],
        "completion length": [r"completions/.+_length"],
        "unusable completions": [r"completions/parse_failures", r"completions/clipped_ratio", r"completions/absent"],
    },
    "performance": {
        "seconds per part": [r"time/.+_s"],
        "tokens per second": [r"throughput/.+_per_s"],
        "waiting for data": [r"throughput/waiting_share"],
        "peak memory": [r"memory/peak_gb"],
        "tokens": [r"num_tokens"],
        "learning rate": [r"^lr$"],
    },
}
"""Group, chart, patterns of the keys in it."""


class CurveGroups(Callback):
    """Lays out the curves of a training; loggers other than TensorBoard are passed over."""

    def __init__(self, *, enabled: bool = True) -> None:
        """Keep the setting.

        Args:
            enabled: False leaves the tab away.
        """
        self.enabled = enabled

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the layout once; modules that do not sample have other curves."""
        if not self.enabled or not trainer.is_global_zero or not hasattr(pl_module, "last_groups"):
            return
        layout = {
            group: {name: ["Multiline", keys] for name, keys in charts.items()} for group, charts in LAYOUT.items()
        }
        for logger in trainer.loggers:
            writer = getattr(logger, "experiment", None)
            if writer is not None and hasattr(writer, "add_custom_scalars"):
                writer.add_custom_scalars(layout)
