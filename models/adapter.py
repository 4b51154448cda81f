"""The LoRA adapter on the language model: put on, drawn afresh, or read from a PEFT folder."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from datamodules.errors import ConfigError
from models.folded_lora import with_folding
from models.sharding import fill

CONFIG_NAME, WEIGHTS_NAME = "adapter_config.json", "adapter_model.safetensors"


@dataclass(frozen=True)
class LoRA:
    """The adapter that is trained.

    Attributes:
        r: Rank.
        alpha: Scale; the update is multiplied by alpha / r.
        dropout: Dropout in the adapter during the update; 0 keeps the sampled and the trained policy the same.
        target_modules: Regular expression over module names; by default every linear layer of the language model.
    """

    r: int = 16
    alpha: int = 32
    dropout: float = 0.0
    target_modules: str = r"model\.(language_model\.)?layers\..*\.(q|k|v|o|gate|up|down)_proj"


def peft_config(lora: LoRA, folder: str | None) -> LoraConfig:
    """Settings in PEFT's form: those of a trained adapter's folder where there is one.

    Args:
        lora: Settings of a fresh adapter.
        folder: PEFT folder of a trained adapter; None for a fresh one.

    Raises:
        ConfigError: The folder holds no adapter.
    """
    if folder is None:
        return LoraConfig(
            r=lora.r,
            lora_alpha=lora.alpha,
            lora_dropout=lora.dropout,
            target_modules=lora.target_modules,
            task_type="CAUSAL_LM",
        )
    if not (Path(folder) / CONFIG_NAME).is_file():
        raise ConfigError(
            f"model.reasoner.adapter: expected a folder with {CONFIG_NAME}, found {folder!r}. "
            "Point --model.reasoner.adapter at an exported adapter, or leave it out to start from a fresh one."
        )
    config = LoraConfig.from_pretrained(folder)
    config.inference_mode = False
    return config


def put_on(base: Any, lora: LoRA, folder: str | None) -> PeftModel:  # noqa: ANN401 (a transformers class)
    """Put adapter layers on a frozen base; their values are still to be set, by `set_values`.

    Args:
        base: The thinker, on any device, the meta device included.
        lora: The adapter's settings; those of the folder win where there is one.
        folder: PEFT folder of a trained adapter; None for a fresh one.

    Raises:
        ConfigError: The folder holds no adapter.
    """
    return get_peft_model(base, with_folding(peft_config(lora, folder)))


def set_values(model: PeftModel, folder: str | None) -> None:
    """Read the adapter's weights from a folder, or draw fresh ones with the seed of the process."""
    if folder is None:
        start_adapter(model, torch.initial_seed())
    else:
        read_adapter(model, Path(folder))


def start_adapter(model: nn.Module, seed: int) -> None:
    """Draw a fresh adapter: A as PEFT does, B zero, so that it changes nothing yet.

    Every matrix has a generator of its own, so that the numbers depend neither on how the model is spread over
    devices, nor on what was drawn before.

    Args:
        model: With adapter layers, whole or spread.
        seed: Of the run.
    """
    for name, parameter in model.named_parameters():
        if ".lora_B." in name:
            fill(parameter, torch.zeros(parameter.shape, device="cpu"))
        elif ".lora_A." in name:
            generator = torch.Generator().manual_seed(zlib.crc32(f"{seed} {name}".encode()))
            values = torch.empty(parameter.shape, dtype=torch.float32, device="cpu")
            fill(parameter, nn.init.kaiming_uniform_(values, a=math.sqrt(5), generator=generator))


def read_adapter(model: nn.Module, folder: Path) -> None:
    """Fill adapter layers from a PEFT folder.

    Raises:
        ConfigError: The folder's weights are not those of the layers; the first few differences are named.
    """
    wanted = {name.replace(".default.", "."): p for name, p in model.named_parameters() if ".lora_" in name}
    problems = []
    with safe_open(folder / WEIGHTS_NAME, framework="pt") as file:
        stored = set(file.keys())
        problems += [f"{name} is missing" for name in wanted if name not in stored]
        problems += [f"{name} is unknown" for name in sorted(stored) if name not in wanted]
        for name, parameter in wanted.items():
            if name not in stored:
                continue
            try:
                fill(parameter, file.get_slice(name))
            except ValueError as error:
                problems.append(f"{name}: {error}")
    if problems:
        raise ConfigError(
            f"model.reasoner.adapter: {folder} does not fit the model: {'; '.join(problems[:3])}"
            f"{f' and {len(problems) - 3} more' if len(problems) > 3 else ''}. It was trained on another base."
        )


def write_adapter(config: LoraConfig, weights: Mapping[str, Tensor], folder: Path) -> None:
    """Write a folder that `PeftModel.from_pretrained` loads.

    Args:
        config: The adapter's settings; written as for inference and left as they are.
        weights: Any weights by their names in a `PeftModel`; those of the adapter are taken.
        folder: Made when it is missing; an older adapter in it is replaced, `adapter_config.json` last.

    Raises:
        ConfigError: There are no adapter weights.
    """
    kept = {
        name.replace(".default.", "."): value.detach().cpu().contiguous()
        for name, value in weights.items()
        if ".lora_" in name
    }
    if not kept:
        raise ConfigError(
            f"expected weights of a LoRA adapter, found none among {len(weights)}. The run did not train "
            "--model.reasoner.lora."
        )
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder) as staging:
        staged = Path(staging)
        save_file(kept, staged / WEIGHTS_NAME, metadata={"format": "pt"})
        before, config.inference_mode = config.inference_mode, True
        try:
            config.save_pretrained(staging)
        finally:
            config.inference_mode = before
        # The settings last: whoever finds them finds the weights whole.
        for name in (WEIGHTS_NAME, CONFIG_NAME):
            (staged / name).replace(folder / name)
