"""Several benchmarks in one run: the mixture that the method trains on, RefAVS, ReVOS, MeViS and RefCOCOg pictures.

Every step takes the prompts of one benchmark, on all processes. An epoch asks every prompt as often as the weight of
its source says. Each source is read, checked, drawn from and held out by its own data module; this one only joins them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from datamodules.base import AVSHAPES, ClipDataModule
from datamodules.errors import ConfigError
from datamodules.loaders import LoadingDataModule
from datamodules.mixture_order import MixedClips, MixtureOrder, Share
from datamodules.mixture_sources import Source, Sources, flags_of_source
from datamodules.modules import MeViSDataModule, RefAVSDataModule, ReVOSDataModule
from datamodules.order import ClipLoader, ResumableLoader
from datamodules.records import Clip, FrameBudget
from datamodules.refcocog_module import RefCOCOgDataModule
from datamodules.serving import ClipSet, OnBadSample
from datamodules.settings import check_settings
from datamodules.supervised import Answers

MODULES: dict[str, type[ClipDataModule]] = {
    "refavs": RefAVSDataModule,
    "revos": ReVOSDataModule,
    "mevis": MeViSDataModule,
    "refcocog": RefCOCOgDataModule,
}
"""The data module of every source, by the name of its folder."""

_WITH_NULLS = ("refavs", "revos")


_SOURCES = Sources()


class MixtureDataModule(LoadingDataModule):
    """RefAVS, ReVOS, MeViS and RefCOCOg in one run, one benchmark per step.

    Attributes:
        parts: The data module of every source whose weight is above 0.
    """

    def __init__(
        self,
        root: str = AVSHAPES,
        *,
        sources: Sources = _SOURCES,
        val_size: int | None = 32,
        test_size: int | None = None,
        val_null_fraction: float | None = 0.25,
        prompts_per_step: int = 1,
        val_batch_size: int = 4,
        glance_frames: int = 16,
        glance_max_pixels: int = 100_352,
        close_up_max_pixels: int = 705_600,
        fps: float = 1.0,
        eval_clip_frames: int | None = None,
        seed: int | None = None,
        num_workers: int = 0,
        on_bad_sample: OnBadSample = "raise",
        answers: Answers | None = None,
        answer_keyframes: int = 4,
        avshapes_seed: int = 0,
        avshapes_cache: str | None = None,
        video: str | None = None,
        expression: str | None = None,
    ) -> None:
        """Keep the settings; nothing is read or made yet.

        Args:
            root: Folder that holds refavs, revos, mevis and refcocog, or "avshapes" for the generated ones, which are
                made on first use.
            sources: What differs between the benchmarks; `--data.sources.mevis.weight 0` drops one.
            val_size: Most validation clips of each source, drawn alike for every seed; null takes all.
            test_size: Most clips of each test split, drawn alike for every seed; null takes all, as published numbers
                require.
            val_null_fraction: Share of the validation clips whose target is not there, in benchmarks that have such;
                it acts only where `val_size` is set. Null keeps the mixture.
            prompts_per_step: Prompts per training step on each process, all of one source.
            val_batch_size: Clips per validation or test batch; larger ones are faster and take more memory. Scores, the
                official ones of RefAVS included, do not depend on it.
            glance_frames: Most frames that System 1 sees of a clip, spread evenly.
            glance_max_pixels: Most pixels (height times width) of such a frame.
            close_up_max_pixels: Most pixels (height times width) of a keyframe that System 2 sees.
            fps: Frames per second at which a video file to predict is sampled.
            eval_clip_frames: Most frames of a clip in validation, test and prediction; null keeps all.
            seed: Non-negative; decides which prompts are drawn and in which order they come; null follows
                `--seed_everything`.
            num_workers: Processes that read clips ahead; 0 reads in the training process.
            on_bad_sample: What a missing or broken file does: "raise" stops the run and names it; "skip" leaves the
                clip out, names it once and counts it. In training another prompt of its source takes its place.
            answers: What training serves beside the clips, for supervised training: "labels", "oracle" or "places";
                null serves clips, as GRPO takes them. See `ClipDataModule`.
            answer_keyframes: Most moments of such an answer.
            avshapes_seed: Seed of the generated benchmarks.
            avshapes_cache: Folder that generated benchmarks are kept in; null takes the user's cache folder.
            video: Video file to predict on, in place of the benchmarks' test splits.
            expression: What to look for in it.

        Raises:
            ConfigError: Settings that cannot work; names those of the first source that has any.
        """
        budget = FrameBudget(glance_frames, glance_max_pixels, close_up_max_pixels)
        super().__init__(
            prompts_per_step=prompts_per_step,
            val_batch_size=val_batch_size,
            budget=budget,
            fps=fps,
            eval_clip_frames=eval_clip_frames,
            seed=seed,
            num_workers=num_workers,
            video=video,
            expression=expression,
        )
        self.root, self.val_size, self.test_size, self.answers = root, val_size, test_size, answers
        self.sources = {name: source for name in MODULES if (source := getattr(sources, name)).weight != 0}
        check_settings({**vars(self), **asdict(budget), "answer_keyframes": answer_keyframes}, known_splits=())
        wrong = [f"data.sources.{name}.weight is {s.weight}" for name, s in self.sources.items() if s.weight < 0]
        if wrong or not self.sources:
            raise ConfigError(
                f"{'; '.join(wrong) or 'every source of the mixture has weight 0'}. Set --data.sources.<name>.weight to"
                " 0, which drops a source, or more; one at least must be above 0."
            )
        shared = {
            "val_size": val_size,
            "test_size": test_size,
            "prompts_per_step": prompts_per_step,
            "val_batch_size": val_batch_size,
            "glance_frames": glance_frames,
            "glance_max_pixels": glance_max_pixels,
            "close_up_max_pixels": close_up_max_pixels,
            "eval_clip_frames": eval_clip_frames,
            "seed": seed,
            "num_workers": num_workers,
            "on_bad_sample": on_bad_sample,
            "answers": answers,
            "answer_keyframes": answer_keyframes,
            "avshapes_seed": avshapes_seed,
            "avshapes_cache": avshapes_cache,
        }
        nulls = {"val_null_fraction": val_null_fraction}
        self.parts = {
            name: self._part(name, source, shared | (nulls if name in _WITH_NULLS else {}))
            for name, source in self.sources.items()
        }

    def _part(self, name: str, source: Source, shared: Mapping[str, Any]) -> ClipDataModule:
        own = {key: value for key, value in vars(source).items() if key not in ("root", "weight") and value is not None}
        if "still_frames" in own and name != "refcocog":
            raise ConfigError(
                f"data.sources.{name}.still_frames is {source.still_frames}, and {name} has videos. Leave it null;"
                " --data.sources.refcocog.still_frames is about pictures."
            )
        root = source.root or (AVSHAPES if self.root == AVSHAPES else str(Path(self.root) / name))
        with flags_of_source(name):
            return MODULES[name](root, **{**shared, **own})

    def prepare_data(self) -> None:
        """Make the generated benchmarks, where they are wanted; called once per machine."""
        if self.trainer and self.asks_about_video(self.trainer.state.fn):
            return
        for name, part in self.parts.items():
            with flags_of_source(name):
                part.prepare_data()

    def setup(self, stage: str) -> None:
        """Check every folder, then open what a stage reads and draw from it.

        Args:
            stage: fit, validate, test or predict.

        Raises:
            ConfigError: There are no prompts of a kind that was asked for, or there is nothing to test on, or half a
                question about a video.
            DataLayoutError: A folder cannot be used.
            MediaError: The video to predict on cannot be read.
        """
        if self.asks_about_video(stage):
            _ = self.video_clip()  # a wrong path is found here, before any weights are read
            return
        needed = self._evaluated() if stage in ("test", "predict") else list(self.parts.values())
        for name, part in self.parts.items():
            if part not in needed:
                continue
            part.trainer = self.trainer
            with flags_of_source(name):
                part.setup(stage)

    def prefetch_with(self, prefetch: Callable[[Clip], object]) -> None:
        """Complete clips of all sources where they are read; see `LoadingDataModule`."""
        for part in self.parts.values():
            part.prefetch_with(prefetch)

    def _evaluated(self) -> list[ClipDataModule]:
        """The sources that have test splits."""
        found = [part for part in self.parts.values() if part.test_splits]
        if not found:
            raise ConfigError(
                f"none of the sources {', '.join(self.parts)} has a test split. Give a source that has one a"
                " --data.sources.<name>.weight above 0."
            )
        return found

    def train_dataloader(self) -> ResumableLoader:
        """Prompts of one source per step, in a new order every epoch; resumes exactly."""
        clips = MixedClips(list(self._train_clips().values()))
        return self.keep(ResumableLoader(clips, self.train_order(), num_workers=self.num_workers))

    def train_order(self) -> MixtureOrder:
        """Sources that take turns, at the beginning of an epoch. Known after `setup`."""
        rank, world_size = self.rank_and_world_size()
        shares = {
            name: Share(len(clips), round(len(clips) * self.sources[name].weight / _copies(self.sources[name])))
            for name, clips in self._train_clips().items()
        }
        return MixtureOrder(shares, batch_size=self.prompts_per_step, rank=rank, world_size=world_size, seed=self.seed)

    def val_dataloader(self) -> list[ClipLoader]:
        """The chosen validation clips of every source, in file order."""
        return self._kept([part.val_dataloader() for part in self.parts.values()])

    def test_dataloader(self) -> list[ClipLoader]:
        """One loader for each test split of every source that has any, in file order."""
        return self._kept([loader for part in self._evaluated() for loader in part.test_dataloader()])

    def predict_dataloader(self) -> list[ClipLoader]:
        """The video file and expression to predict on, or one loader for each test split; no ground truth.

        Raises:
            ConfigError: There is a video file and no expression, or the reverse.
            MediaError: The video cannot be read.
        """
        if self.asks_about_video("predict"):
            return [self.video_loader()]
        return self._kept([loader for part in self._evaluated() for loader in part.predict_dataloader()])

    def _kept(self, loaders: list[ClipLoader]) -> list[ClipLoader]:
        return [self.keep(loader) for loader in loaders]

    def _train_clips(self) -> dict[str, ClipSet]:
        """The prompts that an epoch chooses from, by source; those of a weight above 1 are listed more than once."""
        return {name: part.train_clips(copies=_copies(self.sources[name])) for name, part in self.parts.items()}


def _copies(source: Source) -> int:
    """How often a prompt must be listed so that an epoch can ask it as often as the weight says."""
    return max(1, math.ceil(source.weight))
