"""The adapter of a run as a PEFT folder, taken from any of its checkpoints; the base is not read for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from datamodules.errors import ConfigError
from lightning_modules.checkpoint import AtomicCheckpointIO
from lightning_modules.cli_resume import CONFIG_NAME, LAST_CHECKPOINT
from models.adapter import LoRA, peft_config, write_adapter

PREFIX = "reasoner.model."
"""What the names of the reasoner's weights begin with in a module that trains one."""


def export_checkpoint(run: Path, output: Path, *, checkpoint: Path | None = None) -> None:
    """Write the adapter of a checkpoint as a PEFT folder.

    Args:
        run: Run folder; its configuration says what the adapter is put on.
        output: Folder to write.
        checkpoint: File or folder, or the name of one of the run's own; None takes its newest.

    Raises:
        ConfigError: There is no such run or checkpoint, or it trained no adapter.
    """
    reasoner = _reasoner_settings(run)
    source = run / LAST_CHECKPOINT if checkpoint is None else _named(run, checkpoint)
    if not source.exists():
        there = ", ".join(sorted(path.name for path in source.parent.glob("*.ckpt"))) or "none"
        raise ConfigError(
            f"expected a checkpoint, found nothing at {source}, where there are: {there}. Name one of the run with "
            "--checkpoint."
        )
    state = AtomicCheckpointIO().load_checkpoint(source, weights_only=True)["state_dict"]
    config = peft_config(LoRA(**(reasoner.get("lora") or {})), reasoner.get("adapter"))
    config.base_model_name_or_path = reasoner["path"]
    weights = {name.removeprefix(PREFIX): value for name, value in state.items() if name.startswith(PREFIX)}
    write_adapter(config, weights, output)


def _named(run: Path, checkpoint: Path) -> Path:
    """A checkpoint at its place, or else among the run's own."""
    return checkpoint if checkpoint.exists() else run / LAST_CHECKPOINT.parent / checkpoint


def _reasoner_settings(run: Path) -> dict[str, Any]:
    path = run / CONFIG_NAME
    if not path.is_file():
        raise ConfigError(
            f"expected a run folder with {CONFIG_NAME}, found {str(run)!r}. Give the folder of a run, such as "
            "runs/refavs/version_0."
        )
    settings: dict[str, Any] = yaml.safe_load(path.read_text())["model"]["init_args"]["reasoner"]["init_args"]
    return settings
