"""System 2's first half: from a description to boxes on one keyframe.

`Grounder` is the interface and does what every grounder shares: identical requests are answered once, every keyframe
is read once however many descriptions ask about it, work is cut into batches, and raw candidates become tidy boxes in
pixels of the original frame. It knows no model; `models.detector` and `models.box_grounder` do. Nothing here is
trained and nothing here segments.

Difference from the paper's code: there System 2 is always the frozen copy of the base model; here it is any grounder,
so that a detector can take its place.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torchvision.ops import clip_boxes_to_image, nms, remove_small_boxes

from datamodules.errors import ConfigError
from datamodules.records import Clip, FrameGrounding


@runtime_checkable
class TextGenerator(Protocol):
    """What a grounder may ask of the reasoner: greedy text about images, and the base model behind the adapter.

    Attributes:
        builder: Holds the processor, whose image processor tells how images are resized.
    """

    builder: Any

    def reference(self) -> AbstractContextManager[None]:
        """The base model inside the block: same weights, adapter off."""

    def generate_text(
        self,
        images: Sequence[UInt8[np.ndarray, "height width 3"]],
        questions: Sequence[tuple[int, str]],
        *,
        max_new_tokens: int,
        shared: bool,
    ) -> list[str]:
        """Answer questions, each about one of the images, greedily and independently of each other.

        `shared` reads an image once for all of its questions; the answers do not depend on it.
        """


@dataclass(frozen=True)
class GroundingRequest:
    """One thing to look for on one keyframe.

    Attributes:
        frame: 0-based index into the clip.
        description: What to find; blank text finds nothing.
    """

    frame: int
    description: str


@dataclass(frozen=True)
class Candidates:
    """Raw boxes of one description on one image, in any order.

    Attributes:
        boxes: (N, 4) xyxy in pixels of the image that was shown; may stick out of it.
        scores: (N,) confidence in 0..1.
    """

    boxes: Float[Tensor, "boxes 4"]
    scores: Float[Tensor, "boxes"]


class Grounder(nn.Module, ABC):
    """Finds described things on keyframes; frozen.

    A subclass keeps its constructor light (settings only), reads weights in `load` and implements `find`.

    Args:
        batch_size: Most keyframes (or keyframe-description pairs, where a model needs them) per forward pass.
        threshold: Lowest score of a box that counts, 0..1.
        keep_best: Return the best box even when it is below `threshold`; the alternative is none.
        max_boxes: Most boxes per description and keyframe.
        nms_iou: Of two boxes that overlap by more than this IoU, only the better one stays.

    Raises:
        ConfigError: Settings out of range; all of them are listed.
    """

    def __init__(
        self,
        *,
        batch_size: int = 8,
        threshold: float = 0.0,
        keep_best: bool = False,
        max_boxes: int = 5,
        nms_iou: float = 0.5,
    ) -> None:
        super().__init__()
        problems = [
            f"model.grounder.{name} is {value}; expected {expected}. Set --model.grounder.{name} {fix}."
            for name, value, is_valid, expected, fix in (
                ("batch_size", batch_size, batch_size >= 1, "at least 1", "8"),
                ("threshold", threshold, 0 <= threshold <= 1, "a score in 0..1", "0.3"),
                ("max_boxes", max_boxes, max_boxes >= 1, "at least 1", "5"),
                ("nms_iou", nms_iou, 0 <= nms_iou <= 1, "an IoU in 0..1", "0.5"),
            )
            if not is_valid
        ]
        if problems:
            raise ConfigError("\n".join(problems))
        self.batch_size = batch_size
        self.threshold = threshold
        self.keep_best = keep_best
        self.max_boxes = max_boxes
        self.nms_iou = nms_iou

    @abstractmethod
    def load(self, reasoner: TextGenerator | None = None) -> None:
        """Read the weights and freeze them; calling it again changes nothing.

        Args:
            reasoner: System 1, for grounders that ask the frozen base model.
        """

    @abstractmethod
    def find(
        self, images: UInt8[np.ndarray, "images height width 3"], descriptions: Sequence[Sequence[str]]
    ) -> list[list[Candidates]]:
        """Look for several descriptions on each image, without any tidying.

        Args:
            images: RGB, all of one size, at most `batch_size` of them.
            descriptions: Per image, at least one; never blank, no two of an image alike.

        Returns:
            Candidates per image and description, boxes in pixels of the given images.
        """

    @torch.no_grad()
    def ground(self, clip: Clip, requests: Sequence[GroundingRequest]) -> list[FrameGrounding]:
        """Answer requests about one clip.

        Args:
            clip: Its keyframes are read through `Clip.close_up`.
            requests: In any order; equal ones cost one answer.

        Returns:
            One grounding per request, in order; no boxes for a blank description or where nothing was found.

        Raises:
            ValueError: A request names a frame outside the clip.
        """
        wanted: dict[int, dict[str, None]] = {}
        for request in requests:
            if not 0 <= request.frame < clip.frames.count:
                raise ValueError(
                    f"Expected a keyframe in 0..{clip.frames.count - 1} of clip {clip.id}, got frame {request.frame}; "
                    "plans must be built with the frame count of the clip they are for."
                )
            if request.description.strip():
                wanted.setdefault(request.frame, {})[request.description] = None
        answers = self._answers(clip, {frame: tuple(wanted[frame]) for frame in sorted(wanted)})
        nothing = np.zeros((0, 4), np.float32), np.zeros(0, np.float32)
        return [
            answers.get(request) or FrameGrounding(request.frame, boxes=nothing[0], scores=nothing[1])
            for request in requests
        ]

    def _answers(self, clip: Clip, wanted: Mapping[int, tuple[str, ...]]) -> dict[GroundingRequest, FrameGrounding]:
        answers = {}
        frames = list(wanted)
        for start in range(0, len(frames), self.batch_size):
            chunk = frames[start : start + self.batch_size]
            images = clip.close_up(chunk)
            shown = (images.shape[1], images.shape[2])
            for frame, found in zip(chunk, self.find(images, [wanted[frame] for frame in chunk]), strict=True):
                for description, candidates in zip(wanted[frame], found, strict=True):
                    boxes, scores = self._tidy(candidates, shown=shown, original=clip.frames.size)
                    answers[GroundingRequest(frame, description)] = FrameGrounding(frame, boxes=boxes, scores=scores)
        return answers

    def _tidy(
        self, candidates: Candidates, *, shown: tuple[int, int], original: tuple[int, int]
    ) -> tuple[Float[np.ndarray, "boxes 4"], Float[np.ndarray, "boxes"]]:
        """Threshold, order, scale, clip and thin out: best first, pixels of the original frame."""
        scores = candidates.scores.detach().float().cpu()
        boxes = candidates.boxes.detach().float().cpu()
        order = scores.sort(descending=True, stable=True).indices
        chosen = order[scores[order] >= self.threshold]
        if self.keep_best and not len(chosen):
            chosen = order[:1]
        boxes, scores = boxes[chosen], scores[chosen]
        scale = torch.tensor([original[1] / shown[1], original[0] / shown[0]], dtype=torch.float32).repeat(2)
        boxes = clip_boxes_to_image(boxes * scale, original)
        solid = remove_small_boxes(boxes, min_size=1e-3)
        boxes, scores = boxes[solid], scores[solid]
        kept = nms(boxes, scores, self.nms_iou)[: self.max_boxes]
        return boxes[kept].numpy(), scores[kept].numpy()
