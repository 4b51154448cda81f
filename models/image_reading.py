"""Greedy answers to many questions about a few images, each of which is read once.

An image, with what stands before it, is read into a row of keys and values, and all questions about it behind it. Then
the rows of all images are put one behind the other, and answers grow together, a token of each at a time::

    ████████ aaaaaa bbb ████████ cccc ████████ dd abcd abcd abd abd ad    a, b: about the first image; c, d: the others

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
from jaxtyping import Bool, Int64
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
    answers: list[list[int]] = [[] for _ in questions]
    row, tokens = _ask(reasoner, images, questions)
    while tokens:
        for number, token in tokens.items():
            answers[number].append(token)
        going_on = {
            number: [token]
            for number, token in tokens.items()
            if token not in reasoner.end_of_turn_ids and len(answers[number]) < max_new_tokens
        }
        tokens = row.read(going_on) if going_on else {}
    return answers


class _Row:
    """Keys and values of images, and of the questions behind them.

    Attributes:
        cache: Layer by layer.
        owners: Whose each of them is: a question's by its number, an image's by its own counted down from -1.
        written: Tokens of each question.
    """

    def __init__(
        self,
        reasoner: Answerer,
        cache: DynamicCache,
        owners: Int64[Tensor, "keys"],
        start: int,
        image_of: Sequence[int],
    ) -> None:
        """Take what has been read.

        Args:
            reasoner: The model.
            cache: Of images.
            owners: Of all that is in it.
            start: Position that follows an image.
            image_of: Image of each question.
        """
        self._reasoner, self._start = reasoner, start
        self._image_of = torch.tensor([-1 - image for image in image_of], device=owners.device)
        self.cache, self.owners = cache, owners
        self.written: Counter[int] = Counter()

    def read(self, new: Mapping[int, Sequence[int]]) -> dict[int, int]:
        """Append tokens to questions; the next token of each.

        Args:
            new: Tokens by question, at least one each; questions that are left out never come back.
        """
        self._keep(list(new))
        line, ends = [], []
        for number, tokens in new.items():
            start = self._start + self.written[number]
            line += [(token, number, start + place) for place, token in enumerate(tokens)]
            ends.append(len(line) - 1)
            self.written[number] += len(tokens)
        ids, owners, positions = torch.tensor(line, device=self.owners.device).T
        self.owners = torch.cat([self.owners, owners])
        hidden = self._reasoner.language_model(
            inputs_embeds=self._reasoner.embed_tokens(ids)[None],
            attention_mask=self._seen(len(line))[None, None],
            position_ids=positions.expand(3, 1, -1),
            past_key_values=self.cache,
            use_cache=True,
        ).last_hidden_state[0]
        return dict(zip(new, self._reasoner.lm_head(hidden[ends]).argmax(dim=-1).tolist(), strict=True))

    def take(self, others: Sequence[_Row]) -> None:
        """Put other rows behind this one; there is nothing left of them."""
        rows = [self, *others]
        self.cache = _joined([row.cache for row in rows])
        self.owners = torch.cat([row.owners for row in rows])
        for row in others:
            self.written |= row.written

    def _keep(self, numbers: list[int]) -> None:
        """Drop all other questions, and images that none of these is about."""
        if self.written.keys() <= set(numbers):
            return
        chosen = torch.tensor(numbers, device=self.owners.device)
        kept = torch.isin(self.owners, torch.cat([chosen, self._image_of[chosen]])).nonzero()[:, 0]
        layers: list[Any] = self.cache.layers
        for layer in layers:
            layer.keys, layer.values = layer.keys[:, :, kept], layer.values[:, :, kept]
        self.owners = self.owners[kept]
        self.written = Counter({number: self.written[number] for number in numbers})

    def _seen(self, new: int) -> Bool[Tensor, "new keys"]:
        """What the last so many tokens look at, all of them tokens of questions."""
        owners, keys = self.owners[-new:, None], torch.arange(len(self.owners), device=self.owners.device)
        is_mine = (self.owners == owners) | (self.owners == self._image_of[owners])
        return is_mine & (keys <= keys[-new:, None])


def _ask(reasoner: Answerer, images: Images, questions: Sequence[ImageQuestion]) -> tuple[_Row, dict[int, int]]:
    """Read images and questions, those about one image at a time; the first token of each answer."""
    image_of = [image for image, _ in questions]
    shown, rows, tokens = sorted(set(image_of)), list[_Row](), dict[int, int]()
    for first in range(0, len(shown), IMAGES_AT_ONCE):
        chunk = shown[first : first + IMAGES_AT_ONCE]
        caches, start = _read(reasoner, [images[image] for image in chunk])
        for image, cache in zip(chunk, caches, strict=True):
            owners = torch.full((cache.get_seq_length(),), -1 - image, device=reasoner.device)
            row = _Row(reasoner, cache, owners, start, image_of)
            mine = [number for number, own in enumerate(image_of) if own == image]
            ids = {number: reasoner.builder.turn_ids(questions[number][1], media="image") for number in mine}
            tokens |= row.read(ids)
            rows.append(row)
    rows[0].take(rows[1:])
    return rows[0], tokens


def _joined(caches: Sequence[DynamicCache]) -> DynamicCache:
    """Keys and values of several rows one behind the other; what has been copied is let go layer by layer."""
    row = DynamicCache()
    for index in range(len(caches[0].layers)):
        layers: list[Any] = [cache.layers.pop(0) for cache in caches]
        keys, values = (torch.cat([getattr(layer, name) for layer in layers], dim=2) for name in ("keys", "values"))
        row.update(keys, values, index)
    return row


def _read(reasoner: Answerer, images: Images) -> tuple[list[DynamicCache], int]:
    """Keys and values of each image, and the position that follows it, the same for all of one size."""
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
    layers: list[Any] = list(cache.layers)
    alone = [DynamicCache() for _ in images]
    for index, layer in enumerate(layers):
        for image, own in enumerate(alone):
            own.update(layer.keys[image : image + 1], layer.values[image : image + 1], index)
    return alone, int(positions.max()) + 1
