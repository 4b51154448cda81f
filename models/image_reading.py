"""Greedy answers to many questions about a few images, each of which is read once.

An image and what stands before it are read into a row of keys and values. Behind it come the tokens of all questions
about it, and then those of their answers, one of each answer at a time::

    image 1  ████████ aaaaaa bbb abababababab        a, b: two questions about the first image, and their answers
    image 2  ████████ cccc      c c c c c c          c: one about the second

A token sees its image and the earlier tokens of its own question and answer, and its position counts on from the image
as if nothing else were there: what is written is what the question alone would get. A question costs its own tokens,
not those of the image, in time and in memory. A question whose turn has ended leaves at once, and an image with its
last question.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from transformers import DynamicCache

from models.image_answers import Answerer, ImageQuestion, Images
from models.thinker import multimodal_part

IMAGES_AT_ONCE = 4
"""Images that are read together: enough work for a GPU, and no more memory than that takes."""

_NOBODY = -1
"""Whose token a filler is."""


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
    rows = _Rows(reasoner, [images[image] for image in shown], [shown.index(image) for image, _ in questions])
    new = {number: reasoner.builder.turn_ids(text, media="image") for number, (_, text) in enumerate(questions)}
    answers: list[list[int]] = [[] for _ in questions]
    while new:
        tokens = dict(zip(new, rows.read(new).argmax(dim=-1).tolist(), strict=True))
        for number, token in tokens.items():
            answers[number].append(token)
        new = {
            number: [token]
            for number, token in tokens.items()
            if token not in reasoner.end_of_turn_ids and len(answers[number]) < max_new_tokens
        }
    return answers


class _Rows:
    """Keys and values of images, and of the questions behind them.

    Attributes:
        images: Which images there are rows of.
        owners: Whose tokens stand behind each image, in order.
    """

    def __init__(self, reasoner: Answerer, images: Images, image_of: Sequence[int]) -> None:
        """Read the images.

        Args:
            reasoner: The model.
            images: At least one.
            image_of: Image of each question.
        """
        self.reasoner = reasoner
        self.image_of = image_of
        self.images = list(range(len(images)))
        self._cache, self._start = _read(reasoner, images)
        self._prefix = self._cache.get_seq_length()
        self._written: Counter[int] = Counter()
        self.owners = torch.empty(len(images), 0, dtype=torch.long, device=reasoner.device)

    def read(self, new: Mapping[int, Sequence[int]]) -> Float[Tensor, "questions vocabulary"]:
        """Append tokens to questions; the logits of the next token of each, in order.

        Args:
            new: Tokens by question, at least one each; questions that are left out never come back.
        """
        self._keep({self.image_of[number] for number in new})
        lines: list[list[tuple[int, int, int]]] = [[] for _ in self.images]
        ends = {}
        for number, tokens in new.items():
            row, start = self.images.index(self.image_of[number]), self._start + self._written[number]
            lines[row] += [(token, number, start + place) for place, token in enumerate(tokens)]
            ends[number] = (row, len(lines[row]) - 1)
            self._written[number] += len(tokens)
        longest = max(map(len, lines))
        filler = (self.reasoner.pad_id, _NOBODY, self._start)
        filled = torch.tensor([line + [filler] * (longest - len(line)) for line in lines], device=self.reasoner.device)
        hidden = self._forward(*filled.unbind(dim=-1))
        row, column = torch.tensor(list(ends.values()), device=hidden.device).T
        logits: Tensor = self.reasoner.lm_head(hidden[row, column])
        return logits

    def _keep(self, images: set[int]) -> None:
        """Drop all other images."""
        if len(images) == len(self.images):
            return
        rows = torch.tensor([image in images for image in self.images], device=self.owners.device).nonzero()[:, 0]
        self._cache.batch_select_indices(rows)
        self.owners, self.images = self.owners[rows], sorted(images)

    def _forward(
        self,
        ids: Int64[Tensor, "images new"],
        owners: Int64[Tensor, "images new"],
        positions: Int64[Tensor, "images new"],
    ) -> Float[Tensor, "images new hidden"]:
        self.owners = torch.cat([self.owners, owners], dim=1)
        hidden: Tensor = self.reasoner.language_model(
            inputs_embeds=self.reasoner.embed_tokens(ids),
            attention_mask=_seen(self._prefix, owners, self.owners)[:, None],
            position_ids=positions.expand(3, -1, -1),
            past_key_values=self._cache,
            use_cache=True,
        ).last_hidden_state
        return hidden


def _seen(
    prefix: int, owners: Int64[Tensor, "images new"], all_owners: Int64[Tensor, "images own"]
) -> Bool[Tensor, "images new keys"]:
    """Keys that the last tokens of some rows look at; the prefix for all of them, so that no filler sees nothing."""
    (images, new), own = owners.shape, all_owners.shape[1]
    places = torch.arange(own, device=owners.device)
    is_earlier = places <= places[own - new :, None]
    is_mine = owners[:, :, None] == all_owners[:, None, :]
    return torch.cat([is_mine.new_ones(images, new, prefix), is_mine & is_earlier], dim=-1)


def _read(reasoner: Answerer, images: Images) -> tuple[DynamicCache, int]:
    """Keys and values of images, one row each, and the position that follows them."""
    parts, start = [], 0
    for first in range(0, len(images), IMAGES_AT_ONCE):
        cache, start = _read_together(reasoner, images[first : first + IMAGES_AT_ONCE])
        parts.append(cache)
    if len(parts) == 1:
        return parts[0], start
    joined = DynamicCache()
    for index in range(len(parts[0].layers)):
        # What has been copied is let go layer by layer.
        layers: list[Any] = [part.layers.pop(0) for part in parts]
        keys, values = torch.cat([layer.keys for layer in layers]), torch.cat([layer.values for layer in layers])
        joined.update(keys, values, index)
    return joined, start


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
