"""Greedy answers to many questions about a few images, each of which is read once.

Keys and values of all images, with what stands before them, are put one behind the other into a single row. Behind them
come the tokens of all questions, and then those of their answers, one of each answer at a time::

    ████████ ████████ ████████ aaaaaa bbb cccc dd abcd abcd abd abd ad    a, b: about the first image; c, d: the others

A token sees its image and the earlier tokens of its own question and answer, and its position counts on from the image
as if nothing else were there: what is written is what the question alone would get. A question costs its own tokens,
not those of its image, in time and in memory, and nothing is padded. When a turn has ended, its keys and values leave,
and those of an image with its last question.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from transformers import DynamicCache

from models.image_answers import Answerer, ImageQuestion, Images
from models.thinker import multimodal_part

IMAGES_AT_ONCE = 4
"""Images that are read together: enough work for a GPU, and no more memory than that takes."""


def takes_masks(language_model: nn.Module) -> bool:
    """Whether attention takes any mask over keys: PyTorch's own does, also where it stands behind another name."""
    config: Any = language_model.config
    return str(config._attn_implementation).endswith("sdpa")


def shared_answers(
    reasoner: Answerer, images: Images, questions: Sequence[ImageQuestion], *, max_new_tokens: int
) -> list[list[int]]:
    """Answer questions greedily, the images read once each.

    Args:
        reasoner: The model, in evaluation mode; `takes_masks` holds for it.
        images: RGB, all of one size; those that nothing is asked about are not read.
        questions: At least one.
        max_new_tokens: Longest answer, at least 1.

    Returns:
        Tokens of each answer, at least one; the end of turn is among them when it was written.
    """
    shown = sorted({image for image, _ in questions})
    row = _Row(reasoner, [images[image] for image in shown], [shown.index(image) for image, _ in questions])
    new = {number: reasoner.builder.turn_ids(text, media="image") for number, (_, text) in enumerate(questions)}
    answers: list[list[int]] = [[] for _ in questions]
    while new:
        tokens = dict(zip(new, row.read(new).argmax(dim=-1).tolist(), strict=True))
        for number, token in tokens.items():
            answers[number].append(token)
        new = {
            number: [token]
            for number, token in tokens.items()
            if token not in reasoner.end_of_turn_ids and len(answers[number]) < max_new_tokens
        }
    return answers


class _Row:
    """Keys and values of images, and of the questions behind them.

    Attributes:
        owners: Whose each of them is: a question's by its number, an image's by its own counted down from -1.
    """

    def __init__(self, reasoner: Answerer, images: Images, image_of: Sequence[int]) -> None:
        """Read the images.

        Args:
            reasoner: The model.
            images: At least one.
            image_of: Image of each question.
        """
        self._reasoner = reasoner
        self._cache, self._start = _read(reasoner, images)
        self._image_of = torch.tensor([-1 - image for image in image_of], device=reasoner.device)
        own = -1 - torch.arange(len(images), device=reasoner.device)
        self.owners = own.repeat_interleave(self._cache.get_seq_length() // len(images))
        self._written: Counter[int] = Counter()

    def read(self, new: Mapping[int, Sequence[int]]) -> Float[Tensor, "questions vocabulary"]:
        """Append tokens to questions; the logits of the next token of each, in order.

        Args:
            new: Tokens by question, at least one each; questions that are left out never come back.
        """
        self._keep(list(new))
        line, ends = [], []
        for number, tokens in new.items():
            start = self._start + self._written[number]
            line += [(token, number, start + place) for place, token in enumerate(tokens)]
            ends.append(len(line) - 1)
            self._written[number] += len(tokens)
        ids, owners, positions = torch.tensor(line, device=self.owners.device).T
        self.owners = torch.cat([self.owners, owners])
        hidden = self._reasoner.language_model(
            inputs_embeds=self._reasoner.embed_tokens(ids)[None],
            attention_mask=self._seen(len(line))[None, None],
            position_ids=positions.expand(3, 1, -1),
            past_key_values=self._cache,
            use_cache=True,
        ).last_hidden_state[0]
        logits: Tensor = self._reasoner.lm_head(hidden[ends])
        return logits

    def _keep(self, numbers: list[int]) -> None:
        """Drop all other questions, and images that none of these is about."""
        if self._written.keys() <= set(numbers):
            return
        chosen = torch.tensor(numbers, device=self.owners.device)
        kept = torch.isin(self.owners, torch.cat([chosen, self._image_of[chosen]])).nonzero()[:, 0]
        layers: list[Any] = self._cache.layers
        for layer in layers:
            layer.keys, layer.values = layer.keys[:, :, kept], layer.values[:, :, kept]
        self.owners = self.owners[kept]
        self._written = Counter({number: self._written[number] for number in numbers})

    def _seen(self, new: int) -> Bool[Tensor, "new keys"]:
        """What the last so many tokens look at, all of them tokens of questions."""
        owners, keys = self.owners[-new:, None], torch.arange(len(self.owners), device=self.owners.device)
        is_mine = (self.owners == owners) | (self.owners == self._image_of[owners])
        return is_mine & (keys <= keys[-new:, None])


def _read(reasoner: Answerer, images: Images) -> tuple[DynamicCache, int]:
    """Keys and values of images, one behind the other, and the position that follows each of them."""
    parts, start = [], 0
    for first in range(0, len(images), IMAGES_AT_ONCE):
        cache, start = _read_together(reasoner, images[first : first + IMAGES_AT_ONCE])
        parts.append(cache)
    row = DynamicCache()
    for index in range(len(parts[0].layers)):
        # What has been copied is let go layer by layer.
        layers: list[Any] = [part.layers.pop(0) for part in parts]
        row.update(_behind_each_other([x.keys for x in layers]), _behind_each_other([x.values for x in layers]), index)
    return row, start


def _behind_each_other(
    states: Sequence[Float[Tensor, "images heads prefix width"]],
) -> Float[Tensor, "1 heads keys width"]:
    return torch.cat([some.transpose(0, 1).flatten(1, 2) for some in states], dim=1)[None]


def _read_together(reasoner: Answerer, images: Images) -> tuple[DynamicCache, int]:
    model = multimodal_part(reasoner.thinker)
    inputs = {name: value.to(reasoner.device) for name, value in reasoner.builder.images_only(images).items()}
    ids, grid, embeddings = inputs["input_ids"], inputs["image_grid_thw"], reasoner.embed_tokens(inputs["input_ids"])
    features = torch.cat(list(model.get_image_features(inputs["pixel_values"], grid).pooler_output))
    stands = (ids == model.config.image_token_id)[:, :, None]
    positions, _ = model.get_rope_index(ids, grid, None, torch.ones_like(ids))
    cache = DynamicCache(config=reasoner.thinker.config.get_text_config())
    reasoner.language_model(
        inputs_embeds=embeddings.masked_scatter(stands, features.to(embeddings.dtype)),
        position_ids=positions.long(),
        past_key_values=cache,
        use_cache=True,
    )
    return cache, int(positions.max()) + 1
