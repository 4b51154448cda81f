"""The compute of two systems, spent on one: System 1 alone sees more frames, more pixels, or both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from callbacks.media import markdown_table
from compute import ComputeMeter
from datamodules.avshapes.make import ensure_avshapes
from datamodules.avshapes.settings import WORLDS
from learned_places import learned
from models.plan import parse_plan
from outcomes import Outcome, by_code, commits_of, short, this_code
from rows import GRPO, QUIET, SFT, TESTED, Row, drawn_flags, job_name, seed_flags, with_seeds
from score_tables import column, counted, interval, scored, shown, timed
from side_by_side import Job

FRAMES, FPS = 20, 2.0
KEYS = ("referring/jf", "reasoning/jf")
ORACLE = "configs/baselines/sft_oracle.yaml"
PLACES = "configs/baselines/sft_places.yaml"


@dataclass(frozen=True)
class Variant(Row):
    """One way to spend compute.

    Attributes:
        frames: Frames that System 1 sees.
        side: Side of these frames in pixels.
        alone: Whether System 1 finds the target itself.
    """

    frames: int = 10
    side: int = 112
    alone: bool = False


VARIANTS = (
    Variant("two_grpo", "two systems, GRPO", (GRPO,)),
    Variant("two_oracle", "two systems, supervised, oracle descriptions", (SFT, ORACLE)),
    Variant("one", "System 1 alone", (SFT, PLACES), alone=True),
    Variant("one_frames", "System 1 alone, all 20 frames", (SFT, PLACES), frames=20, alone=True),
    Variant("one_pixels", "System 1 alone, 4 x the pixels", (SFT, PLACES), side=224, alone=True),
    Variant("one_both", "System 1 alone, both", (SFT, PLACES), frames=20, side=224, alone=True),
    Variant("two", "two systems, no training", (GRPO,), trains=False),
    Variant("two_sft", "two systems, supervised", (SFT,)),
)

AGAINST = ("two_oracle", "two_grpo")
"""Variants that the others are compared with."""

EXPLAINED = """\
ReVOS-like clips of 20 frames; the same training prompts for every row. *System 1 alone* is supervised to write where
the target is on each keyframe and looks no closer; masks are propagated by the same SAM2. Compute is counted in GFLOP
for one clip and an answer of four keyframes: System 1 reads its frames and writes it, the grounder looks at them, SAM2
propagates one object. Answers name fewer (*keyframes*), so every row spends somewhat less. The question is about System
1 and grounder *together*; SAM2 costs the same everywhere.

J&F is the mean of referring and reasoning, times 100, over test clips with a target; intervals are over videos and
seeds. The row *two systems, supervised, oracle descriptions* is trained as System 1 alone is, by supervision, and told
as much about the target: its places there, a true description here. The row *two systems, GRPO* is the method, without
either. In *two systems, supervised* the description is the expression, which the frozen grounder often cannot find.
*Places* are the mean IoU of the stated boxes, on prompts of the training, on test clips, and by *chance*, where boxes
stated for one clip are compared with another. A row that has learned where things are on the clips that it knows is
high on them; one at chance has learned nothing about places, and its J&F says nothing about frames and pixels.
*Unusable* is the share of answers, in percent, that name neither a moment nor an absence. *Seconds* are those of the
training steps, waiting for data included, with the named number of runs side by side; the median over seeds, and the
least and the most.

