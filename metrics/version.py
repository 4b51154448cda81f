"""Which code made a number."""

from __future__ import annotations

import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGE = "omni-r1"


def code_version() -> dict[str, str | None]:
    """Version of the installed package and commit of the checkout; None for what there is not."""
    try:
        installed: str | None = version(PACKAGE)
    except PackageNotFoundError:
        installed = None
    return {"version": installed, "commit": commit(Path(__file__).parent)}


def commit(folder: Path) -> str | None:
    """The commit that a folder's checkout is at, with "+changes" when tracked files differ; None without git."""
    try:
        head = _git(folder, "rev-parse", "HEAD")
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{head}+changes" if changed else head


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()
