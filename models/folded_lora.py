"""A LoRA layer that multiplies once: the adapter is folded into the weight for the length of one product.

A LoRA layer computes ``x W^T + s (x A^T) B^T``. Nearly all arithmetic is in the first product, but the second makes
rows as wide as the output, scales them and adds them, and autograd does the same on the way back. The product
``x (W + s B A)^T`` is the same up to rounding, and making ``W + s B A`` costs as much as a few tokens::

    dL/dx = g (W + s B A)      dL/dA = s (g B)^T x      dL/dB = s g^T (x A^T)

Only the product is folded; weights, gradients and what is saved are those of any LoRA layer. Where folding would lose
something (half precision, in which a small adapter drowns) or gain nothing (few tokens), the layer is PEFT's own.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from peft import LoraConfig
from peft.tuners.lora import Linear
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class FoldedLinear(Linear):  # type: ignore[misc]
    """PEFT's LoRA layer, folded where nothing is lost by it."""

    def forward(self, x: Float[Tensor, "*rows inputs"], *args: Any, **more: Any) -> Float[Tensor, "*rows outputs"]:  # noqa: ANN401
        """See `peft.tuners.lora.Linear`."""
        if args or more or not self.folds(x):
            output: Tensor = super().forward(x, *args, **more)
            return output
        (name,), base = self.active_adapters, self.get_base_layer()
        down, up = self.lora_A[name].weight, self.lora_B[name].weight
        folded: Tensor = _Folded.apply(x, base.weight, base.bias, down, up, self.scaling[name])
        return folded

    def folds(self, x: Float[Tensor, "*rows inputs"]) -> bool:
        """Whether an input is multiplied with the folded weight; from about as many rows as inputs on it is faster."""
        names, base = self.active_adapters, self.get_base_layer()
        if self.disable_adapters or self.merged or len(names) != 1 or names[0] not in self.lora_A:
            return False
        name = names[0]
        is_plain = name not in self.lora_variant and not self.lora_bias.get(name)
        drops = self.training and not isinstance(self.lora_dropout[name], nn.Identity)
        kinds = {x.dtype, base.weight.dtype, self.lora_A[name].weight.dtype}
        is_exact = kinds == {torch.float32} and not torch.is_autocast_enabled(x.device.type)
        has_rows = x.numel() >= x.shape[-1] ** 2
        return is_plain and not drops and is_exact and has_rows and not base.weight.requires_grad


def with_folding(config: LoraConfig) -> LoraConfig:
    """Let PEFT make its LoRA layers of this kind; what it saves is the same."""
    config._register_custom_module({nn.Linear: FoldedLinear})
    return config


class _Folded(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 (a context with our attributes)
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        down: Tensor,
        up: Tensor,
        scale: float,
    ) -> Tensor:
        ctx.save_for_backward(x, weight, down, up)
        ctx.scale = scale
        return F.linear(x, torch.addmm(weight, up, down, alpha=scale), bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401 (a context with our attributes)
        x, weight, down, up = ctx.saved_tensors
        # The folded weight is made again: keeping it would hold a second copy of the model.
        dx = grad @ torch.addmm(weight, up, down, alpha=ctx.scale) if ctx.needs_input_grad[0] else None
        rows, above = x.flatten(0, -2), grad.flatten(0, -2)
        d_down = ((above @ up) * ctx.scale).T @ rows
        d_up = above.T @ ((rows @ down.T) * ctx.scale)
        return dx, None, None, d_down, d_up, None
