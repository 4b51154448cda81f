"""Checkpoints of a model that is mostly frozen: the trained weights go in, and all of them must come out again.

The frozen base is read from its own files at every start. A module that uses these functions sets
``strict_loading = False``, which alone would also accept a checkpoint that lacks the adapter.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from datamodules.errors import ConfigError


def trainable_names(module: nn.Module) -> list[str]:
    """Names of the weights that are trained."""
    return [name for name, parameter in module.named_parameters() if parameter.requires_grad]


def whole(value: Tensor) -> Tensor:
    """A tensor with all its rows; where it is spread over processes, all of them must call this."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def keep_trainable(module: nn.Module, checkpoint: dict[str, Any]) -> None:
    """Leave everything frozen out of a checkpoint's `state_dict`."""
    kept = set(trainable_names(module))
    checkpoint["state_dict"] = {name: value for name, value in checkpoint["state_dict"].items() if name in kept}


def check_trainable(module: nn.Module, checkpoint: dict[str, Any]) -> None:
    """Make sure that a checkpoint holds all trained weights, in their shapes.

    Raises:
        ConfigError: Some are missing or differ in shape; the first few are named.
    """
    found = checkpoint["state_dict"]
    problems = []
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        if name not in found:
            problems.append(f"{name} is missing")
        elif found[name].shape != parameter.shape:
            problems.append(f"{name} is {tuple(found[name].shape)}, expected {tuple(parameter.shape)}")
    if problems:
        raise ConfigError(
            f"the checkpoint does not fit the adapter: {'; '.join(problems[:3])}"
            f"{f' and {len(problems) - 3} more' if len(problems) > 3 else ''}. It was written with other settings of "
            "--model.reasoner.lora, or by another kind of module."
        )
