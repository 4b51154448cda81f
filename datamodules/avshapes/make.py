"""Make a generated benchmark once and find it again.

A tree is written into a temporary folder beside its place and renamed when it is complete. A run that is killed
leaves a `.partial-` folder, which is never taken for a tree and is removed after a day; of two processes that write
the same tree, the first to finish wins and the other takes its tree.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TypeVar

import joblib
from tqdm import tqdm

from datamodules.avshapes.settings import (
    FORMAT_VERSION,
    MevisSizes,
    RefavsSizes,
    RefcocogSizes,
    Settings,
    make_settings,
)
from datamodules.avshapes.world import World
from datamodules.avshapes.write_mevis import finish_mevis, mevis_jobs, write_mevis_clip
from datamodules.avshapes.write_refavs import finish_refavs, refavs_jobs, write_refavs_clip
from datamodules.avshapes.write_refcocog import finish_refcocog, refcocog_jobs, write_refcocog_picture
from datamodules.avshapes.write_revos import finish_revos, revos_jobs, write_revos_clip

SETTINGS_FILE = "avshapes.json"
"""Written last, so that a tree without it is not a whole one."""

_STALE_S = 24 * 3600
_MOST_WORKERS = 8

_Job = TypeVar("_Job")
_Result = TypeVar("_Result")


def ensure_avshapes(
    benchmark: str,
    *,
    seed: int = 0,
    sizes: Mapping[str, int] | None = None,
    world: World | None = None,
    cache_dir: Path | str | None = None,
    workers: int | None = None,
) -> Path:
    """Return the root of a generated benchmark, writing it first where it is not in the cache.

    Args:
        benchmark: refavs, revos, mevis or refcocog.
        seed: Non-negative; the same settings and seed give the same bytes.
        sizes: Fields of the benchmark's sizes, such as `RefavsSizes`, that differ from the defaults.
        world: The dials; None is the benchmark's own world.
        cache_dir: Where trees are kept; None is `omni-r1/avshapes` under $XDG_CACHE_HOME, or under ~/.cache.
        workers: Processes that write; None is one per core, at most 8.

    Returns:
        A folder in the benchmark's own layout, ready to be a reader's root.

    Raises:
        ConfigError: The settings cannot be written.
    """
    settings = make_settings(benchmark, seed=seed, sizes=sizes, world=world)
    root = (Path(cache_dir) if cache_dir else default_cache_dir()) / f"{settings.benchmark}-{settings.digest}"
    if not is_complete(root):
        write_tree(settings, root, workers=workers)
    return root


def default_cache_dir() -> Path:
    """Where trees are kept unless told otherwise."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "omni-r1" / "avshapes"


def is_complete(root: Path) -> bool:
    """Whether a tree was written to its end."""
    return (root / SETTINGS_FILE).is_file()


def write_tree(settings: Settings, root: Path, *, workers: int | None = None) -> None:
    """Write a tree and put it in its place in one step.

    Args:
        settings: What to write.
        root: Its place.
        workers: Processes that write; None is one per core, at most 8.

    Raises:
        FileExistsError: The place holds something that is not a whole tree.
    """
    root.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale(root.parent)
    staging = Path(tempfile.mkdtemp(prefix=f".partial-{root.name}-", dir=root.parent))
    try:
        _write(settings, staging, workers or min(joblib.cpu_count(), _MOST_WORKERS))
        _publish(staging, root)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _publish(staging: Path, root: Path) -> None:
    """Rename a finished tree into its place, unless another process was faster."""
    # Temporary folders are private to their owner; a benchmark is as readable as any other folder.
    staging.chmod(0o755)
    try:
        staging.rename(root)
    except OSError:
        if not is_complete(root):
            raise FileExistsError(
                f"Expected {root} to be free or to hold a whole AVShapes tree (with {SETTINGS_FILE}), found something "
                "else there. Remove it, or choose another folder with `--out`."
            ) from None


def _remove_stale(parent: Path) -> None:
    """Remove what killed runs left behind, but nothing that another process may still be writing."""
    for leftover in parent.glob(".partial-*"):
        if time.time() - leftover.stat().st_mtime > _STALE_S:
            shutil.rmtree(leftover, ignore_errors=True)


def _write(settings: Settings, root: Path, workers: int) -> None:
    """Write every clip, then the tables, then the settings."""
    seed, world, sizes = settings.seed, settings.world, settings.sizes
    if isinstance(sizes, RefavsSizes):
        refavs = partial(write_refavs_clip, root=root, seed=seed, world=world, expressions=sizes.expressions)
        finish_refavs(root, _map(refavs, refavs_jobs(sizes), workers, settings.benchmark))
    elif isinstance(sizes, MevisSizes):
        mevis = partial(write_mevis_clip, root=root, seed=seed, world=world, sizes=sizes)
        finish_mevis(root, _map(mevis, mevis_jobs(sizes), workers, settings.benchmark))
    elif isinstance(sizes, RefcocogSizes):
        picture = partial(write_refcocog_picture, seed=seed, world=world)
        pictures = _map(picture, refcocog_jobs(sizes), workers, settings.benchmark)
        finish_refcocog(root, pictures, annotations=bool(sizes.annotations))
    else:
        revos = partial(write_revos_clip, root=root, seed=seed, world=world, sizes=sizes)
        finish_revos(root, _map(revos, revos_jobs(sizes), workers, settings.benchmark))
    record = {**asdict(settings), "format": FORMAT_VERSION}
    (root / SETTINGS_FILE).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8", newline="\n")


def _map(write: Callable[[_Job], _Result], jobs: list[_Job], workers: int, name: str) -> list[_Result]:
    """Write the clips, in several processes if asked, and return their results in order."""
    # joblib's workers, unlike those of multiprocessing, do not import the main program again.
    results = joblib.Parallel(n_jobs=workers, return_as="generator")(joblib.delayed(write)(job) for job in jobs)
    # disable=None: no bar in log files, where it would print a line per step.
    return list(tqdm(results, total=len(jobs), desc=f"Writing AVShapes {name}", unit="clip", disable=None))
