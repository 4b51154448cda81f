"""Linear layers whose weights do not change for a while, at full speed for a few rows.

`torch.nn.functional.linear` has to take weights as they come. For the few rows of a decoding step, kernels that find
the weights in blocks of their own choosing are about twice as fast on a CPU, and rearranging them once costs as much as
a single step.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Linear = Callable[[Float[Tensor, "rows inputs"]], Float[Tensor, "rows outputs"]]


def frozen_linear(weight: Float[Tensor, "outputs inputs"], bias: Float[Tensor, "outputs"] | None) -> Linear:
    """The function ``x -> x weight^T + bias``, without gradient; the weights are copied where that makes it faster."""
    has_kernels = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")  # type: ignore[no-untyped-call]
    if not has_kernels or weight.device.type != "cpu" or weight.dtype != torch.float32:
        return lambda x: F.linear(x, weight, bias)
    blocked = torch.ops.mkldnn._reorder_linear_weight(weight)

    def linear(x: Tensor) -> Tensor:
        product: Tensor = torch.ops.mkldnn._linear_pointwise(x, blocked, bias, "none", [], "")
        return product

    return linear
