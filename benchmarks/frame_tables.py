"""The tables of what other keyframes would have given."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from baselines import ROWS
from callbacks.media import markdown_table
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
reach that repeats its labels without a fault."""

PAIRS = (("own", "uniform"), ("own", "random"), ("oracle", "own"))
"""Whose difference is shown."""


def title_of(job: str) -> str:
    """What a table calls the row of a job; the name in the job's own, if it is a row of no table."""
    name = row_of(job)
    return {row.name: row.title for row in ROWS}.get(name, name)


def frame_tables(found: Mapping[str, Values]) -> str:
    """One table per benchmark: what other keyframes would have given.

    Args:
        found: By the name of the job; those of one row that differ in their seed alone are taken together.
    """
    header = ["answers of", "seeds", "descriptions", *POLICIES]
    header += [f"{one} - {other}" for one, other in PAIRS]
    header += ["clips / videos", "without a moment"]
    parts = []
    for task, heading in (("refavs", "RefAVS"), ("revos", "ReVOS")):
        rows: dict[str, list[Values]] = {}
        for name, values in found.items():
            own = {clip: value for clip, value in values.items() if clip.startswith(f"{task}/")}
            rows.setdefault(title_of(name), []).append(own)
        lines = [cells for title, seeds in rows.items() for cells in _row_cells(title, seeds)]
        parts += [f"### {heading}", markdown_table(header, lines)]
    return "\n\n".join(parts)


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
