"""Other keyframes for answers that were already given: what System 2 makes of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from callbacks.media import markdown_table
from datamodules.avshapes.oracle import TrueDescriptions
from datamodules.lessons import fullest_frames
from datamodules.mixture import MixtureDataModule
from datamodules.records import Clip, Keyframe, ParseReport, Plan, Rollout
from metrics.clips import rules_for, score_clip
from models.detector import DetectorGrounder
from models.pipeline import TwoSystemPipeline
from models.plan import parse_plan
from models.propagator import SAM2Propagator
from score_tables import interval, shown
from side_by_side import Outcome

POLICIES = ("own", "oracle", "uniform", "random", "first")
"""Whose frames: the answer's own, the fullest by the ground truth, evenly spread, drawn at random, the clip's first."""

DRAWS = 4
"""How often frames are drawn at random, for a mean over them."""


def choose_frames(policy: str, plan: Plan, clip: Clip, *, count: int, rng: np.random.Generator) -> tuple[int, ...]:
    """Frames of a plan by one of `POLICIES`.

    Args:
        policy: Which.
        plan: The model's own.
        clip: With masks.
        count: How many.
        rng: For random frames.
    """
    total = clip.frames.count
    if policy == "own":
        return tuple(keyframe.frame for keyframe in plan.keyframes)
    if policy == "oracle":
        return () if clip.masks is None else fullest_frames(clip.masks.areas.sum(axis=1), count)
    if policy == "uniform":
        # The middles of equal parts: with one frame the middle of the clip, not its start.
        return tuple(int((2 * index + 1) * total / (2 * count)) for index in range(min(count, total)))
    if policy == "random":
        return tuple(sorted(int(frame) for frame in rng.choice(total, size=min(count, total), replace=False)))
    return (0,)


def plan_with(frames: Sequence[int], descriptions: Sequence[str], clip: Clip) -> Plan:
    """A plan of given frames; descriptions are used in turn. Without either it names nothing."""
    fps = clip.frames.fps
    words = [descriptions[index % len(descriptions)] for index in range(len(frames))] if descriptions else []
    pairs = zip(frames, words, strict=False)
    keyframes = tuple(Keyframe(frame, text, frame / fps, (frame + 1) / fps) for frame, text in pairs)
    return Plan(keyframes, False, ParseReport(is_well_formed=True))


def frame_values(
    clip: Clip, text: str, words: str, pipeline: TwoSystemPipeline, rng: np.random.Generator
) -> dict[str, float]:
    """J&F of one clip for every policy, with the answer's own descriptions and with the true one.

    Args:
        clip: With masks.
        text: The completion.
        words: The true description.
        pipeline: System 2.
        rng: For random frames.

    Returns:
        By ``<own or true>/<policy>``; an answer that names no moment scores what empty masks score, wherever its own
        words are needed.
    """
    own = parse_plan(text, fps=clip.frames.fps, frames=clip.frames.count)
    count = max(1, len(own.keyframes))
    chosen = [
        (policy, choose_frames(policy, own, clip, count=count, rng=rng))
        for policy in POLICIES
        for _ in range(DRAWS if policy == "random" else 1)
    ]
    said = [keyframe.description for keyframe in own.keyframes]
    plans = [(f"own/{policy}", plan_with(frames, said, clip)) for policy, frames in chosen]
    plans += [(f"true/{policy}", plan_with(frames, [words], clip)) for policy, frames in chosen]
    nothing = torch.zeros(0)
    rollouts = [Rollout(clip, index, "", nothing.long(), nothing, False, plan) for index, (_, plan) in enumerate(plans)]
    found = pipeline.fill(rollouts, {"boxes", "masks"})
    values: dict[str, list[float]] = {}
    for (name, _), rollout in zip(plans, found, strict=True):
        if rollout.masks is None:
            raise ValueError(f"{clip.id}: System 2 gave no masks")
        rules = rules_for(clip.task)
        scores = score_clip(clip.kind, rollout.masks, clip.masks, rules=rules, is_null=False, plan_absent=False)
        values.setdefault(name, []).append(float(scores.jf or 0.0))
    return {name: float(np.mean(scores)) for name, scores in values.items()}


def measured_clips(data: MixtureDataModule) -> Iterator[tuple[Clip, str]]:
    """Test clips with a target, with their true descriptions.

    Args:
        data: Of generated benchmarks; test clips must be drawn as they were when the answers were given.
    """
    data.prepare_data()
    data.setup("test")
    words = {name: TrueDescriptions(part.data_root) for name, part in data.parts.items()}
    for loader in data.test_dataloader():
        for batch in loader:
            yield from ((clip, words[clip.task](clip, 0)) for clip in batch if not clip.is_null)


def frame_table(answers: Mapping[str, Outcome], data: MixtureDataModule, weights: Path) -> tuple[str, dict[str, Any]]:
    """What other keyframes would have given.

    Args:
        answers: Finished runs by title.
        data: Where the clips are that the runs were tested on.
        weights: Folder of grounder and propagator.

    Returns:
        The table, and its numbers by title, clip and policy.

    Raises:
        SystemExit: A run was tested on none of these clips.
    """
    grounder, propagator = DetectorGrounder(str(weights / "grounder")), SAM2Propagator(str(weights / "propagator"))
    grounder.load()
    propagator.load()
    pipeline = TwoSystemPipeline(grounder, propagator)
    found: dict[str, dict[str, dict[str, float]]] = {title: {} for title in answers}
    for clip, words in measured_clips(data):
        for title, outcome in answers.items():
            if clip.id in outcome.texts:
                rng = np.random.default_rng(sum(clip.id.encode()))
                found[title][clip.id] = frame_values(clip, outcome.texts[clip.id], words, pipeline, rng)
    empty = [title for title, values in found.items() if not values]
    if empty:
        raise SystemExit(
            f"{', '.join(empty)}: tested on none of the clips that are drawn here. Name the sizes that they were made"
            " with by --avshapes-sizes and --cache, and as many --clips."
        )
    header = ["answers of", "descriptions", *POLICIES, "own - random", "oracle - own", "clips"]
    rows = []
    for title, values in found.items():
        for source in ("own", "true"):
            column = {
                policy: np.array([value[f"{source}/{policy}"] for value in values.values()]) for policy in POLICIES
            }
            outcomes = {policy: [_as_outcome(dict(zip(values, column[policy], strict=True)))] for policy in POLICIES}
            pairs = (("own", "random"), ("oracle", "own"))
            changes = [interval(outcomes[one], outcomes[other], ["jf"]) for one, other in pairs]
            cells = [f"{100 * column[policy].mean():.1f}" for policy in POLICIES]
            rows.append([title, source, *cells, *map(shown, changes), str(len(values))])
    return markdown_table(header, rows), found


def _as_outcome(values: Mapping[str, float]) -> Outcome:
    clips = {clip: {"jf": float(value)} for clip, value in values.items()}
    return Outcome({}, clips, {}, batches=0, prompts=0, seconds=0.0, curves={})
