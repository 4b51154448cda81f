"""Checkpoints that several processes write together; here one process writes the parts of two."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard

from lightning_modules.checkpoint import AtomicCheckpointIO
from lightning_modules.sharded_checkpoint import is_sharded, read, write
from scripts import consolidate


@pytest.fixture
def spread() -> Iterator[DTensor]:
    """Three rows that are spread over a single process."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    mesh = init_device_mesh("cpu", (1,))
    yield DTensor.from_local(torch.arange(6.0).reshape(3, 2), mesh, [Shard(0)])
    dist.destroy_process_group()


def checkpoint(value: DTensor) -> dict[str, object]:
    return {"state_dict": {"a": value}, "step": 3, "optimizer": [({"m": value, "n": torch.ones(2)}, "adam")]}


def save(value: DTensor, path: Path) -> None:
    write(checkpoint(value), path, rank=0, copy=0, barrier=lambda: None)


def test_what_was_written_in_parts_is_read_whole(spread: DTensor, tmp_path: Path) -> None:
    path = tmp_path / "step=8.ckpt"
    save(spread, path)
    assert is_sharded(path)
    whole = spread.full_tensor()
    for found in (read(path), AtomicCheckpointIO().load_checkpoint(path)):
        assert torch.equal(found["state_dict"]["a"], whole)
        state, name = found["optimizer"][0]
        assert torch.equal(state["m"], whole)
        assert torch.equal(state["n"], torch.ones(2))
        assert (found["step"], name) == (3, "adam")
    assert [entry.name for entry in tmp_path.iterdir()] == ["step=8.ckpt"], "nothing is left beside it"


@pytest.mark.parametrize("older", ["file", "folder"])
def test_a_new_checkpoint_takes_the_place_of_an_older_one(older: str, spread: DTensor, tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    if older == "file":
        torch.save({"step": 1}, path)
    else:
        write(checkpoint(spread) | {"step": 1}, path, rank=0, copy=0, barrier=lambda: None)
    save(spread, path)
    assert read(path)["step"] == 3
    assert [entry.name for entry in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_save_that_dies_leaves_the_old_checkpoint(spread: DTensor, tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    save(spread, path)
    barriers = iter([None])
    with pytest.raises(StopIteration):
        write({"step": 9}, path, rank=0, copy=0, barrier=lambda: next(barriers))
    assert read(path)["step"] == 3


def test_missing_parts_are_an_error(spread: DTensor, tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    save(spread, path)
    (path / "rank-0.pt").unlink()
    with pytest.raises(RuntimeError, match=r"2 of 2 tensors lack rows.*Copy the whole folder"):
        read(path)


def test_a_folder_becomes_a_file_by_one_command(
    spread: DTensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    save(spread, tmp_path / "last.ckpt")
    monkeypatch.setattr("sys.argv", ["consolidate.py", str(tmp_path / "last.ckpt"), str(tmp_path / "whole.ckpt")])
    assert consolidate.main() == 0
    found = torch.load(tmp_path / "whole.ckpt", weights_only=True)
    assert torch.equal(found["state_dict"]["a"], spread.full_tensor())
    monkeypatch.setattr("sys.argv", ["consolidate.py", str(tmp_path / "whole.ckpt"), "again.ckpt"])
    assert consolidate.main() == 2
    assert "error: expected a folder of a run with sharded weights" in capsys.readouterr().err
