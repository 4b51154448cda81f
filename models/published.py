"""The released thinkers by their published configurations: sizes without weights, for planning and for tests.

Reference:
    ``thinker_config`` of the ``config.json`` files of Qwen/Qwen2.5-Omni-3B and Qwen/Qwen2.5-Omni-7B.
"""

from __future__ import annotations

from transformers import Qwen2_5OmniThinkerConfig

# (hidden, layers, heads, key/value heads, feed-forward, vocabulary); the output head is a matrix of its own.
_TEXT = {
    "Qwen/Qwen2.5-Omni-3B": (2048, 36, 16, 2, 11008, 151936),
    "Qwen/Qwen2.5-Omni-7B": (3584, 28, 28, 4, 18944, 152064),
}
RELEASED = tuple(_TEXT)
"""Hub ids whose configuration is known here."""


def released_config(hub_id: str) -> Qwen2_5OmniThinkerConfig:
    """The thinker's configuration of a released model; both sizes have the same towers.

    Raises:
        KeyError: The id is not one of `RELEASED`.
    """
    hidden, layers, heads, kv_heads, feed_forward, vocabulary = _TEXT[hub_id]
    return Qwen2_5OmniThinkerConfig(
        text_config={
            "hidden_size": hidden,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": kv_heads,
            "intermediate_size": feed_forward,
            "vocab_size": vocabulary,
            "tie_word_embeddings": False,
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
        tie_word_embeddings=False,
    )
