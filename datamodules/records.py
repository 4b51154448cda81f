"""Plain records that cross the project's borders: what a clip is, what a plan says, what a rollout holds.

Nothing here runs a model, and files are read when a field that needs them is asked for. Frame indices are 0-based into
the clip; boxes are xyxy in pixels of the original frame, half-open (``x1 <= x < x2``); masks have its size.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int, UInt8

from datamodules.masks import BoxTrack, MaskTrack
from datamodules.thinning import spread

SAMPLE_RATE = 16_000
"""Samples per second of every `Clip.audio`."""

Task = Literal["refavs", "revos", "mevis", "refcocog", "video"]


class Frames(ABC):
    """The frames of one clip, read only when asked.

    Attributes:
        count: Number of frames, T.
        fps: Frames per second of the clip as served, so frame i is shown at ``i / fps`` seconds.
    """

    count: int
    fps: float

    @property
    @abstractmethod
    def size(self) -> tuple[int, int]:
        """(height, width) of the original frames in pixels."""

    @abstractmethod
    def read(
        self, indices: Sequence[int], *, max_pixels: int | None = None
    ) -> UInt8[np.ndarray, "frames height width 3"]:
        """RGB frames.

        Args:
            indices: 0-based into the clip, in the order that is wanted.
            max_pixels: Shrink so that height x width is at most this, aspect ratio kept; None keeps the original.

        Raises:
            MediaError: A frame is missing or cannot be decoded.
        """


@dataclass(frozen=True)
class FrameBudget:
    """How much of a clip each system may look at.

    Attributes:
        glance_frames: Most frames that System 1 sees, spread evenly over the clip.
        glance_max_pixels: Most pixels (height x width) of such a frame.
        close_up_max_pixels: Most pixels of a keyframe that System 2 sees.
    """

    glance_frames: int = 16
    glance_max_pixels: int = 128 * 28 * 28
    close_up_max_pixels: int = 900 * 28 * 28


@dataclass(frozen=True)
class Glance:
    """What System 1 sees of a clip: low-resolution RGB frames, which ones, and how many of them make a second."""

    frames: UInt8[np.ndarray, "frames height width 3"]
    indices: tuple[int, ...]
    fps: float


@dataclass(frozen=True)
class Clip:
    """One question about one video with sound. Frames, sound and masks are read on first use, then kept.

    Attributes:
        id: Unique within its data set; what error messages and sampling noise are keyed by.
        task: Which benchmark's rules apply.
        split: The benchmark's own name of the split.
        kind: Group that results are reported by, such as seen, unseen, null (RefAVS) or referring (ReVOS).
        expression: The question, cleaned.
        frames: The video.
        budget: How much of it each system may look at.
        video, expression_id: The benchmark's names of the video and of the expression in it, for submission files.
        frame_names: Those of the frames.
        group: Group of the benchmark's own averages, where it has any; unlike `kind` it is the table's word alone.
        position: Place in the benchmark's table.
        is_null: The benchmark says that the target is not there.
        audio_source: Reads the sound; None when the clip has no sound.
        mask_source: Reads the ground truth; None at predict time, and where a benchmark labels boxes alone.
        box_source: Reads labeled boxes, where a benchmark has them and no masks.
        foreground_source: Reads the union of all annotated objects of the video, for the robustness of ReVOS, or None.
        ahead: What a loader's worker has made of this very clip for those who ask later, by name.
    """

    id: str
    task: Task
    split: str
    kind: str
    expression: str
    frames: Frames
    budget: FrameBudget = field(default_factory=FrameBudget)
    video: str = ""
    expression_id: str = ""
    frame_names: tuple[str, ...] = ()
    group: str = ""
    position: int = 0
    is_null: bool = False
    audio_source: Callable[[], Float32[np.ndarray, "samples"] | None] | None = None
    mask_source: Callable[[], MaskTrack] | None = None
    box_source: Callable[[], BoxTrack] | None = None
    foreground_source: Callable[[], MaskTrack] | None = None
    ahead: dict[str, object] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def duration_s(self) -> float:
        """Length of the clip in seconds."""
        return self.frames.count / self.frames.fps

    @cached_property
    def audio(self) -> Float32[np.ndarray, "samples"] | None:
        """Mono sound at 16 kHz in -1..1, or None when there is none (silent clips are no error)."""
        return self.audio_source() if self.audio_source is not None else None

    @cached_property
    def masks(self) -> MaskTrack | None:
        """Ground truth of the original size, or None when there is none to read (predict, labeled boxes)."""
        return self.mask_source() if self.mask_source is not None else None

    @cached_property
    def boxes(self) -> BoxTrack | None:
        """Labeled boxes, or None where there are masks or no ground truth at all."""
        return self.box_source() if self.box_source is not None else None

    @property
    def has_truth(self) -> bool:
        """Whether it is known where the target is, or that it is absent."""
        return self.is_null or self.mask_source is not None or self.box_source is not None

    @cached_property
    def foreground(self) -> MaskTrack | None:
        """Everything annotated in the video as one object, or None."""
        return self.foreground_source() if self.foreground_source is not None else None

    @cached_property
    def glance(self) -> Glance:
        """The whole clip at low resolution: at most `budget.glance_frames` frames, evenly spread."""
        indices = spread(self.frames.count, self.budget.glance_frames)
        frames = self.frames.read(indices, max_pixels=self.budget.glance_max_pixels)
        return Glance(frames, indices, fps=self.frames.fps * len(indices) / self.frames.count)

    def close_up(self, indices: Sequence[int]) -> UInt8[np.ndarray, "frames height width 3"]:
        """Chosen frames at up to `budget.close_up_max_pixels`."""
        return self.frames.read(indices, max_pixels=self.budget.close_up_max_pixels)

    def frame_at(self, time_s: float) -> int:
        """Frame shown at a time; times outside the clip give the first or last frame."""
        return int(np.clip(np.floor(time_s * self.frames.fps + 1e-6), 0, self.frames.count - 1))


@dataclass(frozen=True)
class Segment:
    """One answered moment, as a completion writes it.

    Attributes:
        start_s, end_s: Start and end in seconds of the clip.
        description: What to look for.
    """

    start_s: float
    end_s: float
    description: str


@dataclass(frozen=True)
class Keyframe:
    """One picked moment.

    Attributes:
        frame: 0-based index into the clip.
        description: What System 2 is asked to find on that frame.
        start_s, end_s: Start and end of the answered segment in seconds.
    """

    frame: int
    description: str
    start_s: float
    end_s: float


@dataclass(frozen=True)
class ParseReport:
    """What was well-formed in a completion and what was not; model text is data, never an exception.

    Attributes:
        is_well_formed: The whole text is one think block, then one answer block, and the answer could be used.
        objects: JSON objects found in the answer.
        complete: Those with a valid start, end and description.
        in_clip: Those whose segment lies within the clip with start <= end.
        moments: Distinct frames that they name, those that a plan has no room for included.
        problem: Why nothing could be used; empty when something could.
    """

    is_well_formed: bool
    objects: int = 0
    complete: int = 0
    in_clip: int = 0
    moments: int = 0
    problem: str = ""


@dataclass(frozen=True)
class Plan:
    """System 1's answer: where to look and what for, or that the target is not there.

    Attributes:
        keyframes: At most K, in time order, one per distinct frame; none of an absent target.
        is_absent: The completion says that the target is not in the clip.
        parse: What the parser made of the text.
        repeats: Picks that named an already chosen frame and were dropped.
    """

    keyframes: tuple[Keyframe, ...]
    is_absent: bool
    parse: ParseReport
    repeats: int = 0

    @property
    def is_unparsable(self) -> bool:
        """True when the text gave neither a usable keyframe nor an absent answer."""
        return not self.is_absent and not self.keyframes


@dataclass(frozen=True)
class FrameGrounding:
    """What System 2 found on one keyframe.

    Attributes:
        frame: 0-based index into the clip.
        boxes: (N, 4) xyxy, pixels of the original frame, half-open, best first; (0, 4) when nothing was found.
        scores: (N,) confidence in 0..1.
        masks: (N, H, W) when the grounder segments, else None.
    """

    frame: int
    boxes: Float32[np.ndarray, "boxes 4"]
    scores: Float32[np.ndarray, "boxes"]
    masks: Bool[np.ndarray, "boxes height width"] | None = None


@dataclass(frozen=True)
class Grounding:
    """What System 2 found for a whole plan, one entry per keyframe, in the plan's order."""

    keyframes: tuple[FrameGrounding, ...]


@dataclass(frozen=True)
class Rollout:
    """One sampled completion and everything that System 2 made of it.

    Attributes:
        clip: The question.
        index: Position in its group, 0..G-1.
        text: The completion as text, without special tokens.
        completion_ids: (L,), the end-of-turn token included when it was sampled.
        sampling_logprobs: (L,), natural log, of the temperature-scaled, untruncated distribution.
        is_truncated: The token limit cut the completion off.
        plan: The parsed completion.
        grounding: Boxes per keyframe; None when no reward or metric needs them.
        masks: Masks on every frame, empty track for an absent plan; None when nothing needs them.
    """

    clip: Clip
    index: int
    text: str
    completion_ids: Int[torch.Tensor, "tokens"]
    sampling_logprobs: Float[torch.Tensor, "tokens"]
    is_truncated: bool
    plan: Plan
    grounding: Grounding | None = None
    masks: MaskTrack | None = None
