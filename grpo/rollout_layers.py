"""A decoder layer as a rollout needs it: functions on rows of tokens, with no caches and masks around them.

All forms compute the same. *As trained* calls every projection as the module it is, adapter and all: the very numbers
of the training forward, in any precision. *Converted* makes the same products, bit for bit, with copies of the adapter
in the type that mixed precision computes in: a projection would convert its two matrices, and its input there and back,
for every token. *Merged* folds the adapter into a copy of the weights at the start of a rollout and joins the
projections that read the same input, so that a layer takes four matrix products instead of twenty-one. Merging changes
sums by a rounding of the weights' own type: nothing in float32, but in bfloat16 a small adapter would drown in the
rounding, and the sampled policy would not be the trained one.

The decoder layers' own forward methods are not called, and with them no hook on them. Weights that are spread over
devices are gathered around a whole rollout, or, where they do not fit, layer by layer: then a layer is entered before
its parts are called and left behind them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from grpo.frozen_linear import Linear, frozen_linear
from models.sharding import ShardedModel

Rows = Float[Tensor, "rows hidden"]


class RolloutLayer(ABC):
    """One decoder layer, without its attention."""

    @abstractmethod
    def before_attention(self, hidden: Rows) -> Rows:
        """Normalize what the projections read."""

    @abstractmethod
    def qkv(self, normed: Rows) -> Float[Tensor, "rows heads"]:
        """Queries, keys and values side by side, all heads flat."""

    @abstractmethod
    def kv(self, normed: Rows) -> Float[Tensor, "rows heads"]:
        """Keys and values alone."""

    @abstractmethod
    def after_attention(self, hidden: Rows, attended: Float[Tensor, "rows heads"]) -> Rows:
        """Output projection and feed-forward, each added to what there was."""


class ModuleLayer(RolloutLayer):
    """A layer as trained."""

    def __init__(self, layer: Any) -> None:  # noqa: ANN401 (a transformers class without useful types)
        self.layer = layer
        attention = layer.self_attn
        self.q: Linear = attention.q_proj
        self.k: Linear = attention.k_proj
        self.v: Linear = attention.v_proj
        self.out: Linear = attention.o_proj
        self.feed_forward: Linear = layer.mlp

    def before_attention(self, hidden: Rows) -> Rows:
        """See `RolloutLayer`."""
        normed: Tensor = self.layer.input_layernorm(hidden)
        return normed

    def qkv(self, normed: Rows) -> Float[Tensor, "rows heads"]:
        """See `RolloutLayer`."""
        return torch.cat([self.q(normed), self.kv(normed)], dim=-1)

    def kv(self, normed: Rows) -> Float[Tensor, "rows heads"]:
        """See `RolloutLayer`."""
        return torch.cat([self.k(normed), self.v(normed)], dim=-1)

    def after_attention(self, hidden: Rows, attended: Float[Tensor, "rows heads"]) -> Rows:
        """See `RolloutLayer`."""
        hidden = hidden + self.out(attended)
        return hidden + self.feed_forward(self.layer.post_attention_layernorm(hidden))


class ConvertedLayer(ModuleLayer):
    """A layer as trained, whose adapter is there in the type that mixed precision computes in."""

    def __init__(self, layer: Any, dtype: torch.dtype) -> None:  # noqa: ANN401 (a transformers class without useful types)
        super().__init__(layer)
        self.q, self.k, self.v, self.out = (_converted(module, dtype) for module in (self.q, self.k, self.v, self.out))
        mlp = layer.mlp
        gate, up, down = (_converted(module, dtype) for module in (mlp.gate_proj, mlp.up_proj, mlp.down_proj))
        self.feed_forward = lambda normed: down(mlp.act_fn(gate(normed)) * up(normed))


class VisitedLayer(ModuleLayer):
    """A layer as trained, whose weights are here from the beginning to the end of its work only."""

    def __init__(self, layer: Any, model: ShardedModel) -> None:  # noqa: ANN401 (a transformers class without useful types)
        super().__init__(layer)
        self.model = model

    def before_attention(self, hidden: Rows) -> Rows:
        """See `RolloutLayer`."""
        self.model.enter(self.layer)
        return super().before_attention(hidden)

    def after_attention(self, hidden: Rows, attended: Float[Tensor, "rows heads"]) -> Rows:
        """See `RolloutLayer`."""
        output = super().after_attention(hidden, attended)
        self.model.leave(self.layer)
        return output


class MergedLayer(RolloutLayer):
    """A layer whose adapter is folded into a copy of its weights."""

    def __init__(self, layer: Any) -> None:  # noqa: ANN401 (a transformers class without useful types)
        mlp = layer.mlp
        self.attention = layer.self_attn
        self.norms = layer.input_layernorm, layer.post_attention_layernorm
        self._qkv = _joined(self.attention.q_proj, self.attention.k_proj, self.attention.v_proj)
        self._out = _joined(self.attention.o_proj)
        self._gate_up = _joined(mlp.gate_proj, mlp.up_proj)
        self._down = _joined(mlp.down_proj)
        self._activation = mlp.act_fn

    def before_attention(self, hidden: Rows) -> Rows:
        """See `RolloutLayer`."""
        return _normalized(hidden, self.norms[0])

    def qkv(self, normed: Rows) -> Float[Tensor, "rows heads"]:
        """See `RolloutLayer`."""
        return self._qkv(normed)

    def kv(self, normed: Rows) -> Float[Tensor, "rows heads"]:
        """See `RolloutLayer`."""
        # Asked of one layer, once per prompt: not worth a copy that stays.
        return _joined(self.attention.k_proj, self.attention.v_proj)(normed)

    def after_attention(self, hidden: Rows, attended: Float[Tensor, "rows heads"]) -> Rows:
        """See `RolloutLayer`."""
        hidden = hidden + self._out(attended)
        gate, up = self._gate_up(_normalized(hidden, self.norms[1])).chunk(2, dim=-1)
        return hidden + self._down(self._activation(gate) * up)


def _normalized(hidden: Rows, norm: Any) -> Rows:  # noqa: ANN401 (a transformers class without useful types)
    """What the module computes, in one kernel."""
    return F.rms_norm(hidden, norm.weight.shape, norm.weight, norm.variance_epsilon)


def _joined(*projections: nn.Module) -> Linear:
    """One linear layer that computes all of these, adapters included."""
    weights, biases = zip(*(_with_adapter(projection) for projection in projections), strict=True)
    return frozen_linear(torch.cat(weights), None if biases[0] is None else torch.cat(biases))


def _with_adapter(projection: Any) -> tuple[Tensor, Tensor | None]:  # noqa: ANN401 (nn.Linear, or peft's wrapper)
    base = _base(projection)
    weight: Tensor = base.weight
    for name in _active(projection):
        weight = weight + projection.get_delta_weight(name)
    return weight, base.bias


def _converted(projection: Any, dtype: torch.dtype) -> Linear:  # noqa: ANN401 (nn.Linear, or peft's wrapper)
    """What the projection computes in mixed precision, with its adapter converted here and now."""
    base: Linear = _base(projection)
    adapters = [
        (projection.lora_A[name].weight.to(dtype), projection.lora_B[name].weight.to(dtype), projection.scaling[name])
        for name in _active(projection)
    ]

    def linear(x: Tensor) -> Tensor:
        output = base(x)
        for down, up, scale in adapters:
            output = output + F.linear(F.linear(x, down), up) * scale
        return output

    return linear


def _base(projection: Any) -> Any:  # noqa: ANN401 (nn.Linear, or peft's wrapper)
    """The layer that adapters act beside."""
    return projection.get_base_layer() if isinstance(projection, LoraLayer) else projection


def _active(projection: Any) -> list[str]:  # noqa: ANN401 (nn.Linear, or peft's wrapper)
    """Adapters that act beside the base weights."""
    if not isinstance(projection, LoraLayer) or projection.disable_adapters or projection.merged:
        return []
    return [name for name in projection.active_adapters if name in projection.lora_A]
