"""Muon for matrices and AdamW for everything else, as one optimizer.

Small transformers that start from nothing learn in about half as many steps when the updates of their hidden matrices
are orthogonalized; embeddings, biases, norms, convolutions and output layers keep AdamW. The two optimizers are
PyTorch's own; this class only lets them be stepped, scheduled and saved as one.

Reference:
    Muon: Jordan et al., 2024, https://kellerjordan.github.io/posts/muon/; `torch.optim.Muon`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR


class MuonAdamW(torch.optim.Optimizer):
    """Steps Muon on some parameters and AdamW on others.

    Args:
        matrices: Hidden matrices, two-dimensional; Muon's.
        others: All the rest; AdamW's, without weight decay.
        matrix_learning_rate: Muon's learning rate; about ten times AdamW's.
        learning_rate: AdamW's learning rate.
        weight_decay: Of the matrices.

    Raises:
        ValueError: One of the matrices is none (from PyTorch's Muon).
    """

    def __init__(
        self,
        matrices: Sequence[Tensor],
        others: Sequence[Tensor],
        *,
        matrix_learning_rate: float = 0.02,
        learning_rate: float = 2e-3,
        weight_decay: float = 0.01,
    ) -> None:
        self._parts: tuple[torch.optim.Optimizer, ...] = (
            torch.optim.Muon(matrices, lr=matrix_learning_rate, weight_decay=weight_decay),
            torch.optim.AdamW(others, lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.0),
        )
        # The groups are the parts' own objects, so a schedule that sets a learning rate here sets it there.
        super().__init__([group for part in self._parts for group in part.param_groups], {})

    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # noqa: ANN401 (as the base class)
        """Update all parameters.

        Args:
            closure: Computes the loss again; called once, before both updates.

        Returns:
            What the closure returned, or None.
        """
        loss = closure() if closure is not None else None
        for part in self._parts:
            part.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """The states of both parts."""
        return {"parts": [part.state_dict() for part in self._parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        for part, state in zip(self._parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self.param_groups = [group for part in self._parts for group in part.param_groups]


def split_matrices(
    parameters: Iterable[tuple[str, nn.Parameter]], *, not_hidden: str
) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Trained parameters as Muon's matrices and AdamW's rest.

    Args:
        parameters: Names and parameters, such as `named_parameters` gives.
        not_hidden: Regular expression that finds the names of matrices at the border of the network.
    """
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, weights in parameters:
        if weights.requires_grad:
            (matrices if weights.ndim == 2 and not re.search(not_hidden, name) else others).append(weights)
    return matrices, others


def cosine_schedule(optimizer: torch.optim.Optimizer, steps: int, *, warmup: int, floor: float = 0.01) -> LambdaLR:
    """Linear warm-up, then a cosine from 1 down to `floor` over all steps, as a factor of every learning rate."""

    def factor(step: int) -> float:
        decayed = floor + (1 - floor) * (1 + math.cos(math.pi * min(1.0, step / steps))) / 2
        return min(1.0, (step + 1) / warmup) * decayed

    return LambdaLR(optimizer, factor)
