"""Checkpoints of weights that are spread over devices: a folder in which every process writes what it keeps.

    step=8.ckpt/
        rank-0.pt        rows of every spread tensor that process 0 keeps
        rank-1.pt
        checkpoint.pt    everything else, with a mark where a spread tensor belongs

The folder is filled beside its target and renamed when it is complete, so that the target name stands for a complete
checkpoint or for none. It can be read on any number of processes, by any strategy; `read` puts it together again.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.distributed.tensor import DTensor

from lightning_modules.trainable_state import whole
from models.sharding import kept_rows

_REST = "checkpoint.pt"
_SPREAD, _SHAPE = "__spread__", "shape"


def is_sharded(path: Path) -> bool:
    """True for a folder that `write` made."""
    return (path / _REST).is_file()


def write(checkpoint: dict[str, Any], path: Path, *, rank: int, copy: int, barrier: Callable[[], None]) -> None:
    """Write a checkpoint; all processes call it, with the same structure.

    Args:
        checkpoint: Plain values, tensors, and tensors that are spread over the processes.
        path: Folder to make; the same on all processes, on a file system that all of them see.
        rank: Of this process.
        copy: Which copy of the spread tensors this process belongs to; only copy 0 is written.
        barrier: Returns when all processes have called it.
    """
    staged = path.with_name(f".{path.name}.partial")
    if rank == 0:
        shutil.rmtree(staged, ignore_errors=True)
        staged.mkdir(parents=True)
    barrier()
    spread: list[DTensor] = []
    rest = _take_out(checkpoint, spread)
    if copy == 0:
        rows = [kept_rows(tensor) for tensor in spread]
        shares = {
            "rows": [(part.start, part.stop) for part in rows],
            "values": [tensor.to_local().detach().cpu() for tensor in spread],
        }
        _save(shares, staged / f"rank-{rank}.pt")
    if rank == 0:
        _save(rest, staged / _REST)
    barrier()
    if rank == 0:
        _replace(path, staged)
    barrier()


def read(path: Path, *, weights_only: bool | None = None) -> dict[str, Any]:
    """Read a folder that `write` made, every tensor whole and on the CPU.

    Args:
        path: The folder.
        weights_only: As in `torch.load`; None reads tensors and plain values only.

    Raises:
        RuntimeError: Files of some processes are missing.
    """
    safe = True if weights_only is None else weights_only
    rest: dict[str, Any] = torch.load(path / _REST, map_location="cpu", weights_only=safe)
    values: dict[int, torch.Tensor] = {}
    filled: dict[int, int] = {}
    shapes = dict(_marks(rest))
    for file in sorted(path.glob("rank-*.pt")):
        shares = torch.load(file, map_location="cpu", weights_only=safe, mmap=True)
        for number, ((start, stop), value) in enumerate(zip(shares["rows"], shares["values"], strict=True)):
            if number not in values:
                values[number] = torch.empty(shapes[number], dtype=value.dtype)
            values[number][start:stop] = value
            filled[number] = filled.get(number, 0) + stop - start
    incomplete = [number for number, shape in shapes.items() if filled.get(number) != shape[0]]
    if incomplete:
        raise RuntimeError(
            f"{path} is incomplete: {len(incomplete)} of {len(shapes)} tensors lack rows, because files of some "
            "processes are missing. Copy the whole folder, or resume from an older checkpoint."
        )
    return dict(_put_back(rest, values))


def consolidate(source: Path, target: Path) -> None:
    """Turn a folder into one file, which plain `torch.load` reads."""
    _save(read(source), target)


def _take_out(tree: Any, spread: list[DTensor]) -> Any:  # noqa: ANN401 (any nesting of plain values)
    """The tree with marks in place of spread tensors, which are added to the list."""
    if isinstance(tree, DTensor):
        if tree.ndim == 0:  # nothing to cut: the same on all processes
            return whole(tree)
        spread.append(tree)
        return {_SPREAD: len(spread) - 1, _SHAPE: list(tree.shape)}
    if isinstance(tree, dict):
        return {key: _take_out(value, spread) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(_take_out(value, spread) for value in tree)
    return tree


def _marks(tree: Any) -> list[tuple[int, list[int]]]:  # noqa: ANN401
    if isinstance(tree, dict):
        own = [(tree[_SPREAD], tree[_SHAPE])] if _SPREAD in tree else []
        return own + [mark for value in tree.values() for mark in _marks(value)]
    return [mark for value in tree for mark in _marks(value)] if isinstance(tree, list | tuple) else []


def _put_back(tree: Any, values: dict[int, torch.Tensor]) -> Any:  # noqa: ANN401
    if isinstance(tree, dict):
        return values[tree[_SPREAD]] if _SPREAD in tree else {k: _put_back(v, values) for k, v in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(_put_back(value, values) for value in tree)
    return tree


def _save(tree: object, path: Path) -> None:
    with path.open("wb") as file:
        torch.save(tree, file)
        file.flush()
        os.fsync(file.fileno())


def _replace(path: Path, staged: Path) -> None:
    """Give the finished folder its name; an older checkpoint of that name, a file or a folder, goes."""
    old = path.with_name(f".{path.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if path.exists():
        path.rename(old)
    staged.rename(path)
    if old.is_dir():
        shutil.rmtree(old)
    else:
        old.unlink(missing_ok=True)