The weights bound what this can say. System 1's frozen towers and its language model were made with 10 frames of 112
pixels a side alone, and were never taught coordinates. That 20 frames or 224 pixels do not help would be a statement
about these weights, not about frames and pixels."""


def long_clips(videos: int, cache: Path | None) -> Path:
    """ReVOS-like videos with twice the frames, so that System 1 can see more than it is shown.

    Args:
        videos: To train on; a third as many to test on.
        cache: Where they are kept; None for the user's cache.
    """
    world = replace(WORLDS["revos"], frames=FRAMES, fps=FPS)
    return ensure_avshapes("revos", sizes={"train": videos, "valid": max(2, videos // 3)}, world=world, cache_dir=cache)


def make_jobs(
    variants: Sequence[Variant], seeds: Sequence[int], root: Path, *, prompts: int, clips: int, extra: Sequence[str]
) -> list[Job]:
    """One job per variant and seed.

    Args:
        variants: What to run.
        seeds: Of weights, sampling and the drawn prompts.
        root: Folder of the clips.
        prompts: To train on.
        clips: Most test clips, the same ones for every job.
        extra: Flags for every command.
    """
    revos = [f"--data.sources.revos.root={root}", f"--data.sources.revos.fps={FPS}"]
    revos += [f"--data.sources.revos.clip_frames={FRAMES}", "--data.sources.refavs.weight=0"]
    test = [*drawn_flags(clips), "--data.sources.revos.test_null_fraction=0", *TESTED]
    jobs = []
    for one, seed in with_seeds(variants, seeds):
        paths = [flag for flag in extra if not (one.alone and flag.startswith("--model.grounder"))]
        looks = [f"--data.glance_frames={one.frames}", f"--data.glance_max_pixels={one.side**2}"]
        drawn = [*seed_flags(seed), f"--data.sources.revos.train_size={prompts}", *one.sampling_flags(seed)]
        fit = (*revos, *looks, *drawn, *QUIET, *paths) if one.trains else None
        # A test of a trained run takes the rest from its configuration.
        whole = test if one.trains else [*revos, *looks, *test, *paths]
        jobs.append(Job(job_name(one.name, seed), one.configs, fit, tuple(whole)))
    return jobs


def compute_table(
    table: Mapping[str, Sequence[Outcome]], jobs: Mapping[str, Sequence[Path]], root: Path, weights: Path
) -> tuple[str, dict[str, Any]]:
    """Compute and scores of every variant.

    Args:
        table: Runs by variant.
        jobs: Their folders.
        root: Folder of the clips.
        weights: Folder of all three models.

    Returns:
        Markdown, and the numbers by variant.
    """
    meter = ComputeMeter(weights, root, fps=FPS)
    titles = {one.name: one.title for one in VARIANTS}
    against = [name for name in AGAINST if name in table]
    header = ["", "frames", "side", "System 1", "grounder", "together", "SAM2", "J&F"]
    header += [f"minus {titles[name]}" for name in against]
    header += [*PLACES_OF, "keyframes", "unusable", "seconds"]
    rows, numbers = [], {}
    for one in (variant for variant in VARIANTS if variant.name in table):
        spent = meter.measure(frames=one.frames, side=one.side, alone=one.alone)
        places = [vars(learned(job, root, fps=FPS)) for job in jobs[one.name]] if one.alone else []
        numbers[one.name] = _numbers(table[one.name], {name: table[name] for name in against if name != one.name})
        numbers[one.name] |= {"gflop": vars(spent), "places": places}
        rows.append([one.title, str(one.frames), str(one.side), *_cells(numbers[one.name], against)])
    clips = next(iter(table.values()))[0].clips
    tested = counted(clip for clip, values in clips.items() if values.keys() & set(KEYS))
    return f"{markdown_table(header, rows)}\n\nTest clips / videos: {tested}.", numbers


PLACES_OF = {"places, training": "training", "places, test": "held_out", "places, chance": "chance"}
"""Columns of the IoU of places."""


def _numbers(outcomes: Sequence[Outcome], others: Mapping[str, Sequence[Outcome]]) -> dict[str, Any]:
    """What the runs of a variant say, one value per seed; differences with the ends of their interval."""
    return {
        "jf": [column(outcome, KEYS) for outcome in outcomes],
        "minus": {name: interval(outcomes, other, KEYS) for name, other in others.items()},
        "keyframes": [_keyframes(outcome) for outcome in outcomes],
        "unusable": [column(outcome, ["parse_failures"]) for outcome in outcomes],
        "seconds": [outcome.seconds for outcome in outcomes],
    }


def _keyframes(outcome: Outcome) -> float:
    """How many keyframes an answer names on average, those without any left out."""
    plans = (parse_plan(text, fps=FPS, frames=FRAMES) for text in outcome.texts.values())
    return float(np.mean([len(plan.keyframes) for plan in plans if plan.keyframes] or [0]))


def _cells(numbers: Mapping[str, Any], against: Sequence[str]) -> list[str]:
    spent, places = numbers["gflop"], numbers["places"]
    together = spent["system_1"] + spent["grounder"]
    shares = (spent["system_1"], spent["grounder"], together, spent["propagator"])
    changes = [shown(numbers["minus"][name]) if name in numbers["minus"] else "" for name in against]
    ious = [f"{np.mean([one[part] for one in places]):.2f}" if places else "" for part in PLACES_OF.values()]
    last = [f"{np.mean(numbers['keyframes']):.1f}", scored(np.array(numbers["unusable"])), timed(numbers["seconds"])]
    return [*(f"{value:.2f}" for value in shares), scored(np.array(numbers["jf"])), *changes, *ious, *last]


def compute_codes(table: Mapping[str, Sequence[Outcome]], numbers: Mapping[str, Any]) -> dict[str, str]:
    """Which code made what `compute_table` shows; operations are counted anew every time.

    Args:
        table: Runs by variant.
        numbers: From there.
    """
    rows = [one for one in VARIANTS if one.name in table]
    made = commits_of({one.title: table[one.name] for one in rows})
    places = {one.title: [place["measured_by"] for place in numbers[one.name]["places"]] for one in rows}
    found = {"commit of compute": made, "operations counted by": short(this_code())}
    return found | ({"places measured by": by_code(places)} if any(places.values()) else {})
