"""Turns what callers have, arrays or tensors of any number type, into boolean masks of equal shape."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Shaped

MaskLike = Shaped[np.ndarray, "..."] | Shaped[torch.Tensor, "..."]
"""Masks of one clip over time, (frames, height, width); every non-zero value is foreground. Checked where used."""


def as_array(masks: MaskLike) -> Shaped[np.ndarray, "..."]:
    """The values as a NumPy array, copied from the device where needed."""
    return masks.detach().cpu().numpy() if isinstance(masks, torch.Tensor) else np.asarray(masks)


def as_foreground(**masks: MaskLike) -> tuple[Bool[np.ndarray, "frames height width"], ...]:
    """Foreground of several mask sequences that belong together.

    Args:
        **masks: Sequences by the name an error calls them.

    Returns:
        Boolean arrays in the order given.

    Raises:
        ValueError: If one is not three-dimensional or the shapes differ; names every one and its shape.
    """
    arrays = {name: as_array(values) for name, values in masks.items()}
    shapes = {name: array.shape for name, array in arrays.items()}
    if any(len(shape) != 3 for shape in shapes.values()) or len(set(shapes.values())) != 1:
        found = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise ValueError(f"expected masks of one shape (frames, height, width), found {found}")
    return tuple(array.astype(bool, copy=False) for array in arrays.values())
