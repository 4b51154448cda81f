"""How one answered clip scores, by the rules of its benchmark.

These are values per clip, for validation and paired intervals. The official averages (Ref-AVS: calls of four
expressions in table order; ReVOS: rounded per expression, then the mean of two group means) are not formed here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from datamodules.masks import MaskTrack
from datamodules.records import Task
from metrics.boundary import boundary_f
from metrics.refavs import hard_logits, refavs_f, refavs_j, refavs_s, resize_target
from metrics.region import region_j

Rules = Literal["refavs", "davis"]
"""Ref-AVS: its own J, F and S at 256 x 256 pixels; DAVIS: J and boundary F at the original size."""


@dataclass(frozen=True)
class ClipScores:
    """The scores of one clip; None where a score is not defined for it.

    Attributes:
        clip_id: Which clip.
        kind: Group that results are reported by.
        is_null: The target is not in the clip.
        says_absent: The plan said so.
        j: Region similarity, mean over frames, 0..1; None on null clips.
        f: F by the same rules, 0..1; None on null clips.
        s: Ref-AVS's S, 0..1, lower is better; only on null clips, and only by its rules.
        is_null_right: The null clip was answered with an absent plan or without a mask; None on other clips.
    """

    clip_id: str
    kind: str
    is_null: bool
    says_absent: bool
    j: float | None = None
    f: float | None = None
    s: float | None = None
    is_null_right: bool | None = None

    @property
    def jf(self) -> float | None:
        """Mean of J and F, 0..1; None on null clips."""
        return None if self.j is None or self.f is None else (self.j + self.f) / 2


def rules_for(task: Task) -> Rules:
    """Which rules a benchmark is scored by."""
    return "refavs" if task == "refavs" else "davis"


def score_clip(
    kind: str,
    pred: MaskTrack,
    target: MaskTrack | None,
    *,
    rules: Rules,
    is_null: bool,
    plan_absent: bool,
    clip_id: str = "",
) -> ClipScores:
    """Score the masks of one clip.

    Args:
        kind: Group that results are reported by.
        pred: Propagated masks on every frame; an empty track for an absent or unusable plan.
        target: Ground truth of the same frames and size; may be None on null clips, where it is not read.
        rules: Whose J and F.
        is_null: The benchmark says that the target is not in the clip.
        plan_absent: The plan says so.
        clip_id: Which clip, for pairing and messages.

    Returns:
        J and F for a clip with a target; S (Ref-AVS) and whether nothing was marked for a null clip.

    Raises:
        ValueError: If a clip with a target has no ground truth, or one of other frames or size.
    """
    if is_null:
        is_right = plan_absent or not pred.areas.any()
        s = refavs_s(hard_logits(resize_target(pred.union()))) if rules == "refavs" else None
        return ClipScores(clip_id, kind, is_null, plan_absent, s=s, is_null_right=is_right)
    found = (pred.frames, *pred.size)
    expected = None if target is None else (target.frames, *target.size)
    if target is None or found != expected:
        raise ValueError(
            f"clip {clip_id!r}: expected ground truth of the prediction's (frames, height, width) {found}, "
            f"found {expected}"
        )
    j, f = _refavs(pred, target) if rules == "refavs" else _davis(pred, target)
    return ClipScores(clip_id, kind, is_null, plan_absent, j, f)


def _refavs(pred: MaskTrack, target: MaskTrack) -> tuple[float, float]:
    logits, truth = hard_logits(resize_target(pred.union())), resize_target(target.union())
    return refavs_j(logits, truth), refavs_f(logits, truth)


def _davis(pred: MaskTrack, target: MaskTrack) -> tuple[float, float]:
    found, truth = pred.union(), target.union()
    return float(region_j(found, truth).mean()), float(boundary_f(found, truth).mean())
