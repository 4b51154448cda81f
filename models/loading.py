"""Find model weights on disk, or pass a hub id through, with one clear message when neither is there."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from datamodules.errors import ConfigError

PROJECT_ROOT = Path(__file__).resolve().parent.parent
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def find_weights(path: str, *, flag: str, required: Sequence[tuple[str, ...]]) -> str:
    """Turn a setting into something that `from_pretrained` understands.

    A folder is looked for as given, then relative to the project, so that the shipped configs work from any
    directory. Anything else that reads ``owner/name`` is taken as a hub id and left for the library to resolve.

    Args:
        path: Folder, or hub id.
        flag: Dotted key of the setting, for the message.
        required: File names a folder must have; of each tuple one is enough.

    Returns:
        The absolute folder, or the hub id unchanged.

    Raises:
        ConfigError: The folder does not exist, or lacks files; all of them are listed.
    """
    for folder in (Path(path).expanduser(), PROJECT_ROOT / path):
        if folder.is_dir():
            missing = [" or ".join(names) for names in required if not any((folder / name).exists() for name in names)]
            if missing:
                raise ConfigError(
                    f"{flag}: {folder} lacks {', '.join(missing)}. Save model and processor into it with "
                    f"save_pretrained, or point --{flag} at a complete folder."
                )
            return str(folder.resolve())
    if _HUB_ID.fullmatch(path) and not path.startswith("."):
        return path
    raise ConfigError(
        f"{flag}: expected a folder or a hub id such as Qwen/Qwen2.5-Omni-7B, found {path!r}, which is neither. "
        f"Set --{flag}."
    )
