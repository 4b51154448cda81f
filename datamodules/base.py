"""What the data modules of single benchmarks share: settings, where the data is, and loaders for every stage.

Subclasses say how one benchmark is checked and read. Evaluation loaders serve every chosen clip once; with several
processes a process may be handed an empty list at the end, so that all of them take the same number of batches.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import ClassVar, Literal

from lightning.pytorch.utilities import rank_zero_warn

from datamodules.avshapes.make import ensure_avshapes
from datamodules.layout import LayoutReport
from datamodules.lessons import Lesson
from datamodules.loaders import LoadingDataModule
from datamodules.order import ClipLoader, ResumableLoader, TrainOrder
from datamodules.reader import ClipReader, WithoutTruth
from datamodules.records import Clip, FrameBudget, Task
from datamodules.selection import HELD_OUT_SEED, choose
from datamodules.serving import ClipSet, OnBadSample, read_ahead
from datamodules.settings import check_settings
from datamodules.supervised import Answers, teacher

Stage = Literal["train", "val", "test", "predict"]

AVSHAPES = "avshapes"
"""The root that stands for the generated benchmark."""


class ClipDataModule(LoadingDataModule):
    """Clips of one benchmark for training, validation and every test split, and any video file for prediction.

    Attributes:
        task: Which benchmark's rules apply to the clips.
        benchmark_splits: Test splits of the benchmark, in the order in which they are reported.
        unlabeled_splits: Further splits that can be predicted on and not tested, as their ground truth is not public.
        train_split: The benchmark's split that training draws from.
        val_split: The benchmark's split that validation draws from.
        prefetch: Called on every clip where it is read, in a worker if there are any, and may return another one to
            be served; replace it before the loaders are made to read ahead more or less.
    """

    task: ClassVar[Task]
    benchmark_splits: ClassVar[tuple[str, ...]]
    unlabeled_splits: ClassVar[tuple[str, ...]] = ()
    train_split: str = "train"
    val_split: str = "val"

    def __init__(
        self,
        root: str = AVSHAPES,
        *,
        train_size: int | None = None,
        val_size: int | None = 64,
        test_size: int | None = None,
        null_fraction: float | None = None,
        val_null_fraction: float | None = 0.25,
        test_null_fraction: float | None = None,
        same_questions: bool = False,
        test_splits: list[str] | None = None,
        prompts_per_step: int = 1,
        val_batch_size: int = 4,
        glance_frames: int = 16,
        glance_max_pixels: int = 100_352,
        close_up_max_pixels: int = 705_600,
        fps: float = 1.0,
        clip_frames: int | None = None,
        eval_clip_frames: int | None = None,
        seed: int | None = None,
        num_workers: int = 0,
        on_bad_sample: OnBadSample = "raise",
        answers: Answers | None = None,
        answer_keyframes: int = 4,
        avshapes_seed: int = 0,
        avshapes_sizes: dict[str, int] | None = None,
        avshapes_cache: str | None = None,
        video: str | None = None,
        expression: str | None = None,
    ) -> None:
        """Keep the settings; nothing is read or made yet.

        Args:
            root: Folder of the benchmark, or "avshapes" for the generated one, which is made on first use.
            train_size: Most training prompts per epoch, drawn once with the seed; null takes all.
            val_size: Most validation clips, drawn once and the same for every seed; null takes all.
            test_size: Most clips of each test split, drawn likewise; null takes all, as published numbers require.
            null_fraction: Share, 0 to 1, of training prompts whose target is not there; such prompts are repeated
                within an epoch where the split has too few. Null keeps the split's own mixture.
            val_null_fraction: The same share of the validation clips, without repeating any, so that a small
                validation set still measures both; it acts only where `val_size` is set. Null keeps the mixture.
            test_null_fraction: Likewise of the clips of each test split, where `test_size` is set; null for Ref-AVS
                Bench, whose absent targets are a split of their own.
            same_questions: Every epoch asks what the first one asked. Otherwise a benchmark that has several questions
                about a video asks others in each epoch.
            test_splits: Splits to test or predict on, each with a loader of its own; null takes all of the benchmark's.
            prompts_per_step: Prompts per training step on each process.
            val_batch_size: Clips per validation or test batch; larger ones are faster and take more memory. Scores, the
                official ones of RefAVS included, do not depend on it.
            glance_frames: Most frames that System 1 sees of a clip, spread evenly.
            glance_max_pixels: Most pixels (height times width) of such a frame.
            close_up_max_pixels: Most pixels (height times width) of a keyframe that System 2 sees.
            fps: Frames per second that stored frames stand for, and at which a video file to predict is sampled.
            clip_frames: Most frames of a training clip, spread evenly over the video; null keeps all.
            eval_clip_frames: The same for validation, test and prediction; null keeps all, as published numbers
                require.
            seed: Non-negative; decides which training prompts are drawn and in which order they come. Null takes the
                run's --seed_everything, and 0 where there is no command line.
            num_workers: Processes that read clips ahead; 0 reads in the training process.
            on_bad_sample: What a missing or broken file does: "raise" stops the run and names it; "skip" decodes every
                frame ahead of use, leaves a broken clip out, names it once and counts it. In training the next prompt
                takes its place.
            answers: What training serves beside the clips, for supervised training: "labels" makes right answers of
                the ground truth, with the expression as description; "oracle" describes the target itself and works
                on the generated benchmark alone; "places" says where it is. Null serves clips, as GRPO takes them.
            answer_keyframes: Most moments of such an answer.
            avshapes_seed: Seed of the generated benchmark.
            avshapes_sizes: Sizes of the generated benchmark that differ from its defaults, by name.
            avshapes_cache: Folder that generated benchmarks are kept in; null takes the user's cache folder.
            video: Video file to predict on, in place of the benchmark's test splits.
            expression: What to look for in it.

        Raises:
            ConfigError: Settings that cannot work; names all of them.
        """
        super().__init__(
            prompts_per_step=prompts_per_step,
            val_batch_size=val_batch_size,
            budget=FrameBudget(glance_frames, glance_max_pixels, close_up_max_pixels),
            fps=fps,
            eval_clip_frames=eval_clip_frames,
            seed=seed,
            num_workers=num_workers,
            video=video,
            expression=expression,
        )
        self.root = root
        self.train_size, self.val_size, self.test_size = train_size, val_size, test_size
        self.null_fraction, self.same_questions = null_fraction, same_questions
        self.val_null_fraction, self.test_null_fraction = val_null_fraction, test_null_fraction
        self.test_splits = tuple(self.benchmark_splits if test_splits is None else test_splits)
        self.clip_frames, self.on_bad_sample = clip_frames, on_bad_sample
        self.answers, self.answer_keyframes = answers, answer_keyframes
        self.avshapes_seed, self.avshapes_sizes, self.avshapes_cache = avshapes_seed, avshapes_sizes, avshapes_cache
        self.prefetch: Callable[[Clip], object] = read_ahead
        self._teach: Callable[[Clip], Lesson] | None = None
        self._drawn: dict[tuple[Stage, str], tuple[ClipReader, tuple[int, ...]]] = {}
        check_settings(
            {**vars(self), **asdict(self.budget)}, known_splits=(*self.benchmark_splits, *self.unlabeled_splits)
        )

    @abstractmethod
    def check_layout(self, root: Path, splits: Sequence[str]) -> LayoutReport:
        """Check the folder for some of the benchmark's splits.

        Args:
            root: The folder.
            splits: The benchmark's own names.

        Raises:
            DataLayoutError: The splits cannot be used.
        """

    @abstractmethod
    def open_split(self, root: Path, split: str, stage: Stage) -> ClipReader:
        """The clips of a split, as a stage sees them.

        Args:
            root: The folder.
            split: The benchmark's own name.
            stage: What the clips are for.
        """

    @property
    def data_root(self) -> Path:
        """The folder that clips are read from; the generated benchmark is made if it is not there yet."""
        if self.root != AVSHAPES:
            return Path(self.root)
        return ensure_avshapes(
            self.task, seed=self.avshapes_seed, sizes=self.avshapes_sizes, cache_dir=self.avshapes_cache
        )

    def prepare_data(self) -> None:
        """Make the generated benchmark, where it is wanted; called once per machine."""
        if self.root == AVSHAPES and not (self.trainer and self.asks_about_video(self.trainer.state.fn)):
            _ = self.data_root

    def setup(self, stage: str) -> None:
        """Check the folder, then open what a stage reads and draw from it.

        Args:
            stage: fit, validate, test or predict.

        Raises:
            ConfigError: There are no prompts of a kind that was asked for, or half a question about a video.
            DataLayoutError: The folder cannot be used, or true descriptions are asked for and it has none.
            MediaError: The video to predict on cannot be read.
        """
        if self.asks_about_video(stage):
            _ = self.video_clip()  # a wrong path is found here, before any weights are read
            return
        stages: dict[str, tuple[Stage, ...]] = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",)}
        parts = [(one, split) for one in stages.get(stage, ("predict",)) for split in self._splits(one)]
        wanted = [part for part in parts if part not in self._drawn]
        if not wanted:
            return
        root = self.data_root
        report = self.check_layout(root, tuple(dict.fromkeys(split for _, split in wanted)))
        for warning in report.warnings:
            rank_zero_warn(f"{report.base}: {warning}")
        if self.answers is not None and any(one == "train" for one, _ in wanted):
            self._teach = teacher(self.answers, self.answer_keyframes, root)
        for one, split in wanted:
            reader = self.open_split(root, split, one)
            reader = WithoutTruth(reader) if one == "predict" else reader
            self._drawn[one, split] = reader, self._draw(reader, one, split)

    def train_dataloader(self) -> ResumableLoader:
        """Prompts in a new order every epoch; resumes exactly."""
        return self.keep(ResumableLoader(self.train_clips(), self.train_order(), num_workers=self.num_workers))

    def train_clips(self, *, copies: int = 1) -> ClipSet:
        """The prompts of an epoch, before anything is put in order. Known after `setup`.

        Args:
            copies: How often each of them is listed; one that is asked again counts as another visit.
        """
        return self._clips("train", self.train_split, copies=copies)

    def prefetch_with(self, prefetch: Callable[[Clip], object]) -> None:
        """Complete clips where they are read; see `LoadingDataModule`."""
        self.prefetch = prefetch

    def train_order(self) -> TrainOrder:
        """A new permutation for every epoch, at its beginning. Known after `setup`."""
        rank, world_size = self.rank_and_world_size()
        size = len(self.train_clips())
        return TrainOrder(size, batch_size=self.prompts_per_step, rank=rank, world_size=world_size, seed=self.seed)

    def val_dataloader(self) -> ClipLoader:
        """The chosen validation clips, in file order."""
        return self.eval_loader(self._clips("val", self.val_split))

    def test_dataloader(self) -> list[ClipLoader]:
        """One loader for each of `test_splits`, in file order."""
        return [self.eval_loader(self._clips("test", split)) for split in self.test_splits]

    def predict_dataloader(self) -> list[ClipLoader]:
        """The video file and expression to predict on, or one loader for each of `test_splits`; no ground truth.

        Raises:
            ConfigError: There is a video file and no expression, or the reverse.
            MediaError: The video cannot be read.
        """
        if not self.asks_about_video("predict"):
            return [self.eval_loader(self._clips("predict", split)) for split in self.test_splits]
        return [self.video_loader()]

    def _splits(self, stage: Stage) -> tuple[str, ...]:
        return {"train": (self.train_split,), "val": (self.val_split,)}.get(stage, self.test_splits)

    def _draw(self, reader: ClipReader, stage: Stage, split: str) -> tuple[int, ...]:
        if stage == "train":
            return choose(
                reader.nulls,
                size=self.train_size,
                null_fraction=self.null_fraction,
                seed=self.seed,
                repeats_nulls=True,
                split=split,
            )
        size, share, setting = self.test_size, self.test_null_fraction, "data.test_null_fraction"
        if stage == "val":
            size, share, setting = self.val_size, self.val_null_fraction, "data.val_null_fraction"
        share = None if size is None else share
        return choose(reader.nulls, size=size, null_fraction=share, seed=HELD_OUT_SEED, setting=setting, split=split)

    def _clips(self, stage: Stage, split: str, *, copies: int = 1) -> ClipSet:
        if (stage, split) not in self._drawn:
            raise RuntimeError(f"the {stage} clips ({split}) are not open yet; call setup before asking for a loader.")
        reader, chosen = self._drawn[stage, split]
        trains = stage == "train"
        return ClipSet(
            reader,
            chosen=chosen * copies,
            same_questions=trains and self.same_questions,
            on_bad_sample=self.on_bad_sample,
            replaces_bad=trains,
            prefetch=self.prefetch,
            teach=self._teach if trains else None,
        )
