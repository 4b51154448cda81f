"""What data modules of one benchmark and of several share: loaders, counts, and a video file to predict on.

A batch is a list of `Clip`, or of `Lesson` where training is supervised: nothing is padded, stacked or moved to a
device here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable
from typing import TypeVar

import lightning as L
import torch

from datamodules.lessons import Lesson
from datamodules.order import ClipLoader, EvalOrder, TrainOrder
from datamodules.records import Clip, FrameBudget
from datamodules.serving import ClipSet
from datamodules.video import SingleClip, video_question

_Loader = TypeVar("_Loader", bound=ClipLoader)


class LoadingDataModule(L.LightningDataModule, ABC):
    """Loaders that share their clips among processes, and what is known about them.

    Attributes:
        budget: How much of a clip each system may look at.
    """

    def __init__(
        self,
        *,
        prompts_per_step: int,
        val_batch_size: int,
        budget: FrameBudget,
        fps: float,
        eval_clip_frames: int | None,
        seed: int | None,
        num_workers: int,
        video: str | None,
        expression: str | None,
    ) -> None:
        """Keep the settings; what they mean is said where they are set.

        Args:
            prompts_per_step: Prompts per training step on each process.
            val_batch_size: Clips per validation or test batch.
            budget: How much of a clip each system may look at.
            fps: Frames per second at which a video file to predict is sampled.
            eval_clip_frames: Most frames of it; None keeps all.
            seed: Of the training order; None is 0.
            num_workers: Processes that read clips ahead.
            video: Video file to predict on.
            expression: What to look for in it.
        """
        super().__init__()
        self.prompts_per_step, self.val_batch_size = prompts_per_step, val_batch_size
        self.budget, self.fps, self.eval_clip_frames = budget, fps, eval_clip_frames
        self.seed, self.num_workers = 0 if seed is None else seed, num_workers
        self.video, self.expression = video, expression
        self._loaders: list[ClipLoader] = []

    @abstractmethod
    def train_order(self) -> TrainOrder:
        """The order of training prompts, at its beginning. Known after `setup`."""

    @abstractmethod
    def prefetch_with(self, prefetch: Callable[[Clip], object]) -> None:
        """Let a function complete every clip where it is read, in a worker if there are any.

        Args:
            prefetch: Called on every clip before it is served; a clip that it returns is served instead. Takes effect
                on loaders that are made later.
        """

    @property
    def rollouts_per_epoch(self) -> int:
        """Rollout phases, that is training batches, per epoch; the same on every process. Known after `setup`."""
        return len(self.train_order())

    def steps_per_epoch(self, *, updates_per_rollout: int = 1) -> int:
        """Optimizer steps per epoch. Known after `setup`.

        Args:
            updates_per_rollout: Optimizer steps that each rollout phase is followed by.
        """
        return self.rollouts_per_epoch * updates_per_rollout

    @property
    def skipped(self) -> Counter[str]:
        """How often each broken clip was left out in this process, by clip id; empty unless broken ones are skipped."""
        return sum((loader.skipped for loader in self._loaders), Counter())

    def transfer_batch_to_device(
        self, batch: list[Clip | Lesson], device: torch.device, dataloader_idx: int
    ) -> list[Clip | Lesson]:
        """Leave records as they are: they hold no tensors, and Lightning refuses to look into frozen ones.

        Args:
            batch: Clips or lessons.
            device: Not used.
            dataloader_idx: Not used.
        """
        return batch

    def asks_about_video(self, command: str | None) -> bool:
        """Whether a command is about a video file and no benchmark.

        Args:
            command: fit, validate, test or predict.
        """
        return command == "predict" and (self.video is not None or self.expression is not None)

    def video_loader(self) -> ClipLoader:
        """The video file and expression to predict on.

        Raises:
            ConfigError: There is a video file and no expression, or the reverse.
            MediaError: The video cannot be read.
        """
        return self.eval_loader(ClipSet(SingleClip(self.video_clip())))

    def video_clip(self) -> Clip:
        """The clip of the video file and expression to predict on.

        Raises:
            ConfigError: There is a video file and no expression, or the reverse.
            MediaError: The video cannot be read.
        """
        frames = self.eval_clip_frames
        return video_question(self.video, self.expression, fps=self.fps, max_frames=frames, budget=self.budget)

    def eval_loader(self, clips: ClipSet) -> ClipLoader:
        """Every clip once, in order, shared among the processes.

        Args:
            clips: What to serve.
        """
        rank, world_size = self.rank_and_world_size()
        order = EvalOrder(len(clips), batch_size=self.val_batch_size, rank=rank, world_size=world_size)
        return self.keep(ClipLoader(clips, order, num_workers=self.num_workers))

    def keep(self, loader: _Loader) -> _Loader:
        """Count what a loader leaves out."""
        self._loaders.append(loader)
        return loader

    def rank_and_world_size(self) -> tuple[int, int]:
        """Number of this process and of all; (0, 1) without a trainer."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer is not None else (0, 1)
