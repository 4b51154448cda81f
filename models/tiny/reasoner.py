"""A thinker and processor of the released classes at a size that a laptop trains, made without any download.

Everything is set by size alone: no class is replaced and no method patched. Three sizes differ in kind from the
released ones, each for a reason that shows only when small:

- sound features hop 50 ms instead of 10 ms, which gives 5 sound tokens per second instead of 25 (pooling is fixed);
- the M-RoPE sections interleave time, height and width over all frequencies, because with a head of 32 the released
  split leaves height and width with the slowest frequencies only;
- rope_theta is 1000, as contexts are a few hundred tokens.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import (
    Qwen2_5OmniProcessor,
    Qwen2_5OmniThinkerConfig,
    Qwen2_5OmniThinkerForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
    WhisperFeatureExtractor,
)
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

_MEDIA_TOKENS = {
    "image_token": "<|IMAGE|>",
    "audio_token": "<|AUDIO|>",
    "video_token": "<|VIDEO|>",
    "vision_bos_token": "<|vision_bos|>",
    "vision_eos_token": "<|vision_eos|>",
    "audio_bos_token": "<|audio_bos|>",
    "audio_eos_token": "<|audio_eos|>",
}
_CHAT_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]

_CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_bos|><|IMAGE|><|vision_eos|>"
    "{% elif part['type'] == 'audio' %}<|audio_bos|><|AUDIO|><|audio_eos|>"
    "{% elif part['type'] == 'video' %}<|vision_bos|><|VIDEO|><|vision_eos|>"
    "{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass(frozen=True)
class TinySizes:
    """Sizes of the tiny thinker.

    Attributes:
        hidden: Width of the language model; the towers project to it.
        layers: Its decoder layers.
        heads: Its attention heads.
        key_value_heads: Its key/value heads.
        feed_forward: Width of its feed-forward layers.
        vision_hidden: Width of the vision tower.
        vision_layers: Its layers.
        vision_heads: Its heads.
        vision_feed_forward: Width of its feed-forward layers.
        audio_hidden: Width of the audio tower.
        audio_layers: Its layers.
        audio_feed_forward: Width of its feed-forward layers.
        mel_bins: Mel bands of the sound features.
        glance_side: Side in pixels that video frames are limited to when saved in the processor.
        close_up_side: The same for single images.
    """

    hidden: int = 128
    layers: int = 4
    heads: int = 4
    key_value_heads: int = 2
    feed_forward: int = 384
    vision_hidden: int = 96
    vision_layers: int = 3
    vision_heads: int = 3
    vision_feed_forward: int = 256
    audio_hidden: int = 64
    audio_layers: int = 2
    audio_feed_forward: int = 192
    mel_bins: int = 64
    glance_side: int = 112
    close_up_side: int = 224


def build_tokenizer(lines: Iterable[str], *, vocabulary: int = 768) -> Qwen2Tokenizer:
    """Train a byte-level BPE tokenizer in the form of the released one.

    Args:
        lines: Text it should be short on; any other text still has a spelling in bytes.
        vocabulary: Most tokens, special ones not counted.
    """
    bpe = Tokenizer(models.BPE())
    bpe.normalizer = normalizers.NFC()
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, initial_alphabet=alphabet, show_progress=False)
    bpe.train_from_iterator(lines, trainer)
    learned = json.loads(bpe.to_str())["model"]
    tokenizer = Qwen2Tokenizer(
        vocab=learned["vocab"],
        merges=[tuple(merge) for merge in learned["merges"]],  # type: ignore[misc]  # annotated as strings
        unk_token="<|endoftext|>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=_MEDIA_TOKENS,
        padding_side="left",
        model_max_length=4096,
    )
    tokenizer.add_tokens([*_CHAT_TOKENS, *_MEDIA_TOKENS.values()], special_tokens=True)
    return tokenizer


def build_processor(tokenizer: Qwen2Tokenizer, sizes: TinySizes | None = None) -> Qwen2_5OmniProcessor:
    """The released processor class over a small tokenizer and small feature extractors."""
    sizes = sizes or TinySizes()
    smallest = 28 * 28
    return Qwen2_5OmniProcessor(  # type: ignore[no-untyped-call]
        image_processor=Qwen2VLImageProcessor(
            size={"shortest_edge": smallest, "longest_edge": sizes.close_up_side**2}, temporal_patch_size=2
        ),
        video_processor=Qwen2VLVideoProcessor(
            size={"shortest_edge": smallest, "longest_edge": sizes.glance_side**2}, cap_pixels_per_frame=False
        ),
        feature_extractor=WhisperFeatureExtractor(  # type: ignore[no-untyped-call]
            feature_size=sizes.mel_bins,
            sampling_rate=16_000,
            hop_length=800,
            n_fft=1024,
            chunk_length=10,
            return_attention_mask=True,
        ),
        tokenizer=tokenizer,
        chat_template=_CHAT_TEMPLATE,
    )


def build_thinker(
    tokenizer: Qwen2Tokenizer, sizes: TinySizes | None = None, *, seed: int = 0
) -> Qwen2_5OmniThinkerForConditionalGeneration:
    """A randomly initialised thinker of the released class.

    Args:
        tokenizer: Gives the vocabulary size and the special tokens.
        sizes: How large.
        seed: Of the initialisation.
    """
    sizes = sizes or TinySizes()
    # vision_start_token_id and vision_end_token_id are read by the model but no declared fields of its configuration.
    settings: dict[str, Any] = {
        "text_config": {
            "vocab_size": -(-len(tokenizer) // 64) * 64,
            "hidden_size": sizes.hidden,
            "intermediate_size": sizes.feed_forward,
            "num_hidden_layers": sizes.layers,
            "num_attention_heads": sizes.heads,
            "num_key_value_heads": sizes.key_value_heads,
            "max_position_embeddings": 2048,
            "initializer_range": sizes.hidden**-0.5,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1000.0,
                "mrope_section": [1] * (sizes.hidden // sizes.heads // 2),
            },
            "tie_word_embeddings": True,
            "pad_token_id": tokenizer.pad_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "bos_token_id": None,
        },
        "vision_config": {
            "depth": sizes.vision_layers,
            "hidden_size": sizes.vision_hidden,
            "intermediate_size": sizes.vision_feed_forward,
            "num_heads": sizes.vision_heads,
            # A huge window would allocate its square; this one holds a whole close-up frame.
            "window_size": sizes.close_up_side,
            "out_hidden_size": sizes.hidden,
            "fullatt_block_indexes": list(range(sizes.vision_layers)),
        },
        "audio_config": {
            "num_mel_bins": sizes.mel_bins,
            "encoder_layers": sizes.audio_layers,
            "encoder_attention_heads": 4,
            "encoder_ffn_dim": sizes.audio_feed_forward,
            "d_model": sizes.audio_hidden,
            "max_source_positions": 1500,
            "n_window": 20,
            "output_dim": sizes.hidden,
        },
        "image_token_index": _token(tokenizer, "<|IMAGE|>"),
        "audio_token_index": _token(tokenizer, "<|AUDIO|>"),
        "video_token_index": _token(tokenizer, "<|VIDEO|>"),
        "position_id_per_seconds": 5,
        "seconds_per_chunk": 2,
        "audio_start_token_id": _token(tokenizer, "<|audio_bos|>"),
        "audio_end_token_id": _token(tokenizer, "<|audio_eos|>"),
        "vision_start_token_id": _token(tokenizer, "<|vision_bos|>"),
        "vision_end_token_id": _token(tokenizer, "<|vision_eos|>"),
        "tie_word_embeddings": True,
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        thinker = Qwen2_5OmniThinkerForConditionalGeneration(Qwen2_5OmniThinkerConfig(**settings))
    thinker.generation_config.eos_token_id = tokenizer.eos_token_id
    thinker.generation_config.pad_token_id = tokenizer.pad_token_id
    return thinker


def _token(tokenizer: Qwen2Tokenizer, text: str) -> int:
    """Id of a special token."""
    found = tokenizer.convert_tokens_to_ids(text)
    return found if isinstance(found, int) else found[0]
