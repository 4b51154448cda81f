"""Alignment R_A: what System 2 finds for the descriptions is the target.

Differences from the authors' released code, on purpose: boxes count at the left edge too; boxes beyond the targets
enlarge the denominator of their own pick instead of being subtracted, so a plan with extra boxes still earns more for
better boxes and never drops below 0; a pick at which the target cannot be seen earns 0, because the paper averages
over picks and such a pick has nothing to match. `invisible_picks: skip` leaves those picks out, as the released code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from datamodules.masks import BoxTrack, MaskTrack
from datamodules.needs import Need
from datamodules.records import Rollout
from rewards.base import Reward, require
from rewards.boxes import matched_iou
from rewards.target import boxes_of, score_plans, visible_boxes


class AlignmentReward(Reward):
    """Mean over picks of ``sum of matched IoU / (targets + extra_box_cost * extra boxes)``.

    Boxes are matched one-to-one (Hungarian) with the visible objects' tight boxes on that frame; objects without a box
    count 0. Where a benchmark labels boxes and no masks, its boxes take the place of the tight ones. Not applicable on
    clips without a visible target; 0 for absent or unparsable plans.

    Reference:
        Omni-R1, arXiv:2505.20256, R_A; `rewards.paper` holds the released form.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"boxes"})

    def __init__(
        self,
        *,
        extra_box_cost: float = 0.5,
        invisible_picks: Literal["zero", "skip"] = "zero",
        weight: float = 1.0,
    ) -> None:
        """Set how extra boxes and invisible picks count.

        Args:
            extra_box_cost: Share of a missed object that a box beyond the targets costs, >= 0; 0 ignores them, 1
                makes a surplus box as bad as a missed object.
            invisible_picks: A keyframe on which no target is visible scores 0 (zero) or is left out (skip); a plan
                that has no other picks scores 0 in both cases.
            weight: Factor in the total, unitless.

        Raises:
            ConfigError: If `extra_box_cost` is negative.
        """
        super().__init__(weight=weight)
        require(extra_box_cost >= 0, "extra_box_cost", extra_box_cost, "a number >= 0")
        self.extra_box_cost = extra_box_cost
        self.invisible_picks = invisible_picks

    def __call__(self, rollouts: Sequence[Rollout]) -> list[float | None]:
        """Score the boxes of one group, in 0..1."""
        target = visible_boxes(rollouts[0].clip)
        if target is None:
            return [None] * len(rollouts)
        return score_plans(rollouts, lambda rollout: self._score(rollout, target))

    def _score(self, rollout: Rollout, target: MaskTrack | BoxTrack) -> float:
        scores = []
        for found in boxes_of(rollout):
            truth = target.boxes(found.frame)
            if len(truth):
                extra = max(0, len(found.boxes) - len(truth))
                scores.append(matched_iou(found.boxes, truth).sum() / (len(truth) + self.extra_box_cost * extra))
            elif self.invisible_picks == "zero":
                scores.append(0.0)
        return float(sum(scores) / len(scores)) if scores else 0.0
