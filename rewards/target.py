"""What the terms about a visible target share: when they apply, and what they may read.

The rule is the same for keyframe quality, alignment and consistency: on clips without a visible target they do not
apply, and where the target is there, a plan that names no moment (absent or unparsable) earns 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Int

from datamodules.masks import BoxTrack, MaskTrack
from datamodules.records import Clip, FrameGrounding, Rollout


def visible_target(clip: Clip) -> MaskTrack | None:
    """Ground truth of a clip in which the target can be seen.

    Args:
        clip: The question; its masks are read on first use.

    Returns:
        The masks; None when the benchmark says that the target is absent, gives no masks, or gives masks without a
        single pixel, so that a term about the target does not apply.
    """
    if clip.is_null or clip.masks is None or not clip.masks.areas.any():
        return None
    return clip.masks


def visible_boxes(clip: Clip) -> MaskTrack | BoxTrack | None:
    """What a predicted box can be compared with: tight boxes of masks, or labeled boxes where there are no masks.

    Args:
        clip: The question; its ground truth is read on first use.

    Returns:
        Something with `boxes` per frame; None when a term about boxes does not apply.
    """
    if clip.masks is not None or clip.is_null:
        return visible_target(clip)
    return clip.boxes if clip.boxes is not None and any(clip.boxes.rows) else None


def score_plans(rollouts: Sequence[Rollout], score: Callable[[Rollout], float]) -> list[float | None]:
    """Score the plans that name a moment.

    Args:
        rollouts: One group whose target is visible.
        score: Called for every rollout with at least one keyframe.

    Returns:
        The score, or 0 for absent and unparsable plans.
    """
    return [score(rollout) if rollout.plan.keyframes else 0.0 for rollout in rollouts]


def boxes_of(rollout: Rollout) -> tuple[FrameGrounding, ...]:
    """What System 2 found on each keyframe, in the plan's order.

    Raises:
        ValueError: If boxes were not filled in, or not for every keyframe.
    """
    if rollout.grounding is None:
        raise ValueError(f"{_name(rollout)} has no boxes: a reward that reads them must have needs = {{'boxes'}}")
    found, picked = ([item.frame for item in items] for items in (rollout.grounding.keyframes, rollout.plan.keyframes))
    if found != picked:
        raise ValueError(f"{_name(rollout)} has boxes for frames {found}; expected its keyframes {picked}")
    return rollout.grounding.keyframes


def masks_of(rollout: Rollout, target: MaskTrack) -> MaskTrack:
    """Propagated masks, checked against the ground truth's frames and size.

    Raises:
        ValueError: If masks were not filled in, or cover other frames or pixels than the ground truth.
    """
    if rollout.masks is None:
        raise ValueError(f"{_name(rollout)} has no masks: a reward that reads them must have needs = {{'masks'}}")
    found, expected = (rollout.masks.frames, *rollout.masks.size), (target.frames, *target.size)
    if found != expected:
        raise ValueError(
            f"{_name(rollout)} has masks of (frames, height, width) {found}; the ground truth has {expected}"
        )
    return rollout.masks


def union_areas(track: MaskTrack) -> Int[np.ndarray, "frames"]:
    """Pixels that belong to any object, per frame; pixels shared by two objects count once."""
    if track.objects <= 1:
        return np.asarray(track.areas.sum(axis=1))
    return np.array([np.count_nonzero(track.union([frame])) for frame in range(track.frames)], dtype=np.int64)


def _name(rollout: Rollout) -> str:
    return f"rollout {rollout.index} of clip {rollout.clip.id}"
