"""The data module of RefCOCOg pictures: clips that stand still, for training alone or as part of a mixture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.base import AVSHAPES, ClipDataModule, Stage
from datamodules.errors import ConfigError
from datamodules.layout import LayoutReport, check_refcocog
from datamodules.reader import ClipReader
from datamodules.refcocog import RefCOCOg
from datamodules.refcocog_table import TREE, read_rows
from datamodules.selection import HELD_OUT_SEED

_HELD_OUT = 10
"""One in so many pictures is held out for validation, the same for every seed."""


class RefCOCOgDataModule(ClipDataModule):
    """refCOCOg_2k_840: pictures with one expression each, of which every tenth validates; there is no test split."""

    task = "refcocog"
    benchmark_splits = ()
    val_split = "train"

    def __init__(
        self,
        root: str = AVSHAPES,
        *,
        fps: float = 1.0,
        still_frames: int = 1,
        val_null_fraction: float | None = None,
        **shared: Any,  # noqa: ANN401
    ) -> None:
        """Keep the settings; nothing is read or made yet.

        Args:
            root: Folder of the set (holds data/train-*.parquet), or "avshapes" for the generated one, which is made on
                first use.
            fps: Frames per second: a picture stands for still_frames / fps seconds.
            still_frames: How many equal frames a picture is served as. A model that has never met a video of one frame
                needs more; one is what the rest costs least with.
            val_null_fraction: As for every benchmark; every target of this one is there.
            **shared: The settings of `ClipDataModule`.

        Raises:
            ConfigError: Settings that cannot work; names all of them.
        """
        self.still_frames = still_frames  # before the rest, which checks all settings at once
        super().__init__(root, fps=fps, val_null_fraction=val_null_fraction, **shared)

    def setup(self, stage: str) -> None:
        """As for every benchmark; there is nothing to test on.

        Args:
            stage: fit, validate, test or predict.

        Raises:
            ConfigError: A test, or a prediction on no video file.
            DataLayoutError: The folder cannot be used.
        """
        if stage in ("test", "predict") and not self.asks_about_video(stage):
            raise ConfigError(
                f"refCOCOg_2k_840 has no split to {stage} on. Use validate, or name a benchmark that has one with"
                " --data RefAVSDataModule."
            )
        super().setup(stage)

    def check_layout(self, root: Path, splits: Sequence[str]) -> LayoutReport:
        """Check the folder.

        Args:
            root: The folder.
            splits: train.

        Raises:
            DataLayoutError: The folder cannot be used.
        """
        return check_refcocog(root, splits=splits, may_skip=self.on_bad_sample == "skip")

    def open_split(self, root: Path, split: str, stage: Stage) -> ClipReader:
        """The pictures of a stage: one in ten validates, the others train.

        Args:
            root: The folder.
            split: train.
            stage: What the clips are for.
        """
        rows = read_rows(TREE.find(root), split)
        order = np.random.default_rng(HELD_OUT_SEED).permutation(len(rows))
        held_out = set(order[: max(1, len(rows) // _HELD_OUT)].tolist())
        chosen = [row for row in rows if (row.number in held_out) == (stage == "val")]
        return RefCOCOg(root, fps=self.fps, still_frames=self.still_frames, budget=self.budget, rows=chosen)
