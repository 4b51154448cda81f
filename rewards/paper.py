"""The terms as the authors' released training code computes them, for comparison with ours.

That code looks at whole segments on a time base of 2 frames per second: every tick from a segment's start to its end,
both included, is a chosen frame. With s segments in the answer that are complete and inside the clip, u distinct ticks
and n JSON objects::

    base     (0.2 n + 0.2 complete + 0.2 in_clip + sum over s of the visible share of its ticks) / n
    count    0.4 u for u <= 4, else 0.4 (7 - u)
    segments 0.2 sum over s of min(0, 1 - ticks) - 0.5 (ticks named again)
    R_A      mean matched IoU over (object, keyframe) entries in which the object is visible
    extra    -0.5 (boxes beyond the clip's objects, relative to the objects) / keyframes

Saliency and R_G are `SaliencyReward` and `ConsistencyReward`. Not reproduced: IoU is not forced to 0 at the left edge,
and boxes are half-open. A plan holds one keyframe per distinct frame and only the first few, so ticks of segments that
it dropped are unknown: each repeat counts as one tick named again.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from datamodules.masks import MaskTrack
from datamodules.needs import Need
from datamodules.records import Clip, Keyframe, Rollout
from rewards.base import Reward, require
from rewards.boxes import matched_iou
from rewards.target import boxes_of, score_plans, visible_target


class PaperReward(Reward):
    """What the released terms share: 2 ticks per second, and None on clips without a visible target."""

    def __init__(self, *, ticks_per_s: float = 2.0, weight: float = 1.0) -> None:
        """Set the time base.

        Args:
            ticks_per_s: Ticks per second of the clip that a segment is measured in, > 0.
            weight: Factor in the total, unitless.

        Raises:
            ConfigError: If `ticks_per_s` is not positive.
        """
        super().__init__(weight=weight)
        require(ticks_per_s > 0, "ticks_per_s", ticks_per_s, "a number > 0")
        self.ticks_per_s = ticks_per_s

    def __call__(self, rollouts: Sequence[Rollout]) -> list[float | None]:
        """Score the plans of one group; 0 for plans without a keyframe unless the term says otherwise."""
        target = visible_target(rollouts[0].clip)
        if target is None:
            return [None] * len(rollouts)
        return score_plans(rollouts, lambda rollout: self._score(rollout, target))

    @abstractmethod
    def _score(self, rollout: Rollout, target: MaskTrack) -> float:
        """Score one plan with keyframes."""

    def _ticks(self, keyframe: Keyframe, clip: Clip) -> range:
        """Ticks of a keyframe's segment, at least one, cut at the clip's last."""
        last = max(0, math.ceil(clip.duration_s * self.ticks_per_s - 1e-6) - 1)
        first, end = (
            min(last, math.floor(time_s * self.ticks_per_s + 1e-6)) for time_s in (keyframe.start_s, keyframe.end_s)
        )
        return range(first, end + 1)


class PaperBaseReward(PaperReward):
    """Form and visibility of the answered segments, in 0..1.6.

    Unlike the other terms it pays for the JSON objects of an answer that names no usable moment, up to 0.4; an absent
    plan earns 0.
    """

    def __call__(self, rollouts: Sequence[Rollout]) -> list[float | None]:
        """Score the plans of one group."""
        target = visible_target(rollouts[0].clip)
        if target is None:
            return [None] * len(rollouts)
        return [0.0 if rollout.plan.is_absent else self._score(rollout, target) for rollout in rollouts]

    def _score(self, rollout: Rollout, target: MaskTrack) -> float:
        parse = rollout.plan.parse
        if parse.objects == 0:
            return 0.0
        shown = 0.0
        for keyframe in rollout.plan.keyframes:
            ticks = self._ticks(keyframe, rollout.clip)
            frames = [rollout.clip.frame_at(tick / self.ticks_per_s) for tick in ticks]
            shown += float((target.areas[frames] > 0).mean())
        return (0.2 * (parse.objects + parse.complete + parse.in_clip) + shown) / parse.objects


class PaperCountReward(PaperReward):
    """``0.4 u`` for at most `target_count` distinct ticks u, else ``0.4 (2 target_count - 1 - u)``; at most 1.6."""

    def __init__(self, *, target_count: int = 4, ticks_per_s: float = 2.0, weight: float = 1.0) -> None:
        """Set the number of distinct ticks.

        Args:
            target_count: Distinct ticks that a plan should cover, >= 1.
            ticks_per_s: Ticks per second of the clip that a segment is measured in, > 0.
            weight: Factor in the total, unitless.

        Raises:
            ConfigError: If `target_count` is below 1 or `ticks_per_s` not positive.
        """
        super().__init__(ticks_per_s=ticks_per_s, weight=weight)
        require(target_count >= 1, "target_count", target_count, "at least 1 tick")
        self.target_count = target_count

    def _score(self, rollout: Rollout, target: MaskTrack) -> float:
        covered = {tick for item in rollout.plan.keyframes for tick in self._ticks(item, rollout.clip)}
        distinct = len(covered)
        return 0.4 * (distinct if distinct <= self.target_count else 2 * self.target_count - 1 - distinct)


class PaperSegmentsReward(PaperReward):
    """``0.2 min(0, 1 - ticks)`` per segment and -0.5 per tick that is named again; at most 0."""

    def _score(self, rollout: Rollout, target: MaskTrack) -> float:
        segments = [self._ticks(keyframe, rollout.clip) for keyframe in rollout.plan.keyframes]
        ticks = [tick for segment in segments for tick in segment]
        again = len(ticks) - len(set(ticks)) + rollout.plan.repeats
        return 0.2 * sum(min(0, 1 - len(segment)) for segment in segments) - 0.5 * again


class PaperAlignmentReward(PaperReward):
    """Mean matched box IoU over all (object, keyframe) entries in which the object is visible, in 0..1.

    Missing boxes count 0; keyframes without a visible object have no entry; no entry at all gives 0.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"boxes"})

    def _score(self, rollout: Rollout, target: MaskTrack) -> float:
        entries: list[float] = []
        for found in boxes_of(rollout):
            entries.extend(matched_iou(found.boxes, target.boxes(found.frame)))
        return float(sum(entries) / len(entries)) if entries else 0.0


class PaperExtraBoxesReward(PaperReward):
    """-0.5 per keyframe's boxes beyond the clip's objects, relative to the objects, mean over keyframes; at most 0."""

    needs: ClassVar[frozenset[Need]] = frozenset({"boxes"})

    def _score(self, rollout: Rollout, target: MaskTrack) -> float:
        grounded = boxes_of(rollout)
        extra = sum(max(0, len(found.boxes) - target.objects) for found in grounded)
        return -0.5 * extra / target.objects / len(grounded)


class PaperFirstFrameReward(PaperReward):
    """RefAVS: IoU of System 2's best box with the union of the target's boxes on frame 0, in 0..1.

    0 when frame 0 is no keyframe of the plan, has no box, or does not show the target.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"boxes"})

    def _score(self, rollout: Rollout, target: MaskTrack) -> float:
        truth = target.boxes(0)
        found = [item.boxes[:1] for item in boxes_of(rollout) if item.frame == 0]
        if not found or not len(truth):
            return 0.0
        around = [[*truth[:, :2].min(axis=0), *truth[:, 2:].max(axis=0)]]
        return float(matched_iou(found[0], np.array(around)).sum())
