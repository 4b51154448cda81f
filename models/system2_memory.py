"""What System 2 holds while it works: tokens where the base model is asked for boxes, and bytes of SAM2."""

from __future__ import annotations

from dataclasses import dataclass

from models.image_reading import IMAGES_AT_ONCE

_GB = 1e9
SAM2_FRAME_GB = {"tiny": 0.26, "small": 0.29, "base_plus": 0.33, "large": 0.41}
"""Memory per frame that SAM2 encodes at a time, by size, counted on the meta device at 1024 pixels in bfloat16."""
_SAM2_WEIGHTS = {"tiny": 39e6, "small": 46e6, "base_plus": 81e6, "large": 224e6}
_SAM2_OBJECT_GB = 0.1
SAM2_KEPT_FRAME_GB = 0.0168
"""Features of a frame that are kept, in float32: 32 x 256 x 256, 64 x 128 x 128 and 256 x 64 x 64."""
_QUESTION_TOKENS = 150
"""Of a question about a keyframe: some 70 for its fixed words, the rest for a description."""


@dataclass(frozen=True)
class Segmenter:
    """SAM2 as it is used.

    Attributes:
        size: Of the released model: tiny, small, base_plus or large.
        frames_per_encode: Frames that are encoded at a time.
        objects_per_pass: Most objects that travel together.
        kept_frames: Frames whose features are kept: those of a training clip, times the clips that are kept.
    """

    size: str = "large"
    frames_per_encode: int = 16
    objects_per_pass: int = 32
    kept_frames: int = 10

    @property
    def kept_bytes(self) -> float:
        """Weights, and the features of frames."""
        return 4 * _SAM2_WEIGHTS[self.size] + self.kept_frames * SAM2_KEPT_FRAME_GB * _GB

    def working_bytes(self, *, objects: int) -> float:
        """What it works in, by the most objects that a group of rollouts has."""
        encoding = self.frames_per_encode * SAM2_FRAME_GB[self.size]
        following = min(self.objects_per_pass, objects) * _SAM2_OBJECT_GB
        return max(encoding, following) * _GB + 2 * _SAM2_WEIGHTS[self.size]


@dataclass(frozen=True)
class Asking:
    """The base model as a grounder, asked by all rollouts of a group; see `models.box_grounder.ReasonerGrounder`.

    Attributes:
        image_tokens: Of a keyframe, with what stands before it.
        keyframes: Most that a group asks about.
        group_size: Most questions about one keyframe.
        batch_size: Most keyframes and questions at a time, as configured.
        answer_tokens: Of the longest answer.
        question_tokens: Of a question behind its keyframe.
        shared: A keyframe is read once for all questions about it.
    """

    image_tokens: int
    keyframes: int = 32
    group_size: int = 8
    batch_size: int = 16
    answer_tokens: int = 256
    question_tokens: int = _QUESTION_TOKENS
    shared: bool = True

    @property
    def questions(self) -> int:
        """Most that are answered together; those about one keyframe always are when it is shared."""
        most = max(self.batch_size, self.group_size) if self.shared else self.batch_size
        return min(most, max(self.keyframes, self.group_size))

    @property
    def kept_tokens(self) -> int:
        """Most tokens whose keys and values are there at the same time."""
        read = self._images if self.shared else self.questions
        return read * self.image_tokens + self.questions * (self.question_tokens + self.answer_tokens)

    @property
    def pass_tokens(self) -> int:
        """Most tokens that go through a layer at the same time."""
        if not self.shared:
            return self.questions * (self.image_tokens + self.question_tokens)
        return max(min(IMAGES_AT_ONCE, self._images) * self.image_tokens, self._about_one * self.question_tokens)

    @property
    def mask_cells(self) -> int:
        """Queries times keys of the largest attention mask."""
        if not self.shared:
            return self.questions * (self.image_tokens + self.question_tokens) ** 2
        asked = self._about_one * self.question_tokens
        return asked * (self.image_tokens + asked)

    @property
    def _about_one(self) -> int:
        return min(self.group_size, self.questions)

    @property
    def _images(self) -> int:
        return min(self.batch_size, self.keyframes, self.questions)
