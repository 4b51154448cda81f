"""Where a number comes from: code, configuration, weights, data and versions."""

from __future__ import annotations

import hashlib
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning as L
from huggingface_hub.constants import HF_HUB_CACHE

from metrics.version import commit
from models.loading import local_path

PARTS = ("reasoner", "grounder", "propagator")
"""Attributes of a module whose weights are read from a path."""

MAX_HASHED = 1_000_000_000
"""Larger files would take longer to hash than the result is worth waiting for."""

_ENDINGS = (".safetensors", ".bin", ".pt")
_PACKAGES = ("torch", "lightning", "transformers", "peft", "sam2")


def provenance(trainer: L.Trainer, run: Path) -> dict[str, Any]:
    """What has to be named beside a result so that somebody else can get it again.

    Args:
        trainer: The one that made the result.
        run: Its run folder, with the resolved configuration.

    Returns:
        Plain values: command, date, commit, hash of the configuration, checkpoint and its hash, what identifies the
        weights of every part, data root, versions. The commit is None outside a git checkout, and ends in "+changes"
        when files differ from it.
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
        "weights": weights_of(trainer.lightning_module),
        "data_root": getattr(getattr(trainer, "datamodule", None), "root", None),
        "processes": trainer.world_size,
        "versions": {name: version(name) for name in _PACKAGES},
    }


def weights_of(module: Any) -> dict[str, dict[str, Any]]:  # noqa: ANN401 (a module, or anything in its place)
    """What identifies the weights that the parts of a module were read from, by part.

    Args:
        module: With some of `PARTS` as attributes, each with a `path`; a part without one is left out, such as a
            grounder that is the reasoner itself. The adapter that a reasoner starts from is a part too.

    Returns:
        For a folder or a file: the path and, for each weight file in it, bytes and SHA-256; a file of more than
        `MAX_HASHED` bytes has its time of change in place of the hash. For a hub id: the revision in the local cache,
        None where there is none.
    """
    paths = {name: getattr(getattr(module, name, None), "path", None) for name in PARTS}
    paths["adapter"] = getattr(getattr(module, "reasoner", None), "adapter", None)
    return {name: _identity(path) for name, path in paths.items() if isinstance(path, str)}


def _identity(path: str) -> dict[str, Any]:
    place = local_path(path)
    if place.exists():
        files = sorted(f for f in place.iterdir() if f.suffix in _ENDINGS) if place.is_dir() else [place]
        return {"path": path, "files": {file.name: _file_identity(file) for file in files}}
    revision = Path(HF_HUB_CACHE) / f"models--{path.replace('/', '--')}" / "refs" / "main"
    return {"path": path, "revision": revision.read_text().strip() if revision.is_file() else None}


def _file_identity(file: Path) -> dict[str, Any]:
    found = file.stat()
    if found.st_size > MAX_HASHED:
        changed = datetime.fromtimestamp(found.st_mtime, UTC).isoformat(timespec="seconds")
        return {"bytes": found.st_size, "changed": changed}
    return {"bytes": found.st_size, "sha256": file_hash(file)}


def file_hash(path: Path) -> str | None:
    """SHA-256 of a file's bytes, None when there is no such file."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
