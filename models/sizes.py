"""How large a reasoner is, counted on the meta device: the real classes, no weights, no memory."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from transformers import Qwen2_5OmniThinkerConfig

from models.adapter import LoRA, put_on
from models.published import RELEASED, released_config
from models.sharded_loading import on_meta, read_config
from models.thinker import decoder_of


@dataclass(frozen=True)
class ReasonerSizes:
    """Weights of the parts of a reasoner, and the widths that its memory depends on.

    Attributes:
        decoder: Weights of all decoder layers, without the adapter.
        ends: Embeddings, output head and norms, and what the towers have outside their blocks.
        towers: Weights of the vision blocks and the sound layers.
        adapter: Weights that are trained.
        layers: Decoder layers.
        hidden: Width of the decoder.
        feed_forward: Inner width of its feed-forward layers.
        key_value: Width of a layer's keys, and of its values.
        rank: Of the adapter; 0 without one.
        vocabulary: Tokens that the head tells apart.
        patch: Side in pixels of what one video token sees.
        frames_per_token: Frames that one video token covers.
    """

    decoder: int
    ends: int
    towers: int
    adapter: int
    layers: int
    hidden: int
    feed_forward: int
    key_value: int
    rank: int
    vocabulary: int
    patch: int
    frames_per_token: int

    @property
    def base(self) -> int:
        """All frozen weights."""
        return self.decoder + self.ends + self.towers

    @property
    def layer(self) -> int:
        """Weights of one decoder layer."""
        return self.decoder // self.layers


@lru_cache
def sizes_of(path: str, lora: LoRA | None) -> ReasonerSizes:
    """Count the weights of the model in a folder or at a hub id; see `measure`."""
    return measure(find_config(path), lora)


def find_config(path: str) -> Qwen2_5OmniThinkerConfig:
    """The configuration of a folder, or of a hub id; the released ones need no network."""
    return released_config(path) if path in RELEASED and not Path(path).is_dir() else read_config(path)


def measure(config: Qwen2_5OmniThinkerConfig, lora: LoRA | None) -> ReasonerSizes:
    """Count the weights of a configuration.

    Args:
        config: Of the thinker.
        lora: The adapter to put on; None for none.
    """
    thinker: Any = on_meta(config, dtype=torch.bfloat16)
    thinker.requires_grad_(False)
    if lora is not None:
        with torch.device("meta"):
            put_on(thinker, lora, None)
    blocks = [m for m in thinker.modules() if type(m).__name__.endswith(("VisionBlock", "AudioEncoderLayer"))]
    layers = list(decoder_of(thinker).layers)  # type: ignore[arg-type]
    decoder, towers = _frozen(layers), _frozen(blocks)
    text: Any = config.get_text_config()
    vision: Any = config.vision_config
    return ReasonerSizes(
        decoder=decoder,
        ends=_frozen([thinker]) - decoder - towers,
        towers=towers,
        adapter=sum(p.numel() for p in thinker.parameters() if p.requires_grad),
        layers=len(layers),
        hidden=text.hidden_size,
        feed_forward=text.intermediate_size,
        key_value=text.hidden_size // text.num_attention_heads * text.num_key_value_heads,
        rank=lora.r if lora is not None else 0,
        vocabulary=text.vocab_size,
        patch=vision.patch_size * vision.spatial_merge_size,
        frames_per_token=vision.temporal_patch_size,
    )


def _frozen(modules: list[Any]) -> int:
    return sum(p.numel() for module in modules for p in module.parameters() if not p.requires_grad)
