"""Read a thinker's weights in shares: every process reads the rows that it keeps, and never holds the rest.

The model is described on the meta device, spread, given memory and only then filled from the safetensors files. Three
layouts of key names are read: the one of released folders, the one of the full Omni model (everything below
``thinker.``), and the names that the model has in memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from safetensors import safe_open
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    GenerationConfig,
    Qwen2_5OmniThinkerConfig,
    Qwen2_5OmniThinkerForConditionalGeneration,
)

from datamodules.errors import ConfigError
from models.sharding import Sharding, fill

_INDEX, _SINGLE = "model.safetensors.index.json", "model.safetensors"
_OTHER_PARTS = ("talker.", "token2wav.")
"""Parts of the full Omni model that speak; they are not built."""


def local_folder(path: str) -> Path:
    """The folder itself, or the one that a hub id is downloaded to."""
    if Path(path).is_dir():
        return Path(path)
    return Path(snapshot_download(path, allow_patterns=["*.json", "*.safetensors", "*.txt", "*.jinja"]))


def read_config(path: Path | str) -> Qwen2_5OmniThinkerConfig:
    """The thinker's configuration in a folder or at a hub id; the full Omni model keeps it inside its own."""
    config = AutoConfig.from_pretrained(path)
    thinker: Qwen2_5OmniThinkerConfig = getattr(config, "thinker_config", config)
    return thinker


def describe(folder: Path, *, dtype: torch.dtype, attention: str) -> Any:  # noqa: ANN401
    """A thinker on the meta device: shapes and names, no memory."""
    thinker = on_meta(read_config(folder), dtype=dtype, attention=attention)
    if (folder / "generation_config.json").is_file():
        thinker.generation_config = GenerationConfig.from_pretrained(folder)
    return thinker


def on_meta(config: Qwen2_5OmniThinkerConfig, *, dtype: torch.dtype, attention: str = "sdpa") -> Any:  # noqa: ANN401
    """A thinker of a configuration on the meta device."""
    with torch.device("meta"):
        build: Any = Qwen2_5OmniThinkerForConditionalGeneration
        return build._from_config(config, dtype=dtype, attn_implementation=attention)


def give_memory(thinker: Any, sharding: Sharding) -> None:  # noqa: ANN401
    """Allocate this process's share of the weights, and compute the tables that no file holds."""
    thinker.to_empty(device=sharding.storage)
    for module in thinker.modules():
        own = [name for name, buffer in module.named_buffers(recurse=False)]
        if not own:
            continue
        for name in own:
            setattr(module, name, getattr(module, name).to(sharding.device))
        # Rotary frequencies and the like follow from the configuration; this is how transformers restores them too.
        thinker._init_weights(module)


def read_base(thinker: nn.Module, folder: Path) -> None:
    """Fill the base weights from a folder.

    Raises:
        ConfigError: Weights are missing, unknown, or of another shape; the first few are named.
    """
    wanted = {name.replace(".base_layer.", "."): p for name, p in thinker.named_parameters() if not _is_adapter(name)}
    problems, found = [], set()
    for key, source in stored_tensors(folder):
        name = name_in_memory(key, wanted)
        if name is None:
            problems += [] if key.startswith(_OTHER_PARTS) or _is_tied(thinker, key) else [f"{key} is unknown"]
            continue
        try:
            fill(wanted[name], source)
        except ValueError as error:
            problems.append(f"{key}: {error}")
        found.add(name)
    problems += [f"{name} is missing" for name in wanted if name not in found]
    if problems:
        raise ConfigError(
            f"model.reasoner.path: the weights in {folder} do not fit its configuration: {'; '.join(problems[:3])}"
            f"{f' and {len(problems) - 3} more' if len(problems) > 3 else ''}. Save the model again with "
            "save_pretrained, or point --model.reasoner.path at a complete folder."
        )


def stored_tensors(folder: Path) -> Iterator[tuple[str, Any]]:
    """Keys of all safetensors files of a folder, each with a slice that is read when it is indexed."""
    index = folder / _INDEX
    names = sorted(set(json.loads(index.read_text())["weight_map"].values())) if index.is_file() else [_SINGLE]
    for name in names:
        with safe_open(folder / name, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118 (the file is no mapping)
                yield key, file.get_slice(key)


def name_in_memory(key: str, known: Mapping[str, Tensor]) -> str | None:
    """The name in memory that a stored name stands for; None when there is none."""
    plain = key.removeprefix("thinker.")
    inner = plain.removeprefix("model.")
    candidates = (plain, f"model.{inner}", f"model.language_model.{inner}")
    return next((name for name in candidates if name in known), None)


def _is_adapter(name: str) -> bool:
    return ".lora_" in name


def _is_tied(thinker: Any, key: str) -> bool:  # noqa: ANN401
    """A head that is stored although it is the embedding again."""
    return key.endswith("lm_head.weight") and thinker.lm_head.weight is thinker.get_input_embeddings().weight
