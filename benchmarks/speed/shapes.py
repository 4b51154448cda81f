"""Models with random weights for measuring speed: no download, small ones for a CPU and the published sizes for a GPU.

Two families. `vl` is Qwen2.5-VL, which TRL supports best: its forward makes logits for the last position only when
generation reads the prompt. `omni` is the thinker of Qwen2.5-Omni, which this project trains. Speed does not depend on
what weights hold.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2_5OmniProcessor,
    Qwen2_5OmniThinkerConfig,
    Qwen2_5OmniThinkerForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
    WhisperFeatureExtractor,
)

from models.tiny.reasoner import build_tokenizer

Family = Literal["vl", "omni"]

PATCH = 28
"""Pixels on a side of what becomes one token of an image."""

_VL_TOKENS = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
_MEDIA = {
    "vl": ("<|vision_start|><|image_pad|><|vision_end|>", "<|vision_start|><|video_pad|><|vision_end|>"),
    "omni": ("<|vision_bos|><|IMAGE|><|vision_eos|>", "<|vision_bos|><|VIDEO|><|vision_eos|>"),
}


@dataclass(frozen=True)
class Shape:
    """Sizes of a model.

    Attributes:
        hidden: Width of the language model.
        layers: Its decoder layers.
        heads: Its attention heads.
        key_heads: Its heads of keys and values.
        feed_forward: Width of its feed-forward layers.
        vocabulary: Entries of the output head.
        vision_hidden: Width of the vision tower.
        vision_layers: Its layers.
        vision_heads: Its heads.
        vision_feed_forward: Width of its feed-forward layers.
        audio_hidden: Width of the audio tower (`omni` only); its feed-forward layers are four times as wide.
        audio_layers: Its layers.
        audio_heads: Its heads.
    """

    hidden: int
    layers: int
    heads: int
    key_heads: int
    feed_forward: int
    vocabulary: int
    vision_hidden: int
    vision_layers: int
    vision_heads: int
    vision_feed_forward: int
    audio_hidden: int = 64
    audio_layers: int = 2
    audio_heads: int = 2


SHAPES = {
    # For tests: seconds.
    "quick": Shape(64, 2, 2, 1, 96, 640, 32, 1, 1, 64),
    # The output head is as large a part of the language model as at 3B; the vision tower costs about a quarter of it.
    "small": Shape(512, 4, 8, 2, 1536, 4160, 64, 2, 1, 192),
    # The published sizes of Qwen2.5-Omni.
    "3b": Shape(2048, 36, 16, 2, 11008, 151936, 1280, 32, 16, 3420, 1280, 32, 20),
    "7b": Shape(3584, 28, 28, 4, 18944, 152064, 1280, 32, 16, 3420, 1280, 32, 20),
}


def with_vocabulary(shape: Shape, vocabulary: int | None) -> Shape:
    """The same shape with another output head; None keeps it."""
    return shape if vocabulary is None else replace(shape, vocabulary=vocabulary)


def build_model(
    family: Family, shape: Shape, *, device: torch.device, dtype: torch.dtype, seed: int = 0
) -> tuple[Any, Any]:
    """A model with random weights, and its processor.

    Args:
        family: Which class.
        shape: How large; its vocabulary should hold the tokenizer's some 600 entries.
        device: Where the weights are made.
        dtype: Their type.
        seed: Of the weights.

    Returns:
        Model and processor, as `from_pretrained` would give them.
    """
    tokenizer = build_tokenizer([" ".join(_words(400))], vocabulary=500)
    tokenizer.add_tokens(_VL_TOKENS, special_tokens=True)
    config = _vl_config(tokenizer, shape) if family == "vl" else _omni_config(tokenizer, shape)
    # The project's reasoner asks every thinker how its positions count time; images have none.
    config.position_id_per_seconds, config.seconds_per_chunk = 25, 2
    torch.manual_seed(seed)
    made = Qwen2_5_VLForConditionalGeneration if family == "vl" else Qwen2_5OmniThinkerForConditionalGeneration
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    with device:
        model = made(config)
    torch.set_default_dtype(before)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.config._name_or_path = f"random-{family}"
    return model, _processor(family, tokenizer)


def _words(count: int) -> list[str]:
    rng = np.random.default_rng(0)
    return ["".join(chr(97 + letter) for letter in rng.integers(0, 26, rng.integers(2, 9))) for _ in range(count)]


def _processor(family: Family, tokenizer: Any) -> Any:
    image, video = _MEDIA[family]
    template = (
        "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
        "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
        "{% if part['type'] == 'image' %}" + image + "{% elif part['type'] == 'video' %}" + video + ""
        "{% elif part['type'] == 'audio' %}<|audio_bos|><|AUDIO|><|audio_eos|>"
        "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    size = {"shortest_edge": PATCH**2, "longest_edge": 4096 * PATCH**2}
    parts = {
        "image_processor": Qwen2VLImageProcessor(size=size),
        "video_processor": Qwen2VLVideoProcessor(size=size),
        "tokenizer": tokenizer,
        "chat_template": template,
    }
    if family == "vl":
        tokenizer.image_token, tokenizer.video_token = "<|image_pad|>", "<|video_pad|>"
        return Qwen2_5_VLProcessor(**parts)
    return Qwen2_5OmniProcessor(feature_extractor=WhisperFeatureExtractor(feature_size=128), **parts)


def _text_config(tokenizer: Any, shape: Shape) -> dict[str, Any]:
    width = shape.hidden // shape.heads
    return {
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.feed_forward,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.key_heads,
        "max_position_embeddings": 32768,
        # Wide enough for next-token distributions that are not flat.
        "initializer_range": 0.04,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 1e6,
            "mrope_section": [width // 8, width * 3 // 16, width * 3 // 16],
        },
        "tie_word_embeddings": False,
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": None,
    }


def _vision_config(shape: Shape) -> dict[str, Any]:
    full = [7, 15, 23, 31] if shape.vision_layers == 32 else [shape.vision_layers - 1]
    return {
        "depth": shape.vision_layers,
        "hidden_size": shape.vision_hidden,
        "intermediate_size": shape.vision_feed_forward,
        "num_heads": shape.vision_heads,
        "out_hidden_size": shape.hidden,
        "window_size": 112,
        "fullatt_block_indexes": full,
    }


def _vl_config(tokenizer: Any, shape: Shape) -> Qwen2_5_VLConfig:
    start, end, image, video = (tokenizer.convert_tokens_to_ids(token) for token in _VL_TOKENS)
    return Qwen2_5_VLConfig(
        text_config=_text_config(tokenizer, shape),
        vision_config=_vision_config(shape),
        image_token_id=image,
        video_token_id=video,
        vision_start_token_id=start,
        vision_end_token_id=end,
        tie_word_embeddings=False,
    )


def _omni_config(tokenizer: Any, shape: Shape) -> Qwen2_5OmniThinkerConfig:
    token = tokenizer.convert_tokens_to_ids
    return Qwen2_5OmniThinkerConfig(
        text_config=_text_config(tokenizer, shape),
        vision_config=_vision_config(shape),
        audio_config={
            "encoder_layers": shape.audio_layers,
            "encoder_attention_heads": shape.audio_heads,
            "encoder_ffn_dim": 4 * shape.audio_hidden,
            "d_model": shape.audio_hidden,
            "output_dim": shape.hidden,
        },
        image_token_index=token("<|IMAGE|>"),
        audio_token_index=token("<|AUDIO|>"),
        video_token_index=token("<|VIDEO|>"),
        audio_start_token_id=token("<|audio_bos|>"),
        audio_end_token_id=token("<|audio_eos|>"),
        vision_start_token_id=token("<|vision_bos|>"),
        vision_end_token_id=token("<|vision_eos|>"),
        tie_word_embeddings=False,
    )
