"""Where a thinker keeps its parts: transformers nests towers and decoder one level deeper since some release."""

from __future__ import annotations

from typing import Any

from torch import nn


def multimodal_part(thinker: Any) -> Any:  # noqa: ANN401 (transformers classes without useful types)
    """What holds the towers and computes positions: the thinker itself, or the model inside it."""
    return thinker if hasattr(thinker, "visual") else thinker.model


def decoder_of(thinker: Any) -> nn.Module:  # noqa: ANN401
    """The decoder stack, without the output head."""
    decoder: nn.Module = getattr(thinker.model, "language_model", thinker.model)
    return decoder
