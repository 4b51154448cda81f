"""Find and build SAM2 predictors: a local folder, a released checkpoint file, or a Hugging Face id.

A folder holds `config.yaml` in SAM2's own format and `model.safetensors`; this is also what `save_predictor` writes.
Checkpoint files and Hugging Face ids are built by SAM2's own builder with its released settings; only hole filling is
off, because it needs a CUDA extension that the published wheel does not carry.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from sam2.build_sam import HF_MODEL_ID_TO_FILENAMES, build_sam2_video_predictor
from yaml import YAMLError

from datamodules.errors import ConfigError
from models.loading import local_path
from models.sam2_predictor import ClipPredictor

CONFIG_FILE = "config.yaml"
WEIGHTS_FILE = "model.safetensors"

_TARGET = f"{ClipPredictor.__module__}.{ClipPredictor.__qualname__}"


def released_configs() -> dict[str, str]:
    """Names of the configurations inside the sam2 package, with the path that SAM2's builder wants for each."""
    root = files("sam2") / "configs"
    return {
        entry.name.removesuffix(".yaml"): f"configs/{family}/{entry.name}"
        for family in ("sam2", "sam2.1")
        for entry in sorted((root / family).iterdir(), key=lambda entry: entry.name)
        if entry.name.endswith(".yaml")
    }


def build_predictor(config_file: Path) -> ClipPredictor:
    """A predictor with random weights from a configuration file of SAM2's own format.

    Args:
        config_file: YAML with a `model` entry; only classes of the sam2 package may be named in it.

    Raises:
        ConfigError: The file is missing, is no YAML, has no `model` entry, or names a class of another package.
    """
    if not config_file.is_file():
        raise ConfigError(f"Expected a SAM2 configuration at {config_file}, found no such file.")
    try:
        config = OmegaConf.load(config_file)
    except (YAMLError, OmegaConfBaseException) as error:
        raise ConfigError(f"{config_file} could not be read as YAML: {error}") from error
    if not isinstance(config, DictConfig) or not isinstance(config.get("model"), DictConfig):
        raise ConfigError(f"{config_file} has no `model` entry; expected a configuration in SAM2's own format.")
    model = OmegaConf.to_container(config.model, resolve=True)
    foreign = sorted({target for target in _targets(model) if not target.startswith("sam2.")})
    if foreign:
        raise ConfigError(f"{config_file} names {', '.join(foreign)}; only classes of the sam2 package are built.")
    return _instantiate({**dict(config.model), "_target_": _TARGET, "fill_hole_area": 0})


def load_predictor(path: str, *, config: str | None = None) -> ClipPredictor:
    """Build a predictor and read its weights.

    Args:
        path: A folder with config.yaml and model.safetensors, a released checkpoint file (both as given, or else
            relative to the project), or a Hugging Face id such as facebook/sam2.1-hiera-large.
        config: Name of a configuration inside the sam2 package, such as sam2.1_hiera_l; for a checkpoint file whose
            name is not a released one.

    Returns:
        The predictor in evaluation mode on the CPU.

    Raises:
        ConfigError: Nothing usable at `path`, an unknown or needless `config`, or weights that do not fit.
    """
    location = local_path(path)
    if location.is_dir():
        return _load_folder(location, config)
    if location.is_file():
        return _load_checkpoint(location, config)
    if path in HF_MODEL_ID_TO_FILENAMES:
        return _load_released(path, config)
    raise ConfigError(
        f"model.propagator.path is {path!r}, which is no folder with {CONFIG_FILE} and {WEIGHTS_FILE}, no checkpoint "
        f"file and no released SAM2 id. Known ids: {', '.join(HF_MODEL_ID_TO_FILENAMES)}. "
        "Set --model.propagator.path."
    )


