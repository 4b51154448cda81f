"""Checkpoints are written atomically and read back without unpickling code."""

import os
from pathlib import Path

import pytest
import torch

from datamodules.errors import ConfigError
from lightning_modules.checkpoint import AtomicCheckpointIO


def test_what_is_saved_is_what_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"weights": torch.arange(3), "step": 7}, path)
    loaded = AtomicCheckpointIO().load_checkpoint(path, weights_only=True)
    assert loaded["step"] == 7
    assert torch.equal(loaded["weights"], torch.arange(3))
    assert [file.name for file in path.parent.iterdir()] == ["last.ckpt"]


def test_a_save_that_dies_leaves_the_old_checkpoint_readable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"step": 1}, path)

    def die(checkpoint: object, file: object) -> None:
        file.write(b"half a file")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", die)
    with pytest.raises(KeyboardInterrupt):
        AtomicCheckpointIO().save_checkpoint({"step": 2}, path)
    monkeypatch.undo()
    assert AtomicCheckpointIO().load_checkpoint(path)["step"] == 1

    AtomicCheckpointIO().save_checkpoint({"step": 3}, path)
    assert AtomicCheckpointIO().load_checkpoint(path)["step"] == 3
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"], "the leftover of the failed save is gone"


def test_the_bytes_reach_the_disk_before_the_name_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    flush, rename = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda descriptor: (events.append("flush"), flush(descriptor)))
    monkeypatch.setattr(Path, "replace", lambda self, target: (events.append("rename"), rename(self, target)))
    AtomicCheckpointIO().save_checkpoint({"step": 1}, tmp_path / "last.ckpt")
    assert events == ["flush", "rename", "flush"]


@pytest.mark.parametrize("content", [b"", b"no checkpoint at all", None])
def test_a_file_that_cannot_be_read_is_named_with_the_flag(tmp_path: Path, content: bytes | None) -> None:
    """An empty file, another file, and a checkpoint of which the second half is missing."""
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"weights": torch.arange(1000)}, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(ConfigError, match=r"^ckpt_path: .*last\.ckpt could not be read as a checkpoint \(.+\)\. Name"):
        AtomicCheckpointIO().load_checkpoint(path, weights_only=True)


def test_remote_storage_options_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"storage_options=.*--trainer.plugins"):
        AtomicCheckpointIO().save_checkpoint({}, tmp_path / "last.ckpt", storage_options={"key": "value"})
