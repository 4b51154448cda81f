"""From boxes on keyframes to prompts of objects: which box belongs to which object.

A grounding lists boxes per keyframe and does not say which of them show the same thing. `associate` decides:

- The keyframe with the most boxes (the first of them in time on a tie) names the objects, best box first.
- Every other keyframe, nearest in time to that one first, hands its boxes to different objects: the assignment with
  the largest total similarity, where each object is compared by its box on the nearest keyframe that has one.
- Similarity is the IoU less the squared distance of the centers over the squared diagonal of the box around both
  (distance-IoU), so that boxes which do not touch are still ordered by distance.

A keyframe with one box therefore prompts the object nearest to it, and when every keyframe has one box they all
prompt the same object, however far apart the boxes are: the plan asked for one target.

Reference:
    Distance-IoU loss, arXiv:1911.08287, equation 5 (as a similarity).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.optimize import linear_sum_assignment

from datamodules.records import FrameGrounding, Grounding


@dataclass(frozen=True)
class Prompt:
    """What SAM2 is told about an object on one frame.

    Attributes:
        frame: 0-based index into the clip.
        box: x1, y1, x2, y2 in pixels of the original frame, half-open.
        mask: Pixels of the object when the grounder segments; then the mask is the prompt and the box is not.
    """

    frame: int
    box: tuple[float, float, float, float]
    mask: Bool[np.ndarray, "height width"] | None = None

    @property
    def key(self) -> tuple[object, ...]:
        """Equal for prompts that say the same."""
        return self.frame, self.box if self.mask is None else np.packbits(self.mask).tobytes()


ObjectPrompts = tuple[Prompt, ...]
"""The prompts of one object, in time order, at most one per frame."""


def associate(grounding: Grounding, size: tuple[int, int]) -> tuple[ObjectPrompts, ...]:
    """Turn a grounding into the prompts of each object.

    Args:
        grounding: Boxes per keyframe. Boxes are clipped to the frame; those without area inside it are dropped, and
            keyframes without boxes are skipped. Of several entries for one frame the first with boxes counts.
        size: (height, width) of the original frames in pixels.

    Returns:
        One entry per object; () when no keyframe has a usable box.
    """
    by_frame: dict[int, list[Prompt]] = {}
    for found in grounding.keyframes:
        prompts = _usable_prompts(found, size)
        if prompts:
            by_frame.setdefault(found.frame, prompts)
    if not by_frame:
        return ()
    reference = max(sorted(by_frame), key=lambda frame: len(by_frame[frame]))
    objects = [[prompt] for prompt in by_frame.pop(reference)]
    for frame in sorted(by_frame, key=lambda frame: (abs(frame - reference), frame)):
        _assign(by_frame[frame], objects)
    return tuple(tuple(sorted(prompts, key=lambda prompt: prompt.frame)) for prompts in objects)


def box_similarity(
    one: Float[np.ndarray, "first 4"], other: Float[np.ndarray, "second 4"]
) -> Float[np.ndarray, "first second"]:
    """Distance-IoU of every pair of boxes.

    Args:
        one: xyxy, any unit, with area.
        other: xyxy, same unit, with area.

    Returns:
        -1..1; 1 for equal boxes, negative for boxes that do not touch, toward -1 the farther they are apart.
    """
    a, b = one[:, None], other[None]
    overlap = np.clip(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]), 0, None).prod(axis=-1)
    areas = (a[..., 2:] - a[..., :2]).prod(axis=-1) + (b[..., 2:] - b[..., :2]).prod(axis=-1)
    around = np.maximum(a[..., 2:], b[..., 2:]) - np.minimum(a[..., :2], b[..., :2])
    apart = (a[..., :2] + a[..., 2:] - b[..., :2] - b[..., 2:]) / 2
    return np.asarray(overlap / (areas - overlap) - (apart**2).sum(axis=-1) / (around**2).sum(axis=-1))


def _usable_prompts(found: FrameGrounding, size: tuple[int, int]) -> list[Prompt]:
    height, width = size
    boxes = np.asarray(found.boxes, dtype=np.float64).reshape(-1, 4).clip(0, [width, height, width, height])
    prompts = []
    for index, (x1, y1, x2, y2) in enumerate(boxes):
        mask = None if found.masks is None else found.masks[index]
        # A box of NaN fails both comparisons.
        if x2 > x1 and y2 > y1 and (mask is None or mask.any()):
            prompts.append(Prompt(found.frame, (float(x1), float(y1), float(x2), float(y2)), mask))
    return prompts


def _assign(prompts: Sequence[Prompt], objects: list[list[Prompt]]) -> None:
    """Give every prompt to a different object; there are at least as many objects as prompts."""
    nearest = [min(known, key=lambda prompt: abs(prompt.frame - prompts[0].frame)) for known in objects]
    similarity = box_similarity(
        np.array([prompt.box for prompt in prompts]), np.array([prompt.box for prompt in nearest])
    )
    for row, column in zip(*linear_sum_assignment(similarity, maximize=True), strict=True):
        objects[int(column)].append(prompts[int(row)])
