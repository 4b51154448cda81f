"""Where a run lives on disk, and how it is taken up again.

A run folder holds `config.yaml` (everything that the run was started with), `checkpoints/` and the logs.
`fit --resume FOLDER` stands for: that configuration, its newest checkpoint, and logs that go on in the same folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml

from datamodules.errors import ConfigError

CONFIG_NAME = "config.yaml"
LAST_CHECKPOINT = Path("checkpoints") / "last.ckpt"
_PLACES = ("ckpt_path", "resume", "trainer.logger")


def find_flag(arguments: Sequence[str], flag: str) -> str | None:
    """The value of a flag on a command line, `--flag value` or `--flag=value`; the last one wins."""
    found = None
    for token, following in zip(arguments, [*arguments[1:], ""], strict=False):
        if token == flag:
            found = following
        elif token.startswith(f"{flag}="):
            found = token.partition("=")[2]
    return found


def expand_resume(arguments: Sequence[str]) -> list[str]:
    """Replace `--resume FOLDER` by the flags that it stands for; other flags come after them and win.

    Raises:
        ConfigError: The folder is no run folder, or its run has not written a checkpoint yet.
    """
    folder = find_flag(arguments, "--resume")
    if folder is None:
        return list(arguments)
    run = Path(folder)
    if not (run / CONFIG_NAME).is_file():
        raise ConfigError(
            f"resume: expected a run folder with {CONFIG_NAME}, found {folder!r}"
            f"{'' if run.is_dir() else ', which does not exist'}. Give the folder of a run, such as "
            "--resume runs/refavs/version_0."
        )
    checkpoint = run / LAST_CHECKPOINT
    if not checkpoint.exists():
        raise ConfigError(
            f"resume: {folder} has no {LAST_CHECKPOINT.as_posix()}; the run ended before its first checkpoint. "
            f"Start it again: python train.py fit --config {run / CONFIG_NAME}"
        )
    described = [f"--config={run / CONFIG_NAME}", f"--ckpt_path={checkpoint}"]
    verb = next((index for index, token in enumerate(arguments) if not token.startswith("-")), 0)
    rest = _without_flag(arguments[verb + 1 :], "--resume")
    return [*arguments[: verb + 1], *described, *rest]


def logger_place(run: Path) -> dict[str, str]:
    """The logger settings that lead to a run folder, ``<save_dir>/<name>/<version>``."""
    return {"save_dir": str(run.parent.parent), "name": run.parent.name, "version": run.name}


def free_version(folder: Path, verb: str) -> str:
    """The first unused name `<verb>_<k>` in a folder."""
    taken = {path.name for path in folder.glob(f"{verb}_*")}
    return next(name for name in (f"{verb}_{index}" for index in range(len(taken) + 1)) if name not in taken)


def resume_command(run: Path) -> str:
    """What to type to go on with a run."""
    return f"python train.py fit --resume {run}"


def changed_settings(saved: Path, current: dict[str, object]) -> list[str]:
    """Settings that differ from those a run was saved with, as `key: before -> now`.

    Args:
        saved: The run's configuration file.
        current: The resolved configuration of now.
    """
    before, now = _flat(yaml.safe_load(saved.read_text())), _flat(current)
    keys = [key for key in dict.fromkeys([*before, *now]) if not key.startswith(_PLACES)]
    return [f"{key}: {before.get(key)} -> {now.get(key)}" for key in keys if before.get(key) != now.get(key)]


def _flat(tree: object, prefix: str = "") -> dict[str, object]:
    if not isinstance(tree, dict) or not tree:
        return {prefix: tree}
    flat: dict[str, object] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}.{key}" if prefix else str(key))
    return flat


def _without_flag(arguments: Sequence[str], flag: str) -> list[str]:
    kept: list[str] = []
    skip = False
    for token in arguments:
        if skip:
            skip = False
        elif token == flag:
            skip = True
        elif not token.startswith(f"{flag}="):
            kept.append(token)
    return kept
