"""ReVOS as clips: long videos without sound, explicit, implicit and unanswerable questions about one or more objects.

Each object of a question keeps its own masks; what overlaps is joined when the union is taken (the official scorer
adds instead). Frames carry no times; the pace that they stand for is a setting.

Reference:
    VISA: Reasoning Video Object Segmentation via Large Language Models, arXiv:2407.11325; cilinyan/ReVOS-api.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from datamodules.clean import clean_expression
from datamodules.media import FolderFrames, spread
from datamodules.reader import ClipReader
from datamodules.records import Clip, FrameBudget
from datamodules.revos_masks import ReVOSMasks
from datamodules.revos_meta import FOREGROUND, MASKS, SPLITS, TREE, Question, Video, read_videos

DEFAULT_FPS = 2.0
"""Pace of the stored frames unless told otherwise: the time base of the method's authors for video segmentation. The
release has no times, and its sources differ."""


def frame_folder(base: Path, video: str) -> Path:
    """Where a video's frames are: under ``JPEGImages`` as released, or directly under the root as redistributed.

    Args:
        base: Folder that holds the tables.
        video: The video's name, with slashes.
    """
    released = base / "JPEGImages" / video
    return released if released.is_dir() else base / video


class ReVOS(ClipReader):
    """Every question about every video of a split, in the order of the table."""

    def __init__(
        self,
        root: Path | str,
        *,
        split: str,
        fps: float = DEFAULT_FPS,
        clip_frames: int | None = None,
        budget: FrameBudget | None = None,
        videos: Collection[str] | None = None,
    ) -> None:
        """Read the table; no media is opened.

        Args:
            root: The benchmark's folder, or the one that an archive wrapped it in.
            split: train or valid.
            fps: Frames per second that the stored frames stand for.
            clip_frames: Most frames of a clip; longer videos are thinned out evenly and their pace is lowered to
                match. None serves every frame.
            budget: How much of a clip each system may look at; None takes the defaults.
            videos: Names of the videos to serve; None serves all.

        Raises:
            DataLayoutError: There is no readable table.
            ValueError: There is no such split.
        """
        if split not in SPLITS:
            raise ValueError(f"ReVOS has no split {split!r}; it has {', '.join(SPLITS)}.")
        self.base = TREE.find(Path(root))
        self.split = split
        self.videos = tuple(video for video in read_videos(self.base, split) if videos is None or video.name in videos)
        self.items = tuple((video, question) for video in self.videos for question in video.questions)
        self._fps = fps
        self._clip_frames = clip_frames
        self._budget = budget or FrameBudget()
        self._has_foreground = (self.base / FOREGROUND).is_file()

    @cached_property
    def nulls(self) -> tuple[bool, ...]:
        """For each question, whether its target is not in the video."""
        return tuple(question.is_null for _, question in self.items)

    def clip(self, index: int, *, visit: int = 0) -> Clip:
        """The clip of one question; every visit is the same.

        Args:
            index: Position among the questions of the split.
            visit: Not used.
        """
        return self.make_clip(*self.items[index])

    def make_clip(self, video: Video, question: Question) -> Clip:
        """The clip of a question about a video.

        Args:
            video: One of `videos`.
            question: One of its questions.
        """
        clip_id = f"revos/{self.split}/{video.name}/{question.id}"
        kept = spread(len(video.frames), self._clip_frames)
        folder = frame_folder(self.base, video.name)
        frames = FolderFrames(
            [folder / f"{video.frames[index]}.jpg" for index in kept],
            fps=self._fps * len(kept) / len(video.frames),
            clip_id=clip_id,
        )
        masks = ReVOSMasks(self.base / MASKS, self.base / FOREGROUND, frames, kept, len(video.frames), clip_id)
        # A null question has no target, whatever its entry lists; without any entry there is no ground truth.
        targets = () if question.is_null else question.annotations
        return Clip(
            id=clip_id,
            task="revos",
            split=self.split,
            kind=question.kind,
            expression=clean_expression(question.text),
            frames=frames,
            budget=self._budget,
            video=video.name,
            expression_id=question.id,
            is_null=question.is_null,
            mask_source=None if targets is None else partial(masks.objects, targets),
            foreground_source=partial(masks.everything, video.name) if self._has_foreground else None,
        )


class ReVOSVideos(ClipReader):
    """One question per video and visit.

    A video's questions are drawn without repetition until all were asked, then anew in another order. Which one a
    visit asks depends on the seed, the video and the number of the visit alone. Videos of fewer than two frames are
    left out, as in the official training code.
    """

    def __init__(self, questions: ReVOS, *, separates_nulls: bool = False, seed: int = 0) -> None:
        """Group questions by video.

        Args:
            questions: What may be asked.
            separates_nulls: Give a video that has questions with and without a target two positions, one for each
                kind, so that the share of either can be set.
            seed: Non-negative; decides what each visit asks.
        """
        self._questions = questions
        self._seed = seed
        items: list[tuple[Video, tuple[Question, ...]]] = []
        for video in questions.videos:
            nulls = tuple(question for question in video.questions if question.is_null)
            present = tuple(question for question in video.questions if not question.is_null)
            pools = (present, nulls) if separates_nulls else (video.questions,)
            items += [(video, pool) for pool in pools if pool and len(video.frames) >= 2]
        self.items = tuple(items)

    @cached_property
    def nulls(self) -> tuple[bool, ...]:
        """For each position, whether all of its questions are about targets that are not in the video."""
        return tuple(all(question.is_null for question in pool) for _, pool in self.items)

    def clip(self, index: int, *, visit: int = 0) -> Clip:
        """The clip of one video, asked something.

        Args:
            index: Position among the videos that are served.
            visit: How often this position was served before.
        """
        video, pool = self.items[index]
        turn, place = divmod(visit, len(pool))
        # The name and not the position: leaving out other videos changes nothing for this one.
        key = [self._seed, turn, zlib.crc32(video.name.encode()), int(self.nulls[index])]
        order = np.random.default_rng(key).permutation(len(pool))
        return self._questions.make_clip(video, pool[int(order[place])])
