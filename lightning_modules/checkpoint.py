"""Crash-safe checkpoint files.

A checkpoint is written beside its target, flushed to the disk and renamed, so that the target name always holds either
the old file or the new one, whatever happens in between. Lightning's own writer stages in the system's temporary
folder instead: when that is another file system, the final move is a copy, and a killed run can leave an empty file.
Reading is Lightning's: plain tensors and containers only (`weights_only`), unless the caller asks otherwise. A folder
that several processes wrote together is read here as well, whatever the strategy and the number of processes now.
"""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from datamodules.errors import ConfigError
from lightning_modules.sharded_checkpoint import is_sharded, read


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write beside the target, flush to disk, rename."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: object | None = None
    ) -> None:
        """Write a checkpoint so that no reader, and no later run, can ever meet a half-written one.

        Args:
            checkpoint: What Lightning collected: loops, optimizers, trainable weights, callbacks, loaders.
            path: Local file to write; missing folders are made.
            storage_options: Not supported; only there because the interface has it.

        Raises:
            TypeError: `storage_options` was given.
        """
        if storage_options is not None:
            raise TypeError(
                f"AtomicCheckpointIO writes local files only, but got storage_options={storage_options!r}. "
                "Leave it out, or pass another CheckpointIO in `--trainer.plugins`."
            )
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        # A fixed name, not one with a process id: what a killed run left behind is overwritten by the next save.
        staged = target.with_name(f".{target.name}.partial")
        with staged.open("wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())
        staged.replace(target)
        _flush_folder(target.parent)

    def load_checkpoint(
        self,
        path: str | os.PathLike[str],
        map_location: Any = lambda storage, _: storage,  # noqa: ANN401 (as torch takes it)
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Read a checkpoint file, or the folder of a run whose weights were spread over processes.

        Args:
            path: File or folder.
            map_location: Where tensors go; by default where they are in the file. A folder is read to the CPU.
            weights_only: Plain tensors and containers only; None leaves it to Lightning.

        Raises:
            ConfigError: The file is no checkpoint, is broken, or holds other objects than plain ones.
        """
        try:
            if is_sharded(Path(path)):
                return read(Path(path), weights_only=weights_only)
            return super().load_checkpoint(os.fspath(path), map_location, weights_only)
        # Of a file that is no whole archive torch says so by any of the last three.
        except (pickle.UnpicklingError, EOFError, OSError, RuntimeError) as error:
            reason = str(error).strip().partition("\n")[0] or "the file is empty"
            raise ConfigError(
                f"ckpt_path: {path} could not be read as a checkpoint ({reason}). Name another with --ckpt_path; those "
                "of a run are in its folder checkpoints/."
            ) from error


def _flush_folder(folder: Path) -> None:
    """Make the rename itself survive a power cut; folders can only be opened for this on POSIX systems."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
