"""The trained adapter in the form that everybody else reads.

`peft.PeftModel.from_pretrained(base, folder)` loads what is written here onto the base model that the run started from,
and `--model.reasoner.adapter folder` starts another run from it. The frozen base is not copied.
"""

from __future__ import annotations

from pathlib import Path

import lightning as L
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_info
from peft import PeftModel

from lightning_modules.export_run import PREFIX
from lightning_modules.trainable_state import whole
from models.adapter import write_adapter


class ExportAdapter(Callback):
    """Writes the adapter as a PEFT folder when a training ends."""

    def __init__(self, *, folder: str | None = "adapter") -> None:
        """Keep the setting.

        Args:
            folder: Where to write, relative to the run folder; null writes nothing.
        """
        self.folder = folder

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the adapter, if the module trains one and the run has a folder; also when nothing was left to train."""
        model = getattr(getattr(pl_module, "reasoner", None), "model", None)
        if self.folder is None or not isinstance(model, PeftModel) or not trainer.loggers:
            return
        # Both are collectives: with sharded weights every process gives its part, and the folder is broadcast.
        state = {name: whole(value) for name, value in trainer.strategy.lightning_module_state_dict().items()}
        run = trainer.log_dir
        if trainer.is_global_zero and run is not None:
            target = Path(run) / self.folder
            weights = {name.removeprefix(PREFIX): value for name, value in state.items() if name.startswith(PREFIX)}
            write_adapter(model.peft_config["default"], weights, target)
            rank_zero_info(f"adapter written to {target}")
