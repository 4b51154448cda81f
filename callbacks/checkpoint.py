"""When a run is saved.

Checkpoints are made between training steps only. What is trained, where the data stands and which noise comes next then
belong together, so that a run which is taken up again goes on exactly as if it had never stopped. Lightning would also
save in the middle of a step that failed, and going on from there would skip the rest of it. A run that is asked to stop
is saved before it does, while all of its processes are still there.

`last.ckpt` leads to a whole checkpoint at any moment: it changes from the old one to the new one at once, and the old
one is removed afterwards. Lightning removes first, and has no link at all for a moment.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import Tensor

from datamodules.errors import ConfigError


class RunCheckpoint(ModelCheckpoint):
    """Lightning's checkpoint callback, with defaults for long runs and no checkpoint of half a step."""

    def __init__(
        self,
        dirpath: str | None = None,
        *,
        filename: str | None = "{step}",
        every_n_train_steps: int | None = 10,
        every_n_epochs: int | None = None,
        monitor: str | None = None,
        mode: str = "max",
        save_top_k: int = 1,
        save_weights_only: bool = False,
    ) -> None:
        """Keep the settings.

        Args:
            dirpath: Folder; null takes `checkpoints/` in the run folder.
            filename: Name without its ending; `{step}` is the number of optimizer steps.
            every_n_train_steps: Optimizer steps between two checkpoints, a multiple of
                `model.grpo.updates_per_rollout`; null saves by epochs only.
            every_n_epochs: Epochs between two checkpoints; only without `every_n_train_steps`.
            monitor: Logged key that decides which checkpoints are kept; null keeps the newest.
            mode: "max" when a higher monitored value is better, else "min".
            save_top_k: How many are kept, besides `last.ckpt` and the newest, to which it leads; -1 keeps all, and more
                than 1 needs `monitor`.
            save_weights_only: Leave out what only resuming needs.
        """
        super().__init__(
            dirpath=dirpath,
            filename=filename,
            every_n_train_steps=every_n_train_steps,
            every_n_epochs=every_n_epochs,
            monitor=monitor,
            mode=mode,
            save_top_k=save_top_k,
            save_weights_only=save_weights_only,
            save_last="link",
        )
        self._waits_for_validation = False
        self._outdated: list[str] = []
        self._unranked = ""  # saved for `last.ckpt` to lead to, and not for its monitored value

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """As Lightning's.

        Raises:
            ConfigError: The interval falls between the optimizer steps of one rollout, where nothing can be saved.
        """
        updates, every = getattr(pl_module, "updates_per_batch", 1), self._every_n_train_steps
        if stage == "fit" and every % updates:
            raise ConfigError(
                f"checkpoint.every_n_train_steps is {every}, but checkpoints are made between rollouts, every "
                f"{updates} optimizer steps (model.grpo.updates_per_rollout). Set --checkpoint.every_n_train_steps "
                f"{updates * max(1, round(every / updates))}."
            )
        super().setup(trainer, pl_module, stage)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """What a run is taken up from is saved already."""
        super().on_train_start(trainer, pl_module)
        if trainer.ckpt_path is not None:
            self._last_global_step_saved = trainer.global_step

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: STEP_OUTPUT, batch: object, batch_idx: int
    ) -> None:
        """Save when it is time or the run is about to stop, after the validation where one follows the step.

        A run that is taken up between a step and its validation would go on without it.
        """
        is_due = self._every_n_train_steps > 0 and trainer.global_step % self._every_n_train_steps == 0
        is_followed = validation_follows(trainer)
        self._waits_for_validation = is_due and is_followed
        if not self._waits_for_validation:
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if not is_followed:
            self._save_before_stop(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Make up for the checkpoint that waited; save when the run is about to stop."""
        if self._waits_for_validation:
            self._waits_for_validation = False
            self._defer_save_until_validation = True
        super().on_validation_end(trainer, pl_module)
        self._save_before_stop(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save once more where the training did not end on a checkpoint, so that `last.ckpt` is the trained policy."""
        if self.save_top_k != 0 and trainer.global_step > self._last_global_step_saved:
            self._save_as_last(trainer)
        super().on_train_end(trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        """As Lightning's, and which checkpoint goes when `last.ckpt` leads elsewhere."""
        return {**super().state_dict(), "unranked": self._unranked}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As Lightning's; a run that goes on in its own folder also goes on with its own `last.ckpt`.

        In the first checkpoint of a run that has no name yet, and Lightning would take another one.
        """
        super().load_state_dict(state_dict)
        if self.dirpath is None or self.dirpath != state_dict.get("dirpath"):
            return
        self._unranked = state_dict.get("unranked", "")
        if not self.last_model_path:
            self.last_model_path = str(Path(self.dirpath) / f"{self.CHECKPOINT_NAME_LAST}{self.FILE_EXTENSION}")

    def _save_before_stop(self, trainer: L.Trainer) -> None:
        if trainer.received_sigterm and not self._should_skip_saving_checkpoint(trainer):
            self._save_as_last(trainer)

    def _save_as_last(self, trainer: L.Trainer) -> None:
        """Save what there is now, whatever the monitored value says, and let `last.ckpt` lead to it."""
        candidates = self._monitor_candidates(trainer)
        if self.save_top_k != 0 and self.monitor is None:
            self._save_none_monitor_checkpoint(trainer, candidates)
        elif self.save_top_k != 0:
            path = self._get_metric_interpolated_filepath_name(candidates, trainer, self._unranked)
            if self.save_top_k > 0:  # where all are kept, none is saved for `last.ckpt` alone
                self._replace_unranked(trainer, path)
            self._save_checkpoint(trainer, path)
        self._save_last_checkpoint(trainer, candidates)

    def _replace_unranked(self, trainer: L.Trainer, path: str) -> None:
        before, self._unranked = self._unranked, path
        if before and self._should_remove_checkpoint(trainer, before, path):
            self._remove_checkpoint(trainer, before)

    def _save_last_checkpoint(self, trainer: L.Trainer, monitor_candidates: dict[str, Tensor]) -> None:
        super()._save_last_checkpoint(trainer, monitor_candidates)
        if self._unranked != self._last_checkpoint_saved:
            self._replace_unranked(trainer, "")
        outdated, self._outdated = self._outdated, []
        for path in outdated:
            super()._remove_checkpoint(trainer, path)

    def _remove_checkpoint(self, trainer: L.Trainer, filepath: str) -> None:
        """Wait until `last.ckpt` leads elsewhere."""
        self._outdated.append(filepath)

    @staticmethod
    def _link_checkpoint(trainer: L.Trainer, filepath: str, linkpath: str) -> None:
        link = Path(linkpath)
        if trainer.is_global_zero and link.absolute() != Path(filepath).absolute():
            staged = link.with_name(f".{link.name}.partial")
            _remove(staged)
            try:
                staged.symlink_to(os.path.relpath(filepath, link.parent))
            except OSError:  # a file system, or a user of Windows, that cannot
                # Checkpoints of spread weights are folders.
                (shutil.copytree if Path(filepath).is_dir() else shutil.copy)(filepath, staged)
            if _is_folder(link) or _is_folder(staged):  # which cannot take another's place
                _remove(link)
            staged.replace(link)
        trainer.strategy.barrier()


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _remove(path: Path) -> None:
    """A file, a link or a folder, if there is one."""
    if _is_folder(path):
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def validation_follows(trainer: L.Trainer) -> bool:
    """True when the training step that has just ended is followed by a validation.

    Only Lightning's own decision is sure to be the one that is taken, so the loop is asked, by a private name.
    """
    loop = trainer.fit_loop
    return loop._data_fetcher is not None and loop.epoch_loop._should_check_val_fx(loop._data_fetcher)