def save_predictor(predictor: torch.nn.Module, folder: Path, *, config_file: Path) -> None:
    """Write a folder that `load_predictor` reads, with weights in half precision.

    Args:
        predictor: The trained model.
        folder: Made if it does not exist; its two files are replaced.
        config_file: What the predictor was built from; copied.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.detach().half().cpu().contiguous() for name, tensor in predictor.state_dict().items()}
    save_file(weights, folder / WEIGHTS_FILE)
    shutil.copyfile(config_file, folder / CONFIG_FILE)


def _load_folder(folder: Path, config: str | None) -> ClipPredictor:
    problems = [f"no {name}" for name in (CONFIG_FILE, WEIGHTS_FILE) if not (folder / name).is_file()]
    if problems:
        raise ConfigError(
            f"{folder} has {' and '.join(problems)}; a propagator folder holds {CONFIG_FILE} (SAM2's own format) and "
            f"{WEIGHTS_FILE}. Set --model.propagator.path."
        )
    if config is not None:
        raise ConfigError(
            f"model.propagator.config is {config!r}, but {folder} brings its own {CONFIG_FILE}. "
            "Set --model.propagator.config null."
        )
    predictor = build_predictor(folder / CONFIG_FILE)
    weights_file = folder / WEIGHTS_FILE
    try:
        weights = load_file(weights_file)
    except SafetensorError as error:
        raise ConfigError(f"{weights_file} could not be read: {error}. Copy it again.") from error
    return _fill(predictor, weights, weights_file)


def _load_checkpoint(file: Path, config: str | None) -> ClipPredictor:
    names = released_configs()
    if config is None:
        paths = {checkpoint: found for found, checkpoint in HF_MODEL_ID_TO_FILENAMES.values()}
        config_path = paths.get(file.name)
        if config_path is None:
            raise ConfigError(
                f"{file.name} is not the name of a released SAM2 checkpoint, so its configuration must be named. "
                f"Set --model.propagator.config to one of: {', '.join(names)}."
            )
    elif config in names:
        config_path = names[config]
    else:
        raise ConfigError(
            f"model.propagator.config is {config!r}, which the sam2 package does not hold. "
            f"Set --model.propagator.config to one of: {', '.join(names)}."
        )
    predictor = _build_released(config_path)
    checkpoint = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    if not isinstance(checkpoint, dict) or "model" not in checkpoint:
        raise ConfigError(f"{file} has no `model` entry; expected a checkpoint as SAM2 releases them.")
    return _fill(predictor, checkpoint["model"], file)


def _load_released(model_id: str, config: str | None) -> ClipPredictor:
    from huggingface_hub import hf_hub_download

    config_path, checkpoint = HF_MODEL_ID_TO_FILENAMES[model_id]
    name = Path(config_path).stem
    if config not in (None, name):
        raise ConfigError(
            f"model.propagator.config is {config!r}, but {model_id} is built from {name}. "
            "Set --model.propagator.config null."
        )
    try:
        file = hf_hub_download(repo_id=model_id, filename=checkpoint)
    except OSError as error:
        raise ConfigError(
            f"{model_id} is not in the local Hugging Face cache and could not be downloaded ({error}). Download "
            f"{checkpoint} where there is a network and set --model.propagator.path to the file."
        ) from error
    return _load_checkpoint(Path(file), name)


def _build_released(config_path: str) -> ClipPredictor:
    predictor: ClipPredictor = build_sam2_video_predictor(
        config_path, None, device="cpu", hydra_overrides_extra=[f"++model._target_={_TARGET}"]
    )
    # The builder's own override of this setting comes after ours.
    predictor.fill_hole_area = 0
    return predictor


def _fill(predictor: ClipPredictor, weights: dict[str, torch.Tensor], file: Path) -> ClipPredictor:
    """Copy the weights in; every name and shape must fit."""
    wanted = predictor.state_dict()
    problems = [f"{name} is missing" for name in wanted if name not in weights]
    problems += [f"{name} is not expected" for name in weights if name not in wanted]
    problems += [
        f"{name} has shape {tuple(weights[name].shape)} instead of {tuple(tensor.shape)}"
        for name, tensor in wanted.items()
        if name in weights and weights[name].shape != tensor.shape
    ]
    if problems:
        shown = "; ".join(problems[:3])
        raise ConfigError(
            f"{file} does not fit its configuration ({len(problems)} differences: {shown}). "
            "Set --model.propagator.config to the configuration that it was trained with."
        )
    predictor.load_state_dict(weights)
    predictor.eval()
    return predictor


def _instantiate(model: dict[str, Any]) -> ClipPredictor:
    predictor: ClipPredictor = instantiate(OmegaConf.create(model), _recursive_=True)
    predictor.eval()
    return predictor


def _targets(node: object) -> Iterator[str]:
    """Every class that a configuration names, at any depth."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield str(node["_target_"])
        for value in node.values():
            yield from _targets(value)
    elif isinstance(node, list):
        for value in node:
            yield from _targets(value)
