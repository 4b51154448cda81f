"""Validation scores that add up over clips and processes, per kind and overall."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor
from torchmetrics import Metric

from datamodules.masks import MaskTrack
from metrics.clips import ClipScores, Rules, score_clip

_COLUMNS = ("targets", "j", "f", "missed", "nulls", "s", "null_right")


class SegmentationScores(Metric):
    """J, F, their mean, S and null accuracy over clips.

    `compute` gives, under ``<prefix><key>`` over all clips and ``<prefix><kind>/<key>`` per kind:

    ``j``, ``f``, ``jf``: means over clips with a target, 0..1.
    ``false_absent``: share of clips with a target whose plan says that it is absent, 0..1.
    ``s``: mean of S over null clips, 0..1, lower is better; by the rules of Ref-AVS only.
    ``null_accuracy``: share of null clips answered with an absent plan or without a mask, 0..1.

    A key that no clip counts for is left out. States are sums, so the result does not depend on how clips are spread
    over processes. The overall values are means over clips; official tables average the kinds' means instead.
    """

    full_state_update = False
    sums: Tensor

    def __init__(self, kinds: Sequence[str], *, rules: Rules = "davis", prefix: str = "val/") -> None:
        """Set what is scored.

        Args:
            kinds: Every kind that a clip may have; fixed, so that all processes hold the same states.
            rules: Whose J and F, and whether S is computed.
            prefix: What the names of all results begin with.
        """
        super().__init__()
        self.kinds = tuple(kinds)
        self.rules: Rules = rules
        self.prefix = prefix
        self._clips: list[ClipScores] = []
        zeros = torch.zeros(len(self.kinds), len(_COLUMNS), dtype=torch.float64)
        self.add_state("sums", default=zeros, dist_reduce_fx="sum")

    def update(
        self,
        kind: str,
        pred: MaskTrack,
        target: MaskTrack | None,
        *,
        is_null: bool,
        plan_absent: bool,
        clip_id: str = "",
    ) -> None:
        """Add one clip.

        Args:
            kind: One of the kinds given at the start.
            pred: Propagated masks on every frame; an empty track for an absent or unusable plan.
            target: Ground truth of the same frames and size; may be None on null clips.
            is_null: The benchmark says that the target is not in the clip.
            plan_absent: The plan says so.
            clip_id: Which clip, for `per_clip` and messages.

        Raises:
            ValueError: If the kind is unknown, or the ground truth does not fit the prediction.
        """
        if kind not in self.kinds:
            raise ValueError(f"clip {clip_id!r} has kind {kind!r}; expected one of {', '.join(self.kinds)}")
        scores = score_clip(
            kind, pred, target, rules=self.rules, is_null=is_null, plan_absent=plan_absent, clip_id=clip_id
        )
        self._clips.append(scores)
        row = (
            not is_null,
            scores.j or 0.0,
            scores.f or 0.0,
            plan_absent and not is_null,
            is_null,
            scores.s or 0.0,
            bool(scores.is_null_right),
        )
        self.sums[self.kinds.index(kind)] += torch.tensor(row, dtype=self.sums.dtype, device=self.sums.device)

    def forward(self, *args: object, **kwargs: object) -> None:
        """Same as `update`: a value for one clip would have to reset what the others added."""
        self.update(*args, **kwargs)  # type: ignore[arg-type]

    def compute(self) -> dict[str, Tensor]:
        """Means by key, over all processes."""
        values = self._means(self.prefix, self.sums.sum(dim=0))
        for kind, sums in zip(self.kinds, self.sums, strict=True):
            values |= self._means(f"{self.prefix}{kind}/", sums)
        return values

    def per_clip(self) -> list[ClipScores]:
        """Every clip's own scores, of all processes, once per clip id; call it on every process or on none.

        Returns:
            In the order in which clips were added, process by process.
        """
        shares = [self._clips]
        if dist.is_available() and dist.is_initialized():
            shares = [[] for _ in range(dist.get_world_size())]
            dist.all_gather_object(shares, self._clips)
        every = [scores for share in shares for scores in share]
        seen: dict[str, ClipScores] = {}
        return [scores for scores in every if not scores.clip_id or seen.setdefault(scores.clip_id, scores) is scores]

    def reset(self) -> None:
        """Forget all clips."""
        super().reset()
        self._clips = []

    def _means(self, prefix: str, sums: Tensor) -> dict[str, Tensor]:
        total = dict(zip(_COLUMNS, sums, strict=True))
        values: dict[str, Tensor] = {}
        if total["targets"] > 0:
            j, f = total["j"] / total["targets"], total["f"] / total["targets"]
            values |= {"j": j, "f": f, "jf": (j + f) / 2, "false_absent": total["missed"] / total["targets"]}
        if total["nulls"] > 0:
            if self.rules == "refavs":
                values["s"] = total["s"] / total["nulls"]
            values["null_accuracy"] = total["null_right"] / total["nulls"]
        return {f"{prefix}{key}": value for key, value in values.items()}
