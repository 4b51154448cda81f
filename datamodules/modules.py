"""The data modules that the command line offers.

All take every setting of `ClipDataModule`; only what differs is written out here. The defaults of `configs/` are tuned
to the generated benchmark, those here to the real ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, Literal

import numpy as np

from datamodules import mevis, refavs, revos_meta
from datamodules.base import AVSHAPES, ClipDataModule, Stage
from datamodules.errors import ConfigError
from datamodules.layout import LayoutReport, check_mevis, check_refavs, check_revos
from datamodules.mevis import MeViS
from datamodules.questions import QuestionRounds, VideoQuestions
from datamodules.reader import ClipReader
from datamodules.refavs import RefAVS
from datamodules.revos import DEFAULT_FPS, ReVOS
from datamodules.selection import HELD_OUT_SEED

_HELD_OUT = 10
"""One in so many training videos of ReVOS and MeViS is held out for validation."""


class RefAVSDataModule(ClipDataModule):
    """Ref-AVS Bench: 10-second clips with sound, ten frames each; tests on seen, unseen and absent targets."""

    task = "refavs"
    benchmark_splits = tuple(split for split in refavs.SPLITS if split.startswith("test"))

    def __init__(
        self,
        root: str = AVSHAPES,
        *,
        train_size: int | None = 1600,
        **shared: Any,  # noqa: ANN401
    ) -> None:
        """Keep the settings; nothing is read or made yet.

        Args:
            root: Folder of the benchmark (holds metadata.csv), or "avshapes" for the generated one, which is made on
                first use.
            train_size: Most training prompts per epoch, drawn once with the seed; the paper uses 1600. Null takes all.
            **shared: The settings of `ClipDataModule`.

        Raises:
            ConfigError: Settings that cannot work; names all of them.
        """
        super().__init__(root, train_size=train_size, **shared)

    def check_layout(self, root: Path, splits: Sequence[str]) -> LayoutReport:
        """Check the folder for some of the benchmark's splits.

        Args:
            root: The folder.
            splits: The benchmark's own names.

        Raises:
            DataLayoutError: The splits cannot be used.
        """
        return check_refavs(root, splits=splits, may_skip=self.on_bad_sample == "skip")

    def open_split(self, root: Path, split: str, stage: Stage) -> ClipReader:
        """The rows of a split, one clip each.

        Args:
            root: The folder.
            split: The benchmark's own name.
            stage: What the clips are for; `clip_frames` thins out training clips, `eval_clip_frames` all others.
        """
        frames = self.clip_frames if stage == "train" else self.eval_clip_frames
        return RefAVS(root, split=split, fps=self.fps, clip_frames=frames, budget=self.budget)


class VideoDataModule(ClipDataModule):
    """Several questions about each video: what ReVOS and MeViS share.

    Attributes:
        table: Module that finds and reads the benchmark's table.
        reader: Reads its questions.
    """

    table: ClassVar[ModuleType]
    reader: ClassVar[type[ReVOS | MeViS]]

    def open_split(self, root: Path, split: str, stage: Stage) -> ClipReader:
        """The videos (training) or questions (otherwise) of a split.

        Args:
            root: The folder.
            split: The benchmark's own name.
            stage: What the clips are for.
        """
        videos = self.table.read_videos(self.table.TREE.find(root), split)
        questions = self.reader(
            root,
            split=split,
            fps=self.fps,
            clip_frames=self.clip_frames if stage == "train" else self.eval_clip_frames,
            budget=self.budget,
            videos=self._videos([video.name for video in videos], split, stage),
        )
        return self._as_asked(questions, stage)

    def _as_asked(self, questions: VideoQuestions, stage: Stage) -> ClipReader:
        """Training asks one question per video and visit, everything else all of them."""
        if stage != "train":
            return questions
        return QuestionRounds(questions, separates_nulls=self.null_fraction is not None, seed=self.seed)

    def _videos(self, names: Sequence[str], split: str, stage: Stage) -> frozenset[str] | None:
        """Names of the videos that a stage may see; None for all."""
        if self.val_split != self.train_split or split != self.train_split:
            return None
        order = np.random.default_rng(HELD_OUT_SEED).permutation(len(names))
        held_out = frozenset(names[index] for index in order[: max(1, len(names) // _HELD_OUT)])
        return held_out if stage == "val" else frozenset(names) - held_out


class ReVOSDataModule(VideoDataModule):
    """ReVOS: long videos without sound; training asks one random question per video and visit."""

    task = "revos"
    table: ClassVar[ModuleType] = revos_meta
    reader: ClassVar[type[ReVOS | MeViS]] = ReVOS
    benchmark_splits = ("valid",)

    def __init__(
        self,
        root: str = AVSHAPES,
        *,
        val_split: Literal["train", "valid"] = "train",
        fps: float = DEFAULT_FPS,
        clip_frames: int | None = 16,
        **shared: Any,  # noqa: ANN401
    ) -> None:
        """Keep the settings; nothing is read or made yet.

        Args:
            root: Folder of the benchmark (holds meta_expressions_train_.json), or "avshapes" for the generated one,
                which is made on first use.
            val_split: Where validation clips come from. "train" holds out every tenth training video, the same
                ones for every seed. "valid" trains on all videos and validates on the benchmark's test set, so nothing
                may then be chosen by validation scores.
            fps: Frames per second that the stored frames stand for, and at which a video file to predict is sampled.
                The release has no times; 2 is the time base of the method's authors. A generated benchmark has 1.
            clip_frames: Most frames of a training clip, spread evenly over the video; null keeps all.
            **shared: The settings of `ClipDataModule`.

        Raises:
            ConfigError: Settings that cannot work; names all of them.
        """
        self.val_split = val_split
        super().__init__(root, fps=fps, clip_frames=clip_frames, **shared)

    def check_layout(self, root: Path, splits: Sequence[str]) -> LayoutReport:
        """Check the folder for some of the benchmark's splits.

        Args:
            root: The folder.
            splits: The benchmark's own names.

        Raises:
            DataLayoutError: The splits cannot be used.
        """
        return check_revos(root, splits=splits, may_skip=self.on_bad_sample == "skip")


class MeViSDataModule(VideoDataModule):
    """MeViS: videos without sound, sentences about motion; training asks one random question per video and visit."""

    task = "mevis"
    table: ClassVar[ModuleType] = mevis
    reader: ClassVar[type[ReVOS | MeViS]] = MeViS
    benchmark_splits = ("valid_u",)
    unlabeled_splits = mevis.WITHOUT_MASKS

    def __init__(
        self,
        root: str = AVSHAPES,
        *,
        val_split: Literal["train", "valid_u"] = "train",
        fps: float = mevis.DEFAULT_FPS,
        clip_frames: int | None = 16,
        val_null_fraction: float | None = None,
        **shared: Any,  # noqa: ANN401
    ) -> None:
        """Keep the settings; nothing is read or made yet.

        Args:
            root: Folder of the benchmark (holds train, valid_u and valid), or "avshapes" for the generated one, which
                is made on first use.
            val_split: Where validation clips come from. "train" holds out every tenth training video, the same
                ones for every seed. "valid_u" trains on all videos and validates on the test set, so nothing may then
                be chosen by validation scores.
            fps: Frames per second that the stored frames stand for, and at which a video file to predict is sampled.
                The release has no times. A generated benchmark has 1.
            clip_frames: Most frames of a training clip, spread evenly over the video; null keeps all.
            val_null_fraction: As for every benchmark; the first release has no absent targets.
            **shared: The settings of `ClipDataModule`.

        Raises:
            ConfigError: Settings that cannot work; names all of them.
        """
        self.val_split = val_split
        super().__init__(root, fps=fps, clip_frames=clip_frames, val_null_fraction=val_null_fraction, **shared)

    def setup(self, stage: str) -> None:
        """As for every benchmark; a split without public ground truth cannot be tested on.

        Args:
            stage: fit, validate, test or predict.

        Raises:
            ConfigError: `test_splits` names such a split for a test.
            DataLayoutError: The folder cannot be used.
        """
        unlabeled = [split for split in self.test_splits if split in self.unlabeled_splits]
        if unlabeled and stage == "test":
            raise ConfigError(
                f"data.test_splits names {', '.join(unlabeled)}, whose ground truth is not public. Use predict, or set"
                f" --data.test_splits [{','.join(self.benchmark_splits)}]."
            )
        super().setup(stage)

    def check_layout(self, root: Path, splits: Sequence[str]) -> LayoutReport:
        """Check the folder for some of the benchmark's splits.

        Args:
            root: The folder.
            splits: The benchmark's own names.

        Raises:
            DataLayoutError: The splits cannot be used.
        """
        return check_mevis(root, splits=splits, may_skip=self.on_bad_sample == "skip")
