"""How one answered clip scores, by the rules of its benchmark, and what the benchmark's own averages make of many.

Per clip there are values for validation and paired intervals; the official averages (Ref-AVS: calls of four expressions
in table order; ReVOS: rounded per expression, then the mean of two group means) are formed from the parts of all clips.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch

from datamodules.masks import MaskTrack
from datamodules.records import Task
from metrics.refavs import hard_logits, resize_target
from metrics.refavs_scores import RefAVSParts, RefAVSScores, refavs_parts
from metrics.video_parts import STORED, VideoParts, track_levels, video_parts
from metrics.video_scores import MeViSScores, ReVOSScores

Rules = Literal["refavs", "davis"]
"""Ref-AVS: its own J, F and S at 256 x 256 pixels; DAVIS: J and boundary F at the original size."""


@dataclass(frozen=True)
class Place:
    """Where an expression stands in its benchmark.

    Attributes:
        task: Which benchmark.
        split: The benchmark's own name of the split.
        group: Group of the benchmark's own averages; "" where there are none.
        position: Place in the table.
        objects: How many objects it is about.
    """

    task: Task
    split: str
    group: str
    position: int
    objects: int


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
        is_null_right: The null clip was answered with an absent plan, or with a readable one of which nothing was
            marked; None on other clips. An answer that cannot be read is not right: silence is no answer.
        is_null_empty: Nothing was marked on the null clip, for whatever reason; None on other clips.
        place: Where it stands in its benchmark; None leaves it out of the official averages.
        parts: What it adds to them.
    """

    clip_id: str
    kind: str
    is_null: bool
    says_absent: bool
    j: float | None = None
    f: float | None = None
    s: float | None = None
    is_null_right: bool | None = None
    is_null_empty: bool | None = None
    place: Place | None = None
    parts: RefAVSParts | VideoParts | None = None

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
    plan_unparsable: bool = False,
    clip_id: str = "",
    foreground: MaskTrack | None = None,
    place: Place | None = None,
) -> ClipScores:
    """Score the masks of one clip.

    Args:
        kind: Group that results are reported by.
        pred: Propagated masks on every frame; an empty track for an absent or unusable plan.
        target: Ground truth of the same frames and size; may be None on null clips, where nothing is there. The rules
            of Ref-AVS know no size: where it is stored in another one, that is what is scored.
        rules: Whose J and F.
        is_null: The benchmark says that the target is not in the clip.
        plan_absent: The plan says so.
        plan_unparsable: The completion gave neither a keyframe nor an absent answer.
        clip_id: Which clip, for pairing and messages.
        foreground: Everything annotated in the video, of the same frames and size, for the robustness of ReVOS.
        place: Where it stands in its benchmark.

    Returns:
        J and F for a clip with a target; S (Ref-AVS), whether it was answered rightly and whether nothing was marked
        for a null clip.

    Raises:
        ValueError: If a clip with a target has no ground truth, or one of other frames or size.
    """
    if is_null:
        target = MaskTrack.empty(pred.frames, pred.size)
    found = (pred.frames, *pred.size)
    expected = None if target is None else (target.frames, *target.size)
    if target is None or found != expected:
        raise ValueError(
            f"clip {clip_id!r}: expected ground truth of the prediction's (frames, height, width) {found}, "
            f"found {expected}"
        )
    parts = _refavs(pred, target) if rules == "refavs" else _davis(pred, target, foreground)
    if is_null:
        is_empty = not pred.areas.any()
        return ClipScores(
            clip_id,
            kind,
            is_null,
            plan_absent,
            s=parts.s if isinstance(parts, RefAVSParts) else None,
            is_null_right=plan_absent or (is_empty and not plan_unparsable),
            is_null_empty=is_empty,
            place=place,
            parts=parts,
        )
    return ClipScores(clip_id, kind, is_null, plan_absent, parts.j, parts.f, place=place, parts=parts)


def official_scores(clips: Iterable[ClipScores]) -> dict[Task, dict[str, float]]:
    """The benchmarks' own averages over clips of all processes.

    Args:
        clips: Scored clips, each benchmark's in any order; those without a place do not count.

    Returns:
        Per benchmark that there are clips of: values in 0..1 by ``<group>/<score>``, as `RefAVSScores`, `ReVOSScores`
        and `MeViSScores` name them. A benchmark without averages of its own is left out.
    """
    refavs = RefAVSScores(sync_on_compute=False)
    revos = ReVOSScores(sync_on_compute=False)
    mevis = MeViSScores(sync_on_compute=False)
    for clip in clips:
        place, parts = clip.place, clip.parts
        if place is None:
            continue
        if isinstance(parts, RefAVSParts):
            refavs.update(parts, split=place.split, position=place.position)
        elif isinstance(parts, VideoParts) and place.task == "revos":
            revos.update(parts, kind=place.group, objects=place.objects, position=place.position)
        elif isinstance(parts, VideoParts) and place.task == "mevis":
            mevis.update(parts, split=place.split, position=place.position)
    by_task: dict[Task, RefAVSScores | ReVOSScores | MeViSScores] = {"refavs": refavs, "revos": revos, "mevis": mevis}
    return {
        task: {key: float(value) for key, value in metric.compute().items()}
        for task, metric in by_task.items()
        if metric.update_called
    }


def _refavs(pred: MaskTrack, target: MaskTrack) -> RefAVSParts:
    truth = torch.cat([resize_target(track.union()) for track in target.stored or (target,)])
    return refavs_parts(hard_logits(resize_target(pred.union())), truth)


def _davis(pred: MaskTrack, target: MaskTrack, foreground: MaskTrack | None) -> VideoParts:
    areas = None if foreground is None else foreground.areas.sum(axis=1).tolist()
    found = track_levels(pred, stored=STORED, adds=False)
    return video_parts(found, track_levels(target), pred.size, areas)
