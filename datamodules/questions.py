"""Several questions about each video of a split: the form of ReVOS and MeViS."""

from __future__ import annotations

import zlib
from abc import abstractmethod
from collections.abc import Collection, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from datamodules.media import FolderFrames
from datamodules.reader import ClipReader
from datamodules.records import Clip, FrameBudget
from datamodules.revos_meta import Question, Video
from datamodules.thinning import spread


class VideoQuestions(ClipReader):
    """Every question about every video of a split, in the order of the table; subclasses say how a clip is made."""

    def __init__(
        self,
        videos: Sequence[Video],
        *,
        chosen: Collection[str] | None,
        fps: float,
        clip_frames: int | None,
        budget: FrameBudget | None,
    ) -> None:
        """Keep the table; no media is opened.

        Args:
            videos: All videos of the split.
            chosen: Names of the videos to serve; None serves all.
            fps: Frames per second that the stored frames stand for.
            clip_frames: Most frames of a clip; longer videos are thinned out evenly and their pace is lowered to
                match. None serves every frame.
            budget: How much of a clip each system may look at; None takes the defaults.
        """
        self.videos = tuple(video for video in videos if chosen is None or video.name in chosen)
        self.items = tuple((video, question) for video in self.videos for question in video.questions)
        self.budget = budget or FrameBudget()
        self._fps = fps
        self._clip_frames = clip_frames

    @cached_property
    def nulls(self) -> tuple[bool, ...]:
        """For each question, whether its target is not in the video."""
        return tuple(question.is_null for _, question in self.items)

    @cached_property
    def positions(self) -> dict[tuple[str, str], int]:
        """Where each question stands, by the names of video and question."""
        return {(video.name, question.id): index for index, (video, question) in enumerate(self.items)}

    def clip(self, index: int, *, visit: int = 0) -> Clip:
        """The clip of one question; every visit is the same.

        Args:
            index: Position among the questions of the split.
            visit: Not used.
        """
        return self.make_clip(*self.items[index])

    @abstractmethod
    def make_clip(self, video: Video, question: Question) -> Clip:
        """The clip of a question about a video.

        Args:
            video: One of `videos`.
            question: One of its questions.
        """

    def kept(self, video: Video) -> tuple[int, ...]:
        """Which frames of a video its clips show."""
        return spread(len(video.frames), self._clip_frames)

    def open_frames(self, video: Video, folder: Path, clip_id: str) -> FolderFrames:
        """The frames that a clip shows; none is opened.

        Args:
            video: One of `videos`.
            folder: Where its frames are.
            clip_id: What error messages call the clip.
        """
        kept = self.kept(video)
        files = [folder / f"{video.frames[index]}.jpg" for index in kept]
        return FolderFrames(files, fps=self._fps * len(kept) / len(video.frames), clip_id=clip_id)


class QuestionRounds(ClipReader):
    """One question per video and visit.

    A video's questions are drawn without repetition until all were asked, then anew in another order. Which one a
    visit asks depends on the seed, the video and the number of the visit alone. Videos of fewer than two frames are
    left out, as in the official training code.
    """

    def __init__(self, questions: VideoQuestions, *, separates_nulls: bool = False, seed: int = 0) -> None:
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
