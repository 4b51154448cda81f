"""The language model as a rollout needs it: its layers (`grpo.rollout_layers`) and its two ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int64
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from datamodules.errors import ConfigError
from grpo.frozen_linear import Linear, frozen_linear
from grpo.rollout_layers import ConvertedLayer, MergedLayer, ModuleLayer, RolloutLayer, Rows, VisitedLayer
from models.reasoner import Reasoner

NO_ROOM_TO_MERGE = (
    "model.grpo.merge_adapter is true, which copies all layers, and sharding.gather is layer, which has no room for "
    "them. Set --model.grpo.merge_adapter null, or --sharding.gather model."
)
"""Why a run whose layers come and go cannot sample from a merged copy of them."""


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
    attention = model.layers[0].self_attn
    return RolloutWeights(
        layers=tuple(map(_form(reasoner, is_merged=is_merged), model.layers)),
        norm=model.norm,
        head=frozen_linear(reasoner.lm_head.weight, None) if is_merged else reasoner.lm_head,
        embedding=reasoner.embed_tokens,
        rotary=model.rotary_emb,
        heads=model.config.num_attention_heads,
        key_heads=model.config.num_key_value_heads,
        width=attention.head_dim,
    )


def _form(reasoner: Reasoner, *, is_merged: bool) -> Callable[[Any], RolloutLayer]:
    """What makes a layer into one of a rollout."""
    kind = reasoner.device.type
    if is_merged:
        return MergedLayer
    if reasoner.visited is not None:
        return partial(VisitedLayer, model=reasoner.visited)
    if torch.is_autocast_enabled(kind) and _is_low_rank_only(reasoner):
        return partial(ConvertedLayer, dtype=torch.get_autocast_dtype(kind))
    return ModuleLayer


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
