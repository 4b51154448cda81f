"""The tables of what other keyframes would have given."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice

import numpy as np

from baselines import ROWS
from callbacks.media import markdown_table
from datamodules.records import Clip
from models.plan import parse_plan
from other_frames import POLICIES, WORDS, Values, choose_frames
from rows import row_of
from score_tables import PerSeed, counted, interval_of, shown

EXPLAINED = """\
Answers keep their descriptions (*own*), or get a true one (*true*) or the *expression* as it is, and the same number of
other keyframes: the frames that show the target in as many equal parts, and the fullest of each by the ground truth
(*oracle*; not the best possible frames, which nobody has searched for), the middles of equal parts of the clip
(*uniform*), at random (a mean over four draws), or the clip's first frame alone. J&F times 100 over test clips with a
target, by each benchmark's own rules; per clip a mean over seeds. Differences are paired over clips, with 95 %
intervals over videos and seeds. Only answers that name a moment are compared, because the others have no frames of
their own; *without a moment* is the share that they have.

The second table of a benchmark takes the gain over the first row apart. *Moments* exchanges the frames of the one for
those of the other, with true descriptions or the expression for both; *words* exchanges the descriptions, with evenly
spread, oracle or random frames for both, each row as many as it names. *All, against evenly spread* gives the first row
evenly spread frames and nothing to the other. Intervals are over videos and over the seeds of the row; the first row is
the mean over its seeds."""

CHOICES_EXPLAINED = """\
How many keyframes an answer names on average, how many different sets of frames a run's answers name, and the most
frequent ones, counted from 0. Few sets mean that the choice of moments hardly depends on the clip. *Saliency* is the
area of the target on the frames that are named, or would be by another policy, relative to its largest in the clip,
times 100: what a choice by the clip could gain."""

PAIRS = (("own", "uniform"), ("own", "random"), ("oracle", "own"))
"""Whose difference is shown."""

AGAINST = {
    "all": ("own/own", "own/own"),
    "all, against evenly spread": ("own/own", "own/uniform"),
    "moments, true words": ("true/own", "true/own"),
    "moments, the expression": ("expression/own", "expression/own"),
    "words, evenly spread": ("own/uniform", "own/uniform"),
    "words, oracle frames": ("own/oracle", "own/oracle"),
    "words, random frames": ("own/random", "own/random"),
}
"""What a row is given, and what the first one, as ``<words>/<policy>``, by the name of their difference."""

TASKS = {"refavs": "RefAVS", "revos": "ReVOS"}
"""Headings by the beginning of clip ids."""


def title_of(job: str) -> str:
    """What a table calls the row of a job; the name in the job's own, if it is a row of no table."""
    name = row_of(job)
    return {row.name: row.title for row in ROWS}.get(name, name)


def frame_tables(found: Mapping[str, Values]) -> str:
    """Two tables per benchmark: what other keyframes would have given, and what of a gain is moments, and what words.

    Args:
        found: By the name of the job; those of one row that differ in their seed alone are taken together, and the
            first row is what others are compared with.
    """
    parts = []
    for task, heading in TASKS.items():
        rows: dict[str, list[Values]] = {}
        for name, values in found.items():
            own = {clip: value for clip, value in values.items() if clip.startswith(f"{task}/")}
            rows.setdefault(title_of(name), []).append(own)
        parts += [f"### {heading}", _frame_table(rows)]
        parts += [_gain_table(rows)] if len(rows) > 1 else []
    return "\n\n".join(parts)


def _frame_table(rows: Mapping[str, Sequence[Values]]) -> str:
    header = ["answers of", "seeds", "descriptions", *POLICIES]
    header += [f"{one} - {other}" for one, other in PAIRS]
    header += ["clips / videos", "without a moment"]
    return markdown_table(header, [cells for title, seeds in rows.items() for cells in _row_cells(title, seeds)])


def _gain_table(rows: Mapping[str, Sequence[Values]]) -> str:
    first, *others = rows
    cells = [
        [f"{title}, minus {first}", *(_gain(rows[title], rows[first], *keys) for keys in AGAINST.values())]
        for title in others
    ]
    return markdown_table(["gain", *AGAINST], cells)


def _gain(row: Sequence[Values], first: Sequence[Values], one: str, other: str) -> str:
    ours, theirs = _of_seeds(row, one), _of_seeds(first, other)
    changes = {clip: value - np.nanmean(theirs[clip]) for clip, value in ours.items() if clip in theirs}
    return shown(interval_of([changes]))


