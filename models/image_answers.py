"""Greedy answers to many questions about a few images, in one batch, with one pass of the vision tower per image.

The tower is the expensive part of a question about a large image, and it does not depend on the question. The
thinker's own `generate` runs it on every row; inside `shared_tower` it gets each image once, and every row its result.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

ImageQuestion = tuple[int, str]
"""Which image, and what to ask about it."""


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
