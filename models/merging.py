"""An adapter added into its base: a Hugging Face folder that needs neither PEFT nor this project."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from transformers import Qwen2_5OmniProcessor, Qwen2_5OmniThinkerForConditionalGeneration

from datamodules.errors import ConfigError
from models.adapter import CONFIG_NAME
from models.loading import find_weights


def merge_adapter(adapter: Path, output: Path, *, base: str | None = None, dtype: str | None = None) -> None:
    """Add an adapter into its base and write model and processor.

    Every sum is formed in float32 and rounded once.

    Args:
        adapter: PEFT folder.
        output: Folder to write, in the layout of released thinkers.
        base: Folder or hub id of the base; None takes the one that the adapter names.
        dtype: Type of the written weights, such as bfloat16; None takes the stored one.

    Raises:
        ConfigError: The adapter folder is none, or the base is not there.
    """
    if not (adapter / CONFIG_NAME).is_file():
        raise ConfigError(f"expected a folder with {CONFIG_NAME}, found {str(adapter)!r}. Export an adapter first.")
    named = base or json.loads((adapter / CONFIG_NAME).read_text())["base_model_name_or_path"]
    path = find_weights(named, flag="base", required=[("config.json",)])
    load: Any = Qwen2_5OmniThinkerForConditionalGeneration.from_pretrained
    model = PeftModel.from_pretrained(load(path, dtype=getattr(torch, dtype) if dtype else "auto"), str(adapter))
    for layer in model.modules():
        if isinstance(layer, LoraLayer):
            weight = layer.get_base_layer().weight
            weight.data = (weight.float() + layer.get_delta_weight("default").float()).to(weight.dtype)
    model.unload().save_pretrained(output)
    Qwen2_5OmniProcessor.from_pretrained(path).save_pretrained(output)
