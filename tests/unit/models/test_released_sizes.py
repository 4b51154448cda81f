"""The released geometry on the meta device: no weights, no memory, the real classes."""

import pytest
import torch
from transformers import Qwen2_5OmniThinkerConfig, Qwen2_5OmniThinkerForConditionalGeneration

from models.reasoner import LoRA, Reasoner

# (hidden, layers, heads, key/value heads, feed-forward, vocabulary, tied head) of the published configurations.
TEXT = {
    "3B": (2048, 36, 16, 2, 11008, 151936, False),
    "7B": (3584, 28, 28, 4, 18944, 152064, False),
}


def released_config(size: str) -> Qwen2_5OmniThinkerConfig:
    hidden, layers, heads, kv_heads, feed_forward, vocabulary, tied = TEXT[size]
    return Qwen2_5OmniThinkerConfig(
        text_config={
            "hidden_size": hidden,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": kv_heads,
            "intermediate_size": feed_forward,
            "vocab_size": vocabulary,
            "tie_word_embeddings": tied,
        },
        vision_config={
            "depth": 32,
            "hidden_size": 1280,
            "intermediate_size": 3420,
            "num_heads": 16,
            "out_hidden_size": hidden,
        },
        audio_config={
            "encoder_layers": 32,
            "encoder_attention_heads": 20,
            "encoder_ffn_dim": 5120,
            "d_model": 1280,
            "output_dim": hidden,
        },
        tie_word_embeddings=tied,
    )


@pytest.mark.parametrize(("size", "billions"), [("3B", 4.7), ("7B", 8.9)])
def test_adapter_fits_every_linear_layer_of_the_decoder_and_nothing_else(size, billions):
    """Per decoder layer: q and o are hidden x hidden, k and v hidden x kv, three feed-forward layers; r = 64 each."""
    hidden, layers, heads, kv_heads, feed_forward = TEXT[size][:5]
    kv = hidden // heads * kv_heads
    per_layer = 2 * (hidden + hidden) + 2 * (hidden + kv) + 3 * (hidden + feed_forward)
    with torch.device("meta"):
        reasoner = Reasoner(lora=LoRA(r=64, alpha=128))
        reasoner.attach(Qwen2_5OmniThinkerForConditionalGeneration(released_config(size)), processor=None)
    trained = sum(p.numel() for p in reasoner.parameters() if p.requires_grad)
    total = sum(p.numel() for p in reasoner.parameters())
    assert trained == 64 * per_layer * layers
    assert (total - trained) / 1e9 == pytest.approx(billions, abs=0.1)
    assert all(p.is_meta for p in reasoner.parameters())
