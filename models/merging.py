"""An adapter added into its base: a Hugging Face folder that needs neither PEFT nor this project.

What an adapter adds is small beside the weights that it is added to. In half precision most of it can fall between two
numbers that the type knows, and the merged model would hardly be the trained one; so the loss is measured.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor
from transformers import Qwen2_5OmniProcessor, Qwen2_5OmniThinkerForConditionalGeneration

from datamodules.errors import ConfigError
from models.adapter import CONFIG_NAME
from models.loading import find_weights

MOST_LOST = 0.05
"""Share of an adapter that may be lost by rounding before weights are written in float32 instead."""


@dataclass(frozen=True)
class Merged:
    """How a model was written.

    Attributes:
        dtype: Type of its weights, such as "bfloat16".
        lost: What rounding has changed, as a share of what the adapter adds: norms over all layers; 0 when it adds
            nothing.
    """

    dtype: str
    lost: float


def merge_adapter(adapter: Path, output: Path, *, base: str | None = None, dtype: str | None = None) -> Merged:
    """Add an adapter into its base and write model and processor.

    Every sum is formed in float32 and rounded once.

    Args:
        adapter: PEFT folder.
        output: Folder to write, in the layout of released thinkers.
        base: Folder or hub id of the base; None takes the one that the adapter names.
        dtype: Type of the written weights, such as bfloat16; None takes the stored one where that keeps the adapter
            but for `MOST_LOST`, and float32 elsewhere.

    Raises:
        ConfigError: The adapter folder is none, or the base is not there.
    """
    if not (adapter / CONFIG_NAME).is_file():
        raise ConfigError(f"expected a folder with {CONFIG_NAME}, found {str(adapter)!r}. Export an adapter first.")
    named = base or json.loads((adapter / CONFIG_NAME).read_text())["base_model_name_or_path"]
    path = find_weights(named, flag="base", required=[("config.json",)])
    load: Any = Qwen2_5OmniThinkerForConditionalGeneration.from_pretrained
    stored: Any = load(path, dtype="auto")
    wanted: torch.dtype = getattr(torch, dtype) if dtype else stored.dtype
    model = PeftModel.from_pretrained(stored, str(adapter))
    layers = [layer for layer in model.modules() if isinstance(layer, LoraLayer)]
    lost = _lost(layers, wanted)
    if dtype is None and lost > MOST_LOST:
        wanted = torch.float32
        lost = _lost(layers, wanted)
    for layer in layers:
        layer.get_base_layer().weight.data = _sum(layer)[0].to(wanted)
    model.unload().to(wanted).save_pretrained(output)
    Qwen2_5OmniProcessor.from_pretrained(path).save_pretrained(output)
    return Merged(str(wanted).removeprefix("torch."), lost)


def _sum(layer: LoraLayer) -> tuple[Tensor, Tensor]:
    """A layer's weight with the adapter in it, and what the adapter adds, both in float32."""
    delta = layer.get_delta_weight("default").float()
    return layer.get_base_layer().weight.detach().float() + delta, delta


def _lost(layers: Sequence[LoraLayer], dtype: torch.dtype) -> float:
    """What a type loses of the adapter, as `Merged` has it."""
    off, added = 0.0, 0.0
    for layer in layers:
        exact, delta = _sum(layer)
        off += float((exact.to(dtype).float() - exact).square().sum())
        added += float(delta.square().sum())
    return (off / added) ** 0.5 if added else 0.0
