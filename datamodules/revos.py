"""ReVOS as clips: long videos without sound, explicit, implicit and unanswerable questions about one or more objects.

Each object of a question keeps its own masks; what overlaps is joined when the union is taken (the official scorer
adds instead). Frames carry no times; the pace that they stand for is a setting.

Reference:
    VISA: Reasoning Video Object Segmentation via Large Language Models, arXiv:2407.11325; cilinyan/ReVOS-api.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from pathlib import Path

from datamodules.clean import clean_expression
from datamodules.questions import VideoQuestions
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


class ReVOS(VideoQuestions):
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
        table = read_videos(self.base, split)
        super().__init__(table, chosen=videos, fps=fps, clip_frames=clip_frames, budget=budget)
        self._has_foreground = (self.base / FOREGROUND).is_file()

    def make_clip(self, video: Video, question: Question) -> Clip:
        """The clip of a question about a video.

        Args:
            video: One of `videos`.
            question: One of its questions.
        """
        clip_id = f"revos/{self.split}/{video.name}/{question.id}"
        kept = self.kept(video)
        frames = self.open_frames(video, frame_folder(self.base, video.name), clip_id)
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
            budget=self.budget,
            video=video.name,
            expression_id=question.id,
            frame_names=tuple(video.frames[index] for index in kept),
            group=question.group,
            position=self.positions[video.name, question.id],
            is_null=question.is_null,
            mask_source=None if targets is None else partial(masks.objects, targets),
            foreground_source=partial(masks.everything, video.name) if self._has_foreground else None,
        )
