"""Data modules of the recipes that make the tiny reasoner: freshly drawn scenes, no files.

With `unseen_share` all of the world is taught, the looks and tones of the benchmark's unseen split too: a released
model has met most things before it is trained for a task. No demonstration is about a scene that holds one of them.
"""

from __future__ import annotations

from typing import TypeVar

import lightning as L
from torch.utils.data import DataLoader, IterableDataset

from datamodules.avshapes.lesson_stream import LessonStream
from datamodules.avshapes.perception import PerceptionBatch, PerceptionStream
from datamodules.avshapes.world import World
from datamodules.lessons import Lesson
from datamodules.workers import set_up_worker, start_method

_Batch = TypeVar("_Batch")

_HELD_OUT = 1_000_003
"""Added to the seed of what is held out, so that no scene is drawn for both."""


class PerceptionData(L.LightningDataModule):
    """Labeled pictures and sounds for `PerceptionModule`.

    Args:
        steps: Training batches.
        pairs: Frame pairs per batch, each from another scene.
        clips: Sounds per batch.
        val_pairs: Held-out frame pairs; half as many sounds.
        side: Frame side in pixels.
        cells: Visual tokens per frame side.
        tokens: Sound tokens per clip.
        unseen_share: Share of the scenes that hold a look or a tone of the benchmark's unseen split.
        seed: Of the scenes.
        workers: Processes that draw scenes while the model trains.
    """

    def __init__(
        self,
        steps: int = 1000,
        *,
        pairs: int = 60,
        clips: int = 12,
        val_pairs: int = 200,
        side: int = 112,
        cells: int = 4,
        tokens: int = 50,
        unseen_share: float = 0.0,
        seed: int = 1,
        workers: int = 1,
    ) -> None:
        super().__init__()
        self.workers = workers
        grid = {"side": side, "cells": cells, "tokens": tokens, "world": World()}
        self.train = PerceptionStream(
            seed=seed,
            pairs=pairs,
            clips=clips,
            steps=steps,
            unseen_share=unseen_share,
            **grid,  # type: ignore[arg-type]
        )
        grid |= {"seed": seed + _HELD_OUT, "pairs": val_pairs, "clips": val_pairs // 2, "steps": 1}
        self.held_out = [PerceptionStream(unseen_share=share, **grid) for share in (0.0, 1.0)]  # type: ignore[arg-type]

    def train_dataloader(self) -> DataLoader[PerceptionBatch]:
        """Fresh scenes."""
        return _as_is(self.train, self.workers)

    def val_dataloader(self) -> list[DataLoader[PerceptionBatch]]:
        """The same held-out scenes every time, without unseen pairs and with them, as `PerceptionModule` names them."""
        return [_as_is(stream, 0) for stream in self.held_out]


class LessonData(L.LightningDataModule):
    """Lessons for `SFTModule`.

    Args:
        steps: Training batches.
        clips: Clips per batch.
        expressions: Expressions per clip that are asked about.
        demonstrations: Of these, how many are answered in the answer form.
        world_questions: Plain questions per clip, at most.
        null_share: Share of the expressions whose target is not there.
        noticed_absence: Share of the demonstrations for these that say so; the others name some thing.
        val_steps: Held-out batches.
        unseen_share: Share of the scenes that hold a look or a tone of the benchmark's unseen split. They are asked
            about, and never demonstrated.
        val_unseen_share: The same for the validation scenes.
        seed: Of the scenes.
        workers: Processes that draw scenes while the model trains.
    """

    def __init__(
        self,
        steps: int = 1000,
        *,
        clips: int = 8,
        expressions: int = 5,
        demonstrations: int = 1,
        world_questions: int = 12,
        null_share: float = 0.4,
        noticed_absence: float = 0.3,
        val_steps: int = 10,
        unseen_share: float = 0.0,
        val_unseen_share: float = 0.0,
        seed: int = 2,
        workers: int = 1,
    ) -> None:
        super().__init__()
        self.workers = workers
        asked = {
            "clips": clips,
            "expressions": expressions,
            "demonstrations": demonstrations,
            "world_questions": world_questions,
            "null_share": null_share,
            "noticed_absence": noticed_absence,
            "world": World(),
        }
        self.train = LessonStream(seed=seed, steps=steps, unseen_share=unseen_share, **asked)  # type: ignore[arg-type]
        asked |= {"seed": seed + _HELD_OUT, "steps": val_steps, "unseen_share": val_unseen_share}
        self.held_out = LessonStream(**asked)  # type: ignore[arg-type]

    def train_dataloader(self) -> DataLoader[list[Lesson]]:
        """Fresh scenes."""
        return _as_is(self.train, self.workers)

    def val_dataloader(self) -> DataLoader[list[Lesson]]:
        """The same held-out scenes every time."""
        return _as_is(self.held_out, 0)


def _as_is(stream: IterableDataset[_Batch], workers: int) -> DataLoader[_Batch]:
    """A loader that hands over whole batches as the stream makes them, in its order."""
    return DataLoader(
        stream,
        batch_size=None,
        collate_fn=None,
        num_workers=workers,
        worker_init_fn=set_up_worker,
        multiprocessing_context=start_method(workers),
    )
