"""The two systems joined: completion, plan, boxes, masks. Rewards, evaluation and prediction all come through here.

`fill` takes the rollouts of one clip together, so that System 2 sees each keyframe, each description and each clip
once however many rollouts ask. What it runs depends on what is needed, never on what the completions say: a rollout
without a usable plan gets an empty grounding and an empty track, and the calls are made all the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from datamodules.masks import MaskTrack
from datamodules.needs import Need
from datamodules.records import Clip, Grounding, Plan, Rollout
from models.grounder import Grounder, GroundingRequest
from models.propagator import Propagator


class TwoSystemPipeline:
    """System 2 behind System 1's plans.

    Args:
        grounder: Boxes from descriptions.
        propagator: Masks from boxes.
    """

    def __init__(self, grounder: Grounder, propagator: Propagator) -> None:
        self.grounder = grounder
        self.propagator = propagator

    def fill(self, rollouts: Sequence[Rollout], needs: Iterable[Need]) -> list[Rollout]:
        """Complete the rollouts of one clip.

        Args:
            rollouts: All of the same clip, plans parsed.
            needs: "boxes" fills `grounding`; "masks" fills `grounding` and `masks`; nothing returns them as they are.

        Returns:
            The rollouts in order, completed.

        Raises:
            ValueError: The rollouts belong to different clips.
        """
        needed = frozenset(needs)
        if not rollouts or not needed:
            return list(rollouts)
        clip = rollouts[0].clip
        others = {rollout.clip.id for rollout in rollouts} - {clip.id}
        if others:
            raise ValueError(f"expected the rollouts of one clip, found {clip.id} and {sorted(others)[0]}")
        groundings = self.ground(clip, [rollout.plan for rollout in rollouts])
        filled = [replace(r, grounding=grounding) for r, grounding in zip(rollouts, groundings, strict=True)]
        if "masks" in needed:
            tracks = self.propagate(clip, groundings)
            filled = [replace(r, masks=track) for r, track in zip(filled, tracks, strict=True)]
        return filled

    def ground(self, clip: Clip, plans: Sequence[Plan]) -> list[Grounding]:
        """Boxes for every keyframe of every plan; a plan without keyframes gives a grounding without entries."""
        requests = [GroundingRequest(k.frame, k.description) for plan in plans for k in plan.keyframes]
        answers = iter(self.grounder.ground(clip, requests))
        return [Grounding(tuple(next(answers) for _ in plan.keyframes)) for plan in plans]

    def propagate(self, clip: Clip, groundings: Sequence[Grounding]) -> list[MaskTrack]:
        """Masks on every frame of the clip, one track per grounding."""
        return self.propagator.propagate(clip, groundings)
