"""The tables of what other keyframes would have given."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from baselines import ROWS
from callbacks.media import markdown_table
from datamodules.records import Clip
from models.plan import parse_plan
from other_frames import POLICIES, WORDS, Values
from rows import row_of
from score_tables import PerSeed, counted, interval_of, shown

EXPLAINED = """\
Answers keep their descriptions (*own*), or get a true one (*true*) or the *expression* as it is, and the same number of
other keyframes: the fullest by the ground truth (oracle), evenly spread, at random (a mean over four draws), or the
clip's first frame alone. J&F times 100 over test clips with a target, by each benchmark's own rules; per clip a mean
over seeds. Differences are paired over clips, with 95 % intervals over videos and seeds. Only answers that name a
moment are compared, because the others have no frames of their own; *without a moment* is the share that they have.

The fullest frames with the expression are what the supervised baseline is taught: their value is what a model would
reach that repeats its labels without a fault.

The second table of a benchmark compares rows, each with its own descriptions: with its own frames, with its own against
evenly spread ones of the first row, and with evenly spread ones of both, where only the words differ (and how many
keyframes they name). Intervals are over videos and over the seeds of the row; of the first row it is the mean over its
seeds that is compared."""

CHOICES_EXPLAINED = """\
How many keyframes an answer names on average, how many different sets of frames a run's answers name, and the most
frequent ones, counted from 0. Few sets mean that the choice of moments hardly depends on the clip."""

PAIRS = (("own", "uniform"), ("own", "random"), ("oracle", "own"))
"""Whose difference is shown."""

AGAINST = (("own", "own"), ("own", "uniform"), ("uniform", "uniform"))
"""Frames of a row and of the first one, when their own descriptions are compared."""


def title_of(job: str) -> str:
    """What a table calls the row of a job; the name in the job's own, if it is a row of no table."""
    name = row_of(job)
    return {row.name: row.title for row in ROWS}.get(name, name)


def frame_tables(found: Mapping[str, Values]) -> str:
    """Two tables per benchmark: what other keyframes would have given, and what the words of another row would have.

    Args:
        found: By the name of the job; those of one row that differ in their seed alone are taken together.
    """
    parts = []
    for task, heading in (("refavs", "RefAVS"), ("revos", "ReVOS")):
        rows: dict[str, list[Values]] = {}
        for name, values in found.items():
            own = {clip: value for clip, value in values.items() if clip.startswith(f"{task}/")}
            rows.setdefault(title_of(name), []).append(own)
        parts += [f"### {heading}", _frame_table(rows)]
        parts += [_words_table(rows)] if len(rows) > 1 else []
    return "\n\n".join(parts)


def _frame_table(rows: Mapping[str, Sequence[Values]]) -> str:
    header = ["answers of", "seeds", "descriptions", *POLICIES]
    header += [f"{one} - {other}" for one, other in PAIRS]
    header += ["clips / videos", "without a moment"]
    return markdown_table(header, [cells for title, seeds in rows.items() for cells in _row_cells(title, seeds)])


def _words_table(rows: Mapping[str, Sequence[Values]]) -> str:
    first, *others = rows
    header = ["own descriptions of", *(f"{one}, minus {first} with {other}" for one, other in AGAINST)]
    return markdown_table(header, [_against_cells(title, rows, first) for title in others])


def _against_cells(title: str, rows: Mapping[str, Sequence[Values]], first: str) -> list[str]:
    cells = [title]
    for one, other in AGAINST:
        ours, theirs = _of_seeds(rows[title], f"own/{one}"), _of_seeds(rows[first], f"own/{other}")
        changes = {clip: value - np.nanmean(theirs[clip]) for clip, value in ours.items() if clip in theirs}
        cells.append(shown(interval_of([changes])))
    return cells


def choice_table(answers: Mapping[str, Mapping[str, str]], clips: Iterable[Clip]) -> str:
    """One row per run: how many keyframes its answers name, and which sets of frames most of them name.

    Args:
        answers: Texts by clip id, by the name of the run.
        clips: Those that are looked at.
    """
    lengths = {clip.id: (clip.frames.fps, clip.frames.count) for clip in clips}
    rows = []
    for name, texts in answers.items():
        plans = (parse_plan(texts[clip], fps=fps, frames=count) for clip, (fps, count) in lengths.items())
        sets = Counter(tuple(keyframe.frame for keyframe in plan.keyframes) for plan in plans if plan.keyframes)
        total = sets.total()
        mean = f"{sum(len(chosen) * times for chosen, times in sets.items()) / total:.1f}" if total else "-"
        often = [
            f"{', '.join(map(str, chosen))} ({100 * times / total:.0f} %)" for chosen, times in sets.most_common(3)
        ]
        rows.append([title_of(name), name, mean, str(len(sets)), "; ".join(often) or "-"])
    return markdown_table(["answers of", "run", "keyframes", "different sets", "most frequent"], rows)


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
