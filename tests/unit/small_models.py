"""Small real objects that several test packages need: random thinkers, clips made of arrays, prompts of noise."""

from collections.abc import Sequence

import numpy as np
import torch

from datamodules.masks import MaskTrack
from datamodules.records import Clip, FrameBudget, Frames
from models.processing import EncodedPrompt
from models.reasoner import LoRA, Reasoner
from models.thinker import decoder_of
from models.tiny.reasoner import TinySizes, build_processor, build_thinker, build_tokenizer


class ArrayFrames(Frames):
    """Frames that are already in memory."""

    def __init__(self, pixels: np.ndarray, fps: float = 1.0) -> None:
        self.pixels, self.fps, self.count = pixels, fps, len(pixels)

    @property
    def size(self) -> tuple[int, int]:
        return self.pixels.shape[1:3]

    def read(self, indices: Sequence[int], *, max_pixels: int | None = None) -> np.ndarray:
        return self.pixels[list(indices)]


def noisy_clip(name: str = "clip", *, seconds: int = 4, has_audio: bool = True, is_null: bool = False, **more) -> Clip:
    """A 56 x 56 clip of noise at one frame per second; one square object, or none when it is null."""
    rng = np.random.default_rng(sum(name.encode()))
    pixels = rng.integers(0, 255, (seconds, 56, 56, 3), dtype=np.uint8)
    sound = rng.standard_normal(16_000 * seconds).astype(np.float32) * 0.1
    masks = np.zeros((seconds, 0 if is_null else 1, 56, 56), dtype=bool)
    masks[:, :, 8:24, 8:24] = True
    return Clip(
        id=name,
        task="refavs",
        split="train",
        kind="null" if is_null else "seen",
        expression="the red circle",
        frames=ArrayFrames(pixels),
        budget=FrameBudget(glance_frames=4, glance_max_pixels=56 * 56),
        is_null=is_null,
        audio_source=(lambda: sound) if has_audio else None,
        mask_source=lambda: MaskTrack.from_dense(masks),
        **more,
    )


def random_reasoner(
    seed: int = 0,
    *,
    gain: float = 1.0,
    adapter_scale: float = 0.05,
    dropout: float = 0.0,
    gradient_checkpointing: bool = False,
    key_value_heads: int = 1,
    layers: int = 2,
) -> Reasoner:
    """A random thinker of the released classes, two layers deep, whose adapter already differs from zero.

    Args:
        seed: Of all weights.
        gain: Multiplies the final norm; more than 1 makes the next-token distribution less flat.
        adapter_scale: Standard deviation of the adapter's second matrices; 0 leaves the adapter without effect.
        dropout: In the adapter.
        gradient_checkpointing: As in `Reasoner`.
        key_value_heads: Heads of keys, beside twice as many of queries.
        layers: Decoder layers.
    """
    tokenizer = build_tokenizer(["find the red circle"], vocabulary=270)
    sizes = TinySizes(
        hidden=64 * key_value_heads,
        layers=layers,
        heads=2 * key_value_heads,
        key_value_heads=key_value_heads,
        feed_forward=96,
        vision_layers=1,
        audio_layers=1,
    )
    thinker = build_thinker(tokenizer, sizes, seed=seed)
    decoder_of(thinker).norm.weight.data.mul_(gain)
    reasoner = Reasoner(
        template="short", lora=LoRA(r=4, alpha=8, dropout=dropout), gradient_checkpointing=gradient_checkpointing
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        reasoner.attach(thinker, build_processor(tokenizer, sizes))
        for name, parameter in reasoner.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=adapter_scale)
    return reasoner


def random_prompt(reasoner: Reasoner, length: int, *, seed: int = 0) -> EncodedPrompt:
    """A prompt of noise whose three axes of positions run apart, as those of sound and frames do."""
    generator = torch.Generator().manual_seed(seed)
    width = reasoner.embed_tokens.weight.shape[1]
    embeddings = torch.randn(1, length, width, generator=generator) * reasoner.embed_tokens.weight.std().item()
    positions = torch.randint(0, 3, (3, 1, length), generator=generator).cumsum(dim=2)
    ids = torch.zeros(1, length, dtype=torch.long)
    return EncodedPrompt(f"prompt {seed}", ids, embeddings, positions, int(positions.max()) + 1)
