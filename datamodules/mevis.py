"""MeViS as clips: videos without sound, sentences about the motion of one object or several.

The first release (2023). The tables have the form of those of ReVOS without types, one folder per split; the split
`valid` has no masks, its answers are scored by the benchmark's server. Frames carry no times; the pace that they stand
for is a setting. The 2025 extension with sound and absent targets has another layout and is not read.

Reference:
    MeViS: A Large-scale Benchmark for Video Segmentation with Motion Expressions, arXiv:2308.08544.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from pathlib import Path

from datamodules.clean import clean_expression
from datamodules.questions import VideoQuestions
from datamodules.records import Clip, FrameBudget
from datamodules.revos_masks import ReVOSMasks
from datamodules.revos_meta import Question, Video, read_table
from datamodules.tree import Tree

SPLITS = ("train", "valid_u", "valid")
WITHOUT_MASKS = ("valid",)
"""Splits whose ground truth is not public."""

META = "meta_expressions.json"
MASKS = "mask_dict.json"

DEFAULT_FPS = 2.0
"""Pace of the stored frames unless told otherwise, as for ReVOS; the release has no times."""

TREE = Tree(
    command="mevis",
    title="MeViS",
    picture="""
<root>/<split>/meta_expressions.json                    <split> is train, valid_u or valid
<root>/<split>/mask_dict.json                           (valid has none)
<root>/<split>/JPEGImages/<video>/<frame>.jpg
""",
    markers=tuple(f"{split}/{META}" for split in SPLITS),
    folders=("MeViS_release", "MeViS", "mevis"),
)


def read_videos(base: Path, split: str) -> list[Video]:
    """Read the table of a split.

    Args:
        base: Folder that holds the splits.
        split: train, valid_u or valid.

    Returns:
        Videos in the order of the table; those without a question are included.

    Raises:
        DataLayoutError: There is no table, it is no JSON, or entries lack what is needed; names them all.
    """
    path = base / split / META
    if not path.is_file():
        raise TREE.error(base, [f"there is no {split}/{META}"])
    return read_table(path, TREE, base)


def question_kind(question: Question) -> str:
    """Group that results are reported by: single, multi, or unlabeled where the table names no object."""
    if not question.annotations:
        return "unlabeled" if question.annotations is None else "non-existent"
    return "single" if len(question.annotations) == 1 else "multi"


class MeViS(VideoQuestions):
    """Every sentence about every video of a split, in the order of the table."""

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
            split: train, valid_u or valid (no ground truth).
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
            raise ValueError(f"MeViS has no split {split!r}; it has {', '.join(SPLITS)}.")
        self.base = TREE.find(Path(root))
        self.split = split
        table = read_videos(self.base, split)
        super().__init__(table, chosen=videos, fps=fps, clip_frames=clip_frames, budget=budget)

    def make_clip(self, video: Video, question: Question) -> Clip:
        """The clip of a question about a video.

        Args:
            video: One of `videos`.
            question: One of its questions.
        """
        clip_id = f"mevis/{self.split}/{video.name}/{question.id}"
        kept = self.kept(video)
        folder = self.base / self.split
        frames = self.open_frames(video, folder / "JPEGImages" / video.name, clip_id)
        masks = ReVOSMasks(folder / MASKS, None, frames, kept, len(video.frames), clip_id)
        has_truth = question.annotations is not None and self.split not in WITHOUT_MASKS
        return Clip(
            id=clip_id,
            task="mevis",
            split=self.split,
            kind=question_kind(question),
            expression=clean_expression(question.text),
            frames=frames,
            budget=self.budget,
            video=video.name,
            expression_id=question.id,
            frame_names=tuple(video.frames[index] for index in kept),
            group=self.split,
            position=self.positions[video.name, question.id],
            is_null=question.is_null,
            mask_source=partial(masks.objects, question.annotations or ()) if has_truth else None,
        )
