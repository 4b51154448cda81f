"""What a person who waits for a run does not need to read.

Each line that is dropped here is either said better by our own banner or tables, or warns of something that is
intended. Everything else passes, and `--debug` lets all of it pass.
"""

from __future__ import annotations

import logging
import warnings

from transformers.utils import logging as transformers_logging

_LINES = ("GPU available", "TPU available", "HPU available", "💡 Tip", "Restoring states from", "Loaded model weights")
"""Beginnings of log lines: devices are in the banner, checkpoints in the command."""

_WARNINGS = (
    # Lightning calls torch's tree utilities by an old name.
    r".*LeafSpec.*",
    # Both leave a list of clips as it is.
    r"You have overridden `transfer_batch_to_device` in both",
    # Everything but the adapter is frozen, and rollouts switch dropout off on purpose.
    r"Found \d+ module\(s\) in eval mode at the start of training",
    # Checkpoints are made after the update, between two steps, on purpose.
    r"Using ModelCheckpoint with manual optimization",
    # Only a training saves and resumes; other commands take the weights of a checkpoint and nothing else.
    r"Be aware that when using `ckpt_path`, callbacks used to create the checkpoint",
    # Held-out results of all processes are put together before any mean is taken.
    r"It is recommended to use `self.log\(.*sync_dist=True\)`",
    # Lightning gathers by an old name of torch's.
    r"torch.distributed.nn.functional.all_gather is deprecated",
    # Transformers reads its own old name.
    r"`is_gradient_checkpointing` is deprecated",
    # Readers run in the training process unless a run asks for workers; the clips of a run are few.
    r"The '\w+' does not have many workers",
)


class _Drop(logging.Filter):
    """Drops log lines by their beginning."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(_LINES)


_DROP = _Drop()


def quiet() -> None:
    """Drop the known noise from logs and warnings of this process."""
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.pytorch.trainer.connectors.checkpoint_connector"):
        logging.getLogger(name).addFilter(_DROP)
    for message in _WARNINGS:
        warnings.filterwarnings("ignore", message=message)
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
