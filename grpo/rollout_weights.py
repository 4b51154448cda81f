"""The language model as a rollout needs it: functions on rows of tokens, with no caches and masks around them.

Two forms compute the same. *As trained* calls every projection as the module it is, adapter and all: the very numbers
of the training forward, in any precision. *Merged* folds the adapter into a copy of the weights at the start of a
rollout and joins the projections that read the same input, so that a layer takes four matrix products instead of
twenty-one. Merging changes sums by a rounding of the weights' own type: nothing in float32, but in bfloat16 a small
adapter would drown in the rounding, and the sampled policy would not be the trained one.

The decoder layers' own forward methods are not called, and with them no hook on them. Weights that are spread over
devices are gathered around a whole rollout, or, where they do not fit, layer by layer: then a layer is entered before
its parts are called and left behind them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from datamodules.errors import ConfigError
from grpo.frozen_linear import Linear, frozen_linear
from models.reasoner import Reasoner
from models.sharding import ShardedModel

NO_ROOM_TO_MERGE = (
    "model.grpo.merge_adapter is true, which copies all layers, and sharding.gather is layer, which has no room for "
    "them. Set --model.grpo.merge_adapter null, or --sharding.gather model."
)
"""Why a run whose layers come and go cannot sample from a merged copy of them."""

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

    def before_attention(self, hidden: Rows) -> Rows:
        """See `RolloutLayer`."""
        normed: Tensor = self.layer.input_layernorm(hidden)
        return normed

    def qkv(self, normed: Rows) -> Float[Tensor, "rows heads"]:
        """See `RolloutLayer`."""
        return torch.cat([self.layer.self_attn.q_proj(normed), self.kv(normed)], dim=-1)

    def kv(self, normed: Rows) -> Float[Tensor, "rows heads"]:
        """See `RolloutLayer`."""
        attention = self.layer.self_attn
        return torch.cat([attention.k_proj(normed), attention.v_proj(normed)], dim=-1)

    def after_attention(self, hidden: Rows, attended: Float[Tensor, "rows heads"]) -> Rows:
        """See `RolloutLayer`."""
        hidden = hidden + self.layer.self_attn.o_proj(attended)
        normed = self.layer.post_attention_layernorm(hidden)
        output: Tensor = hidden + self.layer.mlp(normed)
        return output


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


@dataclass(frozen=True)
class RolloutWeights:
    """Everything that turns tokens into logits, but for attention.

    Attributes:
        layers: From the first to the last.
        norm: Normalization after the last layer.
        head: Output head.
        embedding: Token embeddings.
        rotary: Rotary embedding module: a tensor of the right type, and positions (3, 1, tokens), to cos and sin.
        heads: Query heads.
        key_heads: Key heads.
        width: Size of a head.
    """

    layers: tuple[RolloutLayer, ...]
    norm: nn.Module
    head: Linear
    embedding: nn.Embedding
    rotary: nn.Module
    heads: int
    key_heads: int
    width: int

    @property
    def dtype(self) -> torch.dtype:
        """What keys and values are kept in."""
        kind = self.embedding.weight.device.type
        return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else self.embedding.weight.dtype

    @property
    def scale(self) -> float:
        """What attention scores are multiplied by."""
        return float(self.width**-0.5)

    def logits(self, hidden: Rows) -> Float[Tensor, "rows vocab"]:
        """From the last layer's output."""
        return self.head(self.norm(hidden))

    def cos_sin(
        self, positions: Int64[Tensor, "3 1 tokens"]
    ) -> tuple[Float[Tensor, "tokens 1 width"], Float[Tensor, "tokens 1 width"]]:
        """Rotary embedding of M-RoPE positions, to be multiplied with heads."""
        cos, sin = self.rotary(self.embedding.weight[:1], positions)
        return cos[0, :, None], sin[0, :, None]


@torch.no_grad()
def rollout_weights(reasoner: Reasoner, *, merge: bool | None = None) -> RolloutWeights:
    """The weights of the current policy for one rollout.

    Args:
        reasoner: The policy.
        merge: Fold the adapter into a copy of the weights; None does so where nothing is lost, in float32 on the CPU.

    Raises:
        ConfigError: A copy was asked for, and layers are not to be held even once, or it would lack a part of the
            adapter.
    """
    model: Any = reasoner.language_model
    visited = reasoner.visited
    if visited is not None and merge:
        raise ConfigError(NO_ROOM_TO_MERGE)
    if merge and not _is_low_rank_only(reasoner):
        raise ConfigError(
            "model.grpo.merge_adapter is true, but the adapter has parts beside its low-rank product (DoRA, or a "
            "bias), which a copy of the weights would lack. Set --model.grpo.merge_adapter null."
        )
    is_merged = visited is None and (_loses_nothing(reasoner) if merge is None else merge)
    form: Callable[[Any], RolloutLayer] = MergedLayer if is_merged else ModuleLayer
    if visited is not None:
        form = partial(VisitedLayer, model=visited)
    attention = model.layers[0].self_attn
    return RolloutWeights(
        layers=tuple(form(layer) for layer in model.layers),
        norm=model.norm,
        head=frozen_linear(reasoner.lm_head.weight, None) if is_merged else reasoner.lm_head,
        embedding=reasoner.embed_tokens,
        rotary=model.rotary_emb,
        heads=model.config.num_attention_heads,
        key_heads=model.config.num_key_value_heads,
        width=attention.head_dim,
    )


def _loses_nothing(reasoner: Reasoner) -> bool:
    weight, kind = reasoner.embed_tokens.weight, reasoner.device.type
    return (
        kind == "cpu"
        and weight.dtype == torch.float32
        and not torch.is_autocast_enabled(kind)
        and _is_low_rank_only(reasoner)
    )


def _is_low_rank_only(reasoner: Reasoner) -> bool:
    adapters = [module for module in reasoner.language_model.modules() if isinstance(module, LoraLayer)]
    return not any(adapter.lora_variant or any(adapter.lora_bias.values()) for adapter in adapters)


def _normalized(hidden: Rows, norm: Any) -> Rows:  # noqa: ANN401 (a transformers class without useful types)
    """What the module computes, in one kernel."""
    return F.rms_norm(hidden, norm.weight.shape, norm.weight, norm.variance_epsilon)


def _joined(*projections: nn.Module) -> Linear:
    """One linear layer that computes all of these, adapters included."""
    weights, biases = zip(*(_with_adapter(projection) for projection in projections), strict=True)
    return frozen_linear(torch.cat(weights), None if biases[0] is None else torch.cat(biases))


def _with_adapter(projection: Any) -> tuple[Tensor, Tensor | None]:  # noqa: ANN401 (nn.Linear, or peft's wrapper)
    if not isinstance(projection, LoraLayer):
        return projection.weight, projection.bias
    base = projection.get_base_layer()
    weight: Tensor = base.weight
    if not projection.disable_adapters and not projection.merged:
        for name in projection.active_adapters:
            if name in projection.lora_A:
                weight = weight + projection.get_delta_weight(name)
    return weight, base.bias
