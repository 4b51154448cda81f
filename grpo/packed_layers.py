"""Run a row with shared prompts through the decoder layers of a Qwen2.5-Omni thinker.

Layers are called as the modules they are, so adapters, gradient checkpointing and sharding wrappers work as ever. Their
attention is replaced through the registry that transformers keeps for that purpose; a layer that is called without
`shared_prefix` attends as it did before.

The last layer is cut short: of the prompts only keys and values are needed there, and of all outputs only those that
predict a completion token. With few layers that saves a good part of a long prompt.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from datamodules.errors import ConfigError
from grpo.prefix_attention import Layout, shared_prefix_attention

_NAME = "shared_prefix_"


@dataclass(frozen=True)
class PromptStates:
    """Prompts as the last layer sees them: looked at, with no output of their own.

    Attributes:
        hidden: What the layer would have been given for them.
        norm: The layer's normalization before its attention.
        cos: Rotary embedding of their positions.
        sin: The same.
        layout: Of the rows that the layer is given.
    """

    hidden: Float[Tensor, "1 prompts hidden"]
    norm: nn.Module
    cos: Float[Tensor, "1 prompts width"]
    sin: Float[Tensor, "1 prompts width"]
    layout: Layout

    def keys_and_values(self, attention: nn.Module) -> tuple[Tensor, Tensor]:
        """What the layer's attention looks at, both (1, key heads, prompts, width)."""
        normed, width = self.norm(self.hidden), self.cos.shape[-1]
        projections = cast(nn.Module, attention.k_proj), cast(nn.Module, attention.v_proj)
        k, v = (project(normed).unflatten(-1, (-1, width)).transpose(1, 2) for project in projections)
        return rotate(k, self.cos[:, None], self.sin[:, None]), v


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding in the form that pairs the first half of a head with the second."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


def packed_states(
    language_model: nn.Module,
    embeddings: Float[Tensor, "1 tokens hidden"],
    positions: Int64[Tensor, "3 1 tokens"],
    *,
    layout: Layout,
    kept: Int64[Tensor, "kept"],
    kept_layout: Layout,
) -> Float[Tensor, "kept hidden"]:
    """Last hidden states of some tokens of a row.

    Args:
        language_model: The text model, adapter layers inside.
        embeddings: Of the row: prompts, then the tail.
        positions: M-RoPE positions.
        layout: Who sees whom.
        kept: The tokens that are wanted, all of the tail among them.
        kept_layout: The same for the last layer, where the kept tokens are the tail.

    Returns:
        One state per kept token, with gradient where autograd is on.
    """
    install(language_model)
    model: Any = language_model
    cos, sin = model.rotary_emb(embeddings, positions)
    hidden = embeddings
    for layer in model.layers[:-1]:
        hidden = layer(hidden, position_embeddings=(cos, sin), shared_prefix=layout)
    last, prompts = model.layers[-1], slice(layout.prompt_tokens)
    seen = PromptStates(hidden[:, prompts], last.input_layernorm, cos[:, prompts], sin[:, prompts], kept_layout)
    rotary = cos.index_select(1, kept), sin.index_select(1, kept)
    hidden = last(hidden.index_select(1, kept), position_embeddings=rotary, shared_prefix=seen)
    states: Tensor = model.norm(hidden)[0]
    return states


def install(language_model: nn.Module) -> None:
    """Let a model's layers take `shared_prefix`, a `Layout` or `PromptStates`; a second call does nothing.

    It stays in place: gradient checkpointing reads the setting again in the backward pass.

    Raises:
        ConfigError: Some layers attend to a sliding window, which is not known here.
    """
    config: Any = language_model.config
    before = config._attn_implementation
    if before.startswith(_NAME):
        return
    if any(kind != "full_attention" for kind in config.layer_types):
        raise ConfigError(
            f"model.grpo.engine is shared, which expects full attention in every layer; found {config.layer_types}. "
            "Set --model.grpo.engine plain."
        )
    # "eager" is no registered function, because every model brings its own; what is computed is the same.
    otherwise = before if before in ALL_ATTENTION_FUNCTIONS else "sdpa"

    def attention(module: nn.Module, q: Tensor, k: Tensor, v: Tensor, *args: Any, **more: Any) -> Any:  # noqa: ANN401
        shared = more.pop("shared_prefix", None)
        if shared is None:
            return ALL_ATTENTION_FUNCTIONS[otherwise](module, q, k, v, *args, **more)
        return _attention(module, q, k, v, shared, more["scaling"]).transpose(1, 2), None

    AttentionInterface.register(_NAME + otherwise, attention)
    AttentionMaskInterface.register(_NAME + otherwise, ALL_MASK_ATTENTION_FUNCTIONS[otherwise])
    config._attn_implementation = _NAME + otherwise


def _attention(
    module: nn.Module, q: Tensor, k: Tensor, v: Tensor, shared: Layout | PromptStates, scale: float
) -> Tensor:
    layout, states = shared if isinstance(shared, Layout) else shared.layout, [q, k, v]
    if isinstance(shared, PromptStates):
        states += shared.keys_and_values(module)
    if torch.is_autocast_enabled(q.device.type):
        # Rotated queries and keys are float32 here and values are not.
        states = [x.to(torch.get_autocast_dtype(q.device.type)) for x in states]
    return shared_prefix_attention(layout, *states, scale=scale)
