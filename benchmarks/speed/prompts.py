"""Prompts of an exact length that are mostly images, as both sides read them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from models.processing import EncodedPrompt
from models.reasoner import LoRA, Reasoner
from models.thinker import multimodal_part
from speed.shapes import PATCH, Family

Conversation = list[dict[str, Any]]


def image_prompt(processor: Any, tokens: int, *, seed: int) -> Conversation:
    """A question about images: about 95 % of its tokens are theirs, at most 1024 per image.

    Args:
        processor: Counts the tokens.
        tokens: Length of the whole prompt, chat template included; at least 64.
        seed: Of pixels and words.
    """
    rng = np.random.default_rng(seed)
    images = max(1, tokens // 1024)
    rows = max(1, int(((0.95 * tokens - 24) / images) ** 0.5))
    columns = max(1, int((0.95 * tokens - 24) / images / rows))
    pictures = [
        Image.fromarray(rng.integers(0, 255, (rows * PATCH, columns * PATCH, 3), dtype=np.uint8)) for _ in range(images)
    ]
    text = ""
    # Single letters between spaces are one token each; a letter without a space may merge with its neighbour.
    while (missing := tokens - prompt_length(processor, question(pictures, text))) > 0:
        text += "".join(f" {letter}" for letter in rng.choice(list("abcdefgh"), max(1, missing // 2)))
    if missing:
        raise ValueError(f"expected a prompt of {tokens} tokens, found {tokens - missing} the nearest")
    return question(pictures, text)


def question(pictures: list[Image.Image], text: str) -> Conversation:
    """One turn of a user: pictures, then text."""
    shown = [{"type": "image", "image": picture} for picture in pictures]
    return [{"role": "user", "content": [*shown, {"type": "text", "text": text}]}]


def prompt_length(processor: Any, conversation: Conversation) -> int:
    """Tokens of a conversation without running the image processor."""
    pictures = [part["image"] for part in conversation[0]["content"] if part["type"] == "image"]
    text = processor.apply_chat_template([conversation], tokenize=False, add_generation_prompt=True)
    ids = processor.tokenizer(text).input_ids[0]
    return len(ids) - len(pictures) + sum(p.width // PATCH * (p.height // PATCH) for p in pictures)


def read_prompt(processor: Any, conversation: Conversation, device: torch.device) -> dict[str, Tensor]:
    """What the processor makes of a conversation."""
    inputs = processor.apply_chat_template(
        [conversation], tokenize=True, return_dict=True, return_tensors="pt", add_generation_prompt=True
    )
    return {name: value.to(device) for name, value in inputs.items()}


class PartsReasoner(Reasoner):
    """The project's reasoner, asked in the form that TRL knows: media apart from each other, images among them."""

    def __init__(self, family: Family, model: Any, processor: Any, *, lora: LoRA, checkpointing: bool = False) -> None:
        """Freeze a model and put the adapter on it.

        Args:
            family: Which class it is of.
            model: From `build_model`.
            processor: The same.
            lora: The adapter.
            checkpointing: Recompute activations in the backward pass.
        """
        super().__init__(lora=lora, gradient_checkpointing=checkpointing)
        self.family = family
        self.attach(model, processor)

    @torch.no_grad()
    def encode_inputs(self, inputs: dict[str, Tensor]) -> EncodedPrompt:
        """Run the towers once over images, videos and sounds that stand apart; see `Reasoner.encode`."""
        model, ids = multimodal_part(self.thinker), inputs["input_ids"]
        embeddings = self.embed_tokens(ids)
        for token_id, features in self._features(inputs):
            where = (ids == token_id).unsqueeze(-1)
            embeddings = embeddings.masked_scatter(where, features.to(embeddings.dtype))
        images, videos = inputs.get("image_grid_thw"), inputs.get("video_grid_thw")
        if self.family == "vl":
            seconds = inputs.get("second_per_grid_ts")
            positions, _ = model.get_rope_index(ids, inputs["mm_token_type_ids"], images, videos, seconds)
        else:
            sounds = inputs["feature_attention_mask"].sum(-1) if "input_features" in inputs else None
            seconds = inputs.get("video_second_per_grid")
            positions, _ = model.get_rope_index(ids, images, videos, torch.ones_like(ids), False, sounds, seconds)
        return EncodedPrompt("prompt", ids.cpu(), embeddings, positions.long(), int(positions.max()) + 1)

    def _features(self, inputs: dict[str, Tensor]) -> Iterator[tuple[int, Tensor]]:
        model: Any = multimodal_part(self.thinker)
        if "pixel_values" in inputs:
            found = model.get_image_features(inputs["pixel_values"], inputs["image_grid_thw"]).pooler_output
            yield model.config.image_token_id, torch.cat(tuple(found))
        if "pixel_values_videos" in inputs:
            found = model.get_video_features(inputs["pixel_values_videos"], inputs["video_grid_thw"]).pooler_output
            yield model.config.video_token_id, torch.cat(tuple(found))
        if "input_features" in inputs:
            found = model.get_audio_features(inputs["input_features"], inputs["feature_attention_mask"])
            yield model.config.audio_token_id, found.last_hidden_state
