"""Refuses a run that cannot fit on its devices, before any weights are read, and says what would make it fit."""

from __future__ import annotations

import lightning as L
import rich
import torch
from lightning.pytorch.callbacks import Callback

from datamodules.errors import ConfigError
from lightning_modules.grpo_module import GRPOModule
from lightning_modules.planning import judge, memory_table, workload


class MemoryCheck(Callback):
    """Prints the memory plan of a GRPO run on GPUs, and stops one that needs more than there is.

    Supervised training, which holds less, and commands that do not train are not planned.
    """

    def __init__(self, *, enabled: bool = True, card_gb: float | None = None) -> None:
        """Keep the settings.

        Args:
            enabled: False plans nothing and lets everything begin.
            card_gb: Memory of a device in 1e9 bytes; null asks the device, and plans nothing without a GPU.
        """
        self.enabled = enabled
        self.card_gb = card_gb

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Plan a training.

        Raises:
            ConfigError: It does not fit.
        """
        device = trainer.strategy.root_device
        card_gb = self.card_gb
        if card_gb is None and device.type == "cuda":
            card_gb = torch.cuda.get_device_properties(device).total_memory / 1e9
        data = getattr(trainer, "datamodule", None)
        is_planned = self.enabled and stage == "fit" and isinstance(pl_module, GRPOModule)
        if not is_planned or card_gb is None or data is None:
            return
        sizes, load = workload(
            pl_module,
            data,
            devices=trainer.world_size,
            strategy=trainer.strategy,
            precision=str(trainer.precision),
        )
        verdict = judge(sizes, load, card_gb)
        if trainer.is_global_zero:
            rich.get_console().print(memory_table(verdict))
        if not verdict.fits:
            raise ConfigError(f"{verdict.message} To begin all the same, set --memory.enabled false.")
