"""Greedy answers to many questions about a few images, in the plain form: every question is a row of its own.

The vision tower does not depend on the question. The thinker's own `generate` runs it on every row; inside
`shared_tower` it gets each image once, and every row its result. The language model reads the image with every
question again; `models.image_reading` gives the same answers without that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor, nn

from models.processing import PromptBuilder
from models.thinker import multimodal_part

ImageQuestion = tuple[int, str]
"""Which image, and what to ask about it."""
Images = Sequence[UInt8[np.ndarray, "height width 3"]]

_GREEDILY = {
    "do_sample": False,
    # A folder's own settings would count.
    "repetition_penalty": 1.0,
    # Processes answer different numbers of questions; transformers would make them wait for each other in every token.
    "synced_gpus": False,
}


class Answerer(Protocol):
    """A model that can be asked about images: what a `Reasoner` shows of itself."""

    builder: PromptBuilder

    @property
    def thinker(self) -> Any:  # noqa: ANN401 (a transformers class without useful types)
        """The Hugging Face model."""

    @property
    def language_model(self) -> nn.Module:
        """The decoder stack, without the output head."""

    @property
    def lm_head(self) -> nn.Linear:
        """Output head."""

    @property
    def embed_tokens(self) -> nn.Embedding:
        """Token embeddings."""

    @property
    def device(self) -> torch.device:
        """Where the model computes."""

    @property
    def end_of_turn_ids(self) -> tuple[int, ...]:
        """Tokens that end an answer."""

    @property
    def pad_id(self) -> int:
        """Token that fills rows."""


def rows_in_passes(counts: Sequence[int], most: int) -> list[list[tuple[int, int]]]:
    """Cut the questions about some images into passes; those about one image stay together where they fit.

    Args:
        counts: Questions per image.
        most: Most questions per pass, at least 1.

    Returns:
        Passes of (image, number of its question), in order. Only an image with more than `most` questions of its own is
        divided.
    """
    passes: list[list[tuple[int, int]]] = []
    for image, count in enumerate(counts):
        rows = [(image, number) for number in range(count)]
        for start in range(0, count, most):
            part = rows[start : start + most]
            if passes and len(passes[-1]) + len(part) <= most:
                passes[-1] += part
            else:
                passes.append(part)
    return passes


@contextmanager
def shared_tower(tower: nn.Module, row_to_image: Int[Tensor, "rows"]) -> Iterator[None]:
    """Run a Qwen vision tower once per image inside the context, although its caller passes one image per row.

    Args:
        tower: Called with patches, all images one after the other, and `grid_thw`; gives features in the same form.
        row_to_image: Image of each row, in any numbering; rows of one image hold equal pixels, and all images are of
            one size.
    """
    images, place = torch.unique(row_to_image, return_inverse=True)
    first = torch.stack([(row_to_image == image).nonzero()[0, 0] for image in images])

    def take_distinct(
        _: nn.Module, inputs: tuple[Tensor, ...], more: dict[str, Any]
    ) -> tuple[tuple[Tensor, ...], dict[str, Any]]:
        patches, *rest = inputs
        chosen = torch.unflatten(patches, 0, (len(row_to_image), -1))[first].flatten(0, 1)
        return (chosen, *rest), more | {"grid_thw": more["grid_thw"][first]}

    def give_rows(_: nn.Module, __: tuple[Tensor, ...], outputs: Any) -> Any:  # noqa: ANN401 (a tensor, or named ones)
        if isinstance(outputs, Tensor):
            return torch.unflatten(outputs, 0, (len(images), -1))[place].flatten(0, 1)
        return type(outputs)(**{name: give_rows(_, __, value) for name, value in outputs.items()})

    handles = tower.register_forward_pre_hook(take_distinct, with_kwargs=True), tower.register_forward_hook(give_rows)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def plain_answers(
    reasoner: Answerer, images: Images, questions: Sequence[ImageQuestion], *, max_new_tokens: int
) -> list[list[int]]:
    """Answer questions greedily, one row each.

    Args:
        reasoner: The model.
        images: RGB, all of one size.
        questions: At least one.
        max_new_tokens: Longest answer.

    Returns:
        Tokens of each answer; behind the end of its turn there may be tokens that fill the row.
    """
    asked = reasoner.builder.from_images([(images[index], text) for index, text in questions])
    inputs = {name: value.to(reasoner.device) for name, value in asked.items()}
    rows = torch.tensor([index for index, _ in questions], device=reasoner.device)
    with shared_tower(multimodal_part(reasoner.thinker).visual, rows), last_logits(reasoner.lm_head):
        out = reasoner.thinker.generate(
            **inputs,
            max_new_tokens=max_new_tokens,
            # A folder's generation settings may lack the end of turn, and what comes after it is no answer.
            eos_token_id=list(reasoner.end_of_turn_ids),
            pad_token_id=reasoner.pad_id,
            **_GREEDILY,
        )
    answers: list[list[int]] = out[:, inputs["input_ids"].shape[1] :].tolist()
    return answers


@contextmanager
def last_logits(head: nn.Module) -> Iterator[None]:
    """Compute logits of the last position only inside the context, which is all that greedy decoding looks at.

    The thinker would compute them for a whole prompt: 16 questions of 950 tokens and the released vocabulary are 4.6 GB
    in half precision.

    Args:
        head: Output head, called with (rows, tokens, hidden).
    """
    handle = head.register_forward_pre_hook(lambda _, inputs: (inputs[0][:, -1:],))
    try:
        yield
    finally:
        handle.remove()
