"""Find model weights on disk, or pass a hub id through, and read them whole; one clear message when that fails."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers import PretrainedConfig

from datamodules.errors import ConfigError

PROJECT_ROOT = Path(__file__).resolve().parent.parent
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def local_path(path: str) -> Path:
    """A file or folder as given, or else relative to the project, so that shipped configs work from any directory."""
    given, shipped = Path(path).expanduser(), PROJECT_ROOT / path
    return shipped if shipped.exists() and not given.exists() else given


def find_weights(path: str, *, flag: str, required: Sequence[tuple[str, ...]]) -> str:
    """Turn a setting into something that `from_pretrained` understands.

    A folder is looked for as `local_path` does. Anything else that reads ``owner/name`` is taken as a hub id and left
    for the library to resolve, unless ``owner`` is a folder here: then ``name`` was meant to be one in it.

    Args:
        path: Folder, or hub id.
        flag: Dotted key of the setting, for the message.
        required: File names a folder must have; of each tuple one is enough.

    Returns:
        The absolute folder, or the hub id unchanged.

    Raises:
        ConfigError: The folder does not exist, or lacks files; all of them are listed.
    """
    folder = local_path(path)
    if folder.is_dir():
        missing = [" or ".join(names) for names in required if not any((folder / name).exists() for name in names)]
        if missing:
            raise ConfigError(
                f"{flag}: {folder} lacks {', '.join(missing)}. Save model and processor into it with "
                f"save_pretrained, or point --{flag} at a complete folder."
            )
        return str(folder.resolve())
    if _HUB_ID.fullmatch(path) and not path.startswith(".") and not local_path(path.partition("/")[0]).is_dir():
        return path
    raise ConfigError(
        f"{flag}: expected a folder or a hub id such as Qwen/Qwen2.5-Omni-7B, found {path!r}, which is neither. "
        f"Set --{flag}."
    )


@contextmanager
def reading(path: str, *, flag: str) -> Iterator[None]:
    """Say in one message what could not be read, and which flag names it.

    Args:
        path: Folder or hub id, as `find_weights` gives it.
        flag: Dotted key of the setting.

    Raises:
        ConfigError: The library found no such model, no network, a file of another form, or a broken one.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ConfigError(
            f"{flag}: {path} could not be read ({reason}). Set --{flag} to a complete folder of the right kind of "
            "model, or to a hub id that is in the local cache or can be downloaded."
        ) from error


def check_model_type(path: str, allowed: Collection[str], *, flag: str, expected: str) -> None:
    """Refuse a model of another architecture, whose layers would be filled with random numbers.

    Args:
        path: Folder or hub id, as `find_weights` gives it.
        allowed: Values of `model_type` that fit.
        flag: Dotted key of the setting.
        expected: What is expected, in words.

    Raises:
        ConfigError: The configuration cannot be read, or names another type.
    """
    with reading(path, flag=flag):
        found = PretrainedConfig.get_config_dict(path)[0].get("model_type")
    if found not in allowed:
        raise ConfigError(
            f"{flag}: {path} holds a model of type {found!r}; expected {expected} ({', '.join(allowed)}). "
            f"Set --{flag} to one."
        )


def read_model(model_class: Any, path: str, *, flag: str, **options: Any) -> Any:  # noqa: ANN401 (transformers classes)
    """Build a model and read its weights, all of which must be there.

    The library fills a layer that it finds no weights for with random numbers, and says so in a log line only.

    Args:
        model_class: Has `from_pretrained`.
        path: Folder or hub id, as `find_weights` gives it.
        flag: Dotted key of the setting.
        **options: For `from_pretrained`.

    Returns:
        The model. Weights in the file that it has no place for, such as the talker's, are left out.

    Raises:
        ConfigError: The files cannot be read, or lack weights, or hold some in other shapes; the first are named.
    """
    with reading(path, flag=flag):
        model, info = model_class.from_pretrained(
            path, output_loading_info=True, ignore_mismatched_sizes=True, **options
        )
    problems = [f"{name} is missing" for name in sorted(info["missing_keys"])]
    problems += [
        f"{name} has shape {tuple(found)} instead of {tuple(expected)}"
        for name, found, expected in sorted(info["mismatched_keys"])
    ]
    if problems:
        raise ConfigError(
            f"{flag}: the weights in {path} do not fit the model ({len(problems)} differences: "
            f"{'; '.join(problems[:3])}). Copy or save it again, or point --{flag} at a complete folder."
        )
    return model
