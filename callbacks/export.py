"""The trained adapter in the form that everybody else reads.

`peft.PeftModel.from_pretrained(base, folder)` loads what is written here onto the base model that the run started from,
and `--model.reasoner.adapter folder` starts another run from it. The frozen base is not copied.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_info
from peft import PeftModel, get_peft_model_state_dict
from safetensors.torch import save_file

from lightning_modules.trainable_state import whole

_PREFIX = "reasoner.model."


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
            export_adapter(model, state, target)
            rank_zero_info(f"adapter written to {target}")


def export_adapter(model: PeftModel, state: dict[str, Any], folder: Path) -> None:
    """Write `adapter_config.json` and `adapter_model.safetensors`.

    Args:
        model: The model with the adapter; its configuration is written as for inference and left as it is.
        state: The module's whole weights, as a strategy collects them.
        folder: Made when it is missing; an older adapter in it is replaced.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ours = {name.removeprefix(_PREFIX): value for name, value in state.items() if name.startswith(_PREFIX)}
    weights: dict[str, torch.Tensor] = get_peft_model_state_dict(model, state_dict=ours)
    tensors = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = model.peft_config["default"]
    before, config.inference_mode = config.inference_mode, True
    try:
        config.save_pretrained(str(folder))
    finally:
        config.inference_mode = before
