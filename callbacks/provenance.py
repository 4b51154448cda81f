"""Where a number comes from: code, configuration, weights, data and versions."""

from __future__ import annotations

import hashlib
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning as L

from metrics.version import commit

_PACKAGES = ("torch", "lightning", "transformers", "peft", "sam2")


def provenance(trainer: L.Trainer, run: Path) -> dict[str, Any]:
    """What has to be named beside a result so that somebody else can get it again.

    Args:
        trainer: The one that made the result.
        run: Its run folder, with the resolved configuration.

    Returns:
        Plain values: command, date, commit, hash of the configuration, checkpoint and its hash, data root, versions.
        The commit is None outside a git checkout, and ends in "+changes" when files differ from it.
    """
    config = run / "config.yaml"
    checkpoint = trainer.ckpt_path
    return {
        "command": " ".join(["python", *sys.argv]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(Path(__file__).parent),
        "config": str(config),
        "config_sha256": file_hash(config),
        "checkpoint": None if checkpoint is None else str(checkpoint),
        "checkpoint_sha256": None if checkpoint is None else file_hash(Path(checkpoint)),
        "data_root": getattr(getattr(trainer, "datamodule", None), "root", None),
        "processes": trainer.world_size,
        "versions": {name: version(name) for name in _PACKAGES},
    }


def file_hash(path: Path) -> str | None:
    """SHA-256 of a file's bytes, None when there is no such file."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