Choices = dict[str, int]
"""How many answers name a set of frames, such as ``0, 4``; the most frequent set first."""


def choices_of(texts: Mapping[str, str], clips: Iterable[Clip]) -> dict[str, Choices]:
    """The sets of frames that a run's answers name, by benchmark; answers without a moment are left out.

    Args:
        texts: Its answers, by clip id.
        clips: Those that are looked at.
    """
    found: dict[str, Counter[str]] = {}
    for clip in clips:
        plan = parse_plan(texts[clip.id], fps=clip.frames.fps, frames=clip.frames.count)
        if plan.keyframes:
            chosen = ", ".join(str(keyframe.frame) for keyframe in plan.keyframes)
            found.setdefault(clip.task, Counter())[chosen] += 1
    return {task: dict(sets.most_common()) for task, sets in found.items()}


def saliency_of(texts: Mapping[str, str], clips: Iterable[Clip]) -> dict[str, dict[str, float]]:
    """By benchmark and policy: the area of the target on the frames, relative to its largest in the clip, 0..1.

    Drawn frames have the mean over all frames. Answers without a moment are left out.

    Args:
        texts: A run's answers, by clip id.
        clips: Those that are looked at, with masks.
    """
    found: dict[str, dict[str, list[float]]] = {}
    for clip in clips:
        plan = parse_plan(texts[clip.id], fps=clip.frames.fps, frames=clip.frames.count)
        if plan.keyframes and clip.masks is not None:
            areas = clip.masks.areas.sum(axis=1) / clip.masks.areas.sum(axis=1).max()
            for policy in POLICIES:
                chosen = choose_frames(policy, plan, clip, count=len(plan.keyframes), rng=np.random.default_rng(0))
                area = areas.mean() if policy == "random" else areas[list(chosen)].mean()
                found.setdefault(clip.task, {}).setdefault(policy, []).append(float(area))
    return {task: {policy: float(np.mean(one)) for policy, one in values.items()} for task, values in found.items()}


def choice_table(
    found: Mapping[str, Mapping[str, Choices]], saliency: Mapping[str, Mapping[str, Mapping[str, float]]]
) -> str:
    """One row per run and benchmark: how many keyframes its answers name, which sets most of them name, how salient.

    Args:
        found: See `choices_of`, by the name of the run.
        saliency: See `saliency_of`, likewise.
    """
    rows = []
    for name, by_task in found.items():
        for task, sets in by_task.items():
            total = sum(sets.values())
            mean = sum((chosen.count(",") + 1) * times for chosen, times in sets.items()) / total
            often = [f"{chosen} ({100 * times / total:.0f} %)" for chosen, times in islice(sets.items(), 3)]
            shares = [f"{100 * saliency[name][task][policy]:.0f}" for policy in POLICIES]
            rows.append([title_of(name), name, TASKS[task], f"{mean:.1f}", str(len(sets)), "; ".join(often), *shares])
    header = ["answers of", "run", "benchmark", "keyframes", "different sets", "most frequent"]
    return markdown_table([*header, *(f"saliency, {policy}" for policy in POLICIES)], rows)


def _row_cells(title: str, seeds: Sequence[Values]) -> Iterator[list[str]]:
    answered = [bool(value) for values in seeds for value in values.values()]
    if not answered:
        return
    without = f"{100 * (1 - float(np.mean(answered))):.0f} %"
    if not any(answered):
        yield [title, str(len(seeds)), *["-"] * (len(POLICIES) + len(PAIRS) + 1), counted(()), without]
        return
    for words in WORDS:
        jf = {policy: _of_seeds(seeds, f"{words}/{policy}") for policy in POLICIES}
        means = ([np.nanmean(one) for one in values.values()] for values in jf.values())
        cells = [f"{100 * float(np.mean(one)):.1f}" for one in means]
        for one, other in PAIRS:
            cells.append(shown(interval_of([{clip: jf[one][clip] - jf[other][clip] for clip in jf[one]}])))
        yield [title, str(len(seeds)), words, *cells, counted(jf["own"]), without]


def _of_seeds(seeds: Sequence[Values], key: str) -> dict[str, PerSeed]:
    """The values of every clip, NaN for a seed whose answer names no moment; clips without any value are left out."""
    clips = dict.fromkeys(clip for one in seeds for clip, value in one.items() if value)
    return {clip: np.array([one[clip].get(key, np.nan) for one in seeds]) for clip in clips}
