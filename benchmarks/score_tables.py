"""Tables and plots of runs on the same test clips: means, spread over seeds, paired intervals over videos and seeds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from jaxtyping import Float, Int

from callbacks.interval import resampled_means
from callbacks.media import markdown_table
from models.plan import parse_plan
from outcomes import Outcome

PerSeed = Float[np.ndarray, "seeds"]
"""One value per seed."""

GROUPS: dict[str, tuple[str, ...]] = {
    "seen": ("seen/jf",),
    "unseen": ("unseen/jf",),
    "null right": ("null/null_accuracy",),
    "referring": ("referring/jf",),
    "reasoning": ("reasoning/jf",),
    "overall": ("referring/jf", "reasoning/jf"),
    "non-existent right": ("non-existent/null_accuracy",),
}
"""Columns of the table: the mean of one or two means over clips. `overall` is that of ReVOS."""


FEW = 20
"""Fewer clips than this say little, and are marked."""


def column(outcome: Outcome, keys: Sequence[str]) -> float:
    """A column of the table for one run; NaN where nothing was measured."""
    return float(np.mean([outcome.metrics.get(key, np.nan) for key in keys]))


def interval(row: Sequence[Outcome], other: Sequence[Outcome], keys: Sequence[str]) -> tuple[float, float, float]:
    """Mean difference of two rows and the ends of its 95 % interval, by a bootstrap over videos and seeds.

    Runs of one seed were trained on the same prompts, so that they are compared with each other.

    Args:
        row: The runs of a row, one per seed.
        other: Those of the row that it is compared with, with the same seeds; either may have one for all.
        keys: Means over clips, of which the mean is compared.

    Returns:
        (difference, low, high); NaN without clips.

    Raises:
        ValueError: The numbers of seeds do not fit.
        KeyError: Runs of a row were tested on different clips.
    """
    changes = []
    for key in keys:
        ours, theirs = _per_clip(row, key), _per_clip(other, key)
        changes.append({clip: ours[clip] - theirs[clip] for clip in sorted(ours.keys() & theirs.keys())})
    return interval_of(changes)


RESAMPLES = 4000
"""Bootstrap samples of an interval."""


def interval_of(changes: Sequence[Mapping[str, PerSeed]]) -> tuple[float, float, float]:
    """The mean of mean differences and the ends of its 95 % interval, by a bootstrap over videos and seeds.

    Clips are questions about videos, several about each; those of one video are drawn together. Seeds are drawn for all
    clips at once: a run that went wrong did so everywhere. With three seeds their part of the interval is too narrow,
    by the bootstrap's factor of sqrt(2/3).

    Args:
        changes: Differences of every seed, by clip id, NaN where a seed has none; per clip the mean over seeds is
            taken, then of each mapping the mean over clips.

    Returns:
        (difference, low, high); NaN where one of them has no clips.
    """
    if not all(changes):
        return float("nan"), float("nan"), float("nan")
    videos = {video: place for place, video in enumerate(sorted({video_of(clip) for one in changes for clip in one}))}
    seeds = len(next(iter(changes[0].values())))
    drawn = np.random.default_rng(0).multinomial(seeds, [1 / seeds] * seeds, size=RESAMPLES)
    means = []
    for number, (times, resamples) in enumerate(zip(*np.unique(drawn, axis=0, return_counts=True), strict=True)):
        sums, counts = _sums_and_counts(changes, times, videos)
        means.append(resampled_means(sums, counts, resamples=resamples, seed=number).mean(axis=1))
    sums, counts = _sums_and_counts(changes, np.ones(seeds, dtype=np.int64), videos)
    low, high = np.nanquantile(np.concatenate(means), [0.025, 0.975])
    return float((sums.sum(axis=0) / counts.sum(axis=0)).mean()), float(low), float(high)


def _sums_and_counts(
    changes: Sequence[Mapping[str, PerSeed]], times: Int[np.ndarray, "seeds"], videos: Mapping[str, int]
) -> tuple[Float[np.ndarray, "videos means"], Float[np.ndarray, "videos means"]]:
    """Sum and number of the differences about each video, when a seed is taken so many times."""
    sums, counts = np.zeros((2, len(videos), len(changes)))
    for place, one in enumerate(changes):
        for clip, values in one.items():
            weights = times * ~np.isnan(values)
            if weights.any():
                sums[videos[video_of(clip)], place] += weights @ np.nan_to_num(values) / weights.sum()
                counts[videos[video_of(clip)], place] += 1
    return sums, counts


def video_of(clip: str) -> str:
    """The video that a clip id is about: Ref-AVS names a question by its video, category and number, others below it.

    Args:
        clip: Such as ``refavs/test_s/12:<video>_circle_1`` or ``revos/valid/<video>/3``.
    """
    where, _, name = clip.rpartition("/")
    return f"{where}/{name.partition(':')[2].rsplit('_', 2)[0]}" if clip.startswith("refavs/") else where


def counted(clips: Iterable[str]) -> str:
    """How many clips and videos a number rests on; few clips are marked."""
    found = set(clips)
    return f"{len(found)} / {len({video_of(clip) for clip in found})}" + (" (few)" if len(found) < FEW else "")


def counts_of(table: Mapping[str, Sequence[Outcome]]) -> dict[str, str]:
    """Clips and videos under every heading; they are the same for all rows."""
    clips = next(iter(table.values()))[0].clips
    return {
        group: counted(clip for clip, values in clips.items() if values.keys() & set(keys))
        for group, keys in GROUPS.items()
    }


def _per_clip(row: Sequence[Outcome], key: str) -> dict[str, PerSeed]:
    """The values of every clip that has some, one per seed; all runs of a row are tested on the same clips."""
    clips = [clip for clip, values in row[0].clips.items() if key in values]
    return {clip: np.array([one.clips[clip][key] for one in row]) for clip in clips}


def shown(change: tuple[float, float, float]) -> str:
    """A difference and its interval, times 100; a dash where nothing was compared."""
    mean, low, high = (100 * value for value in change)
    if np.isnan(mean):
        return "-"
    return f"{mean:+.1f} ({low:+.1f} .. {high:+.1f})"


def scored(values: np.ndarray) -> str:
    """Mean over seeds and its spread, times 100; a dash where nothing was measured."""
    if np.isnan(values).any():
        return "-"
    spread = f" ± {100 * values.std(ddof=1):.1f}" if len(values) > 1 else ""
    return f"{100 * values.mean():.1f}{spread}"


def score_table(table: Mapping[str, Sequence[Outcome]], titles: Mapping[str, str]) -> str:
    """One row per way of training: mean and spread of every column, prompts and seconds."""
    rows = [["*clips / videos*", "", *counts_of(table).values(), "", ""]]
    for name, outcomes in table.items():
        cells = [titles[name], str(len(outcomes))]
        cells += [scored(np.array([column(outcome, keys) for outcome in outcomes])) for keys in GROUPS.values()]
        rows.append([*cells, str(outcomes[0].prompts), timed([outcome.seconds for outcome in outcomes])])
    return markdown_table(["training", "seeds", *GROUPS, "prompts", "seconds"], rows)


def timed(seconds: Sequence[float]) -> str:
    """The median over seeds, and the least and the most."""
    spread = f" ({min(seconds):.0f} .. {max(seconds):.0f})" if len(seconds) > 1 else ""
    return f"{np.median(seconds):.0f}{spread}"


ABSENT = {"null": "null/null_accuracy", "non-existent": "non-existent/null_accuracy"}
"""Groups of clips without a target, and the share of them that is handled right."""


def says_absent(outcome: Outcome, key: str) -> float:
    """The share of answers that say the target is absent, among the clips that have a value; NaN without such clips."""
    texts = [outcome.texts[clip] for clip, values in outcome.clips.items() if key in values]
    # Whether an answer says so does not depend on the clip's length.
    return float(np.mean([parse_plan(text, fps=1.0, frames=1).is_absent for text in texts])) if texts else float("nan")


def absent_table(table: Mapping[str, Sequence[Outcome]], titles: Mapping[str, str]) -> str:
    """One row per way of training: what becomes of clips without a target, and how often others are said to be so."""
    header = ["training"]
    header += [title for name in ABSENT for title in (f"{name}: says absent", f"{name} right")]
    rows = []
    for name, outcomes in table.items():
        cells = [titles[name]]
        for key in ABSENT.values():
            cells.append(scored(np.array([says_absent(outcome, key) for outcome in outcomes])))
            cells.append(scored(np.array([column(outcome, [key]) for outcome in outcomes])))
        s = float(np.mean([column(outcome, ["null/s"]) for outcome in outcomes]))
        cells.append("-" if np.isnan(s) else f"{s:.3f}")
        for key in ("false_absent", "parse_failures"):
            cells.append(scored(np.array([column(outcome, [key]) for outcome in outcomes])))
        rows.append(cells)
    return markdown_table([*header, "null S", "target there: says absent", "unusable"], rows)


REWARDS = ("diversity", "count", "saliency", "alignment", "consistency")
"""Rewards that a table shows, by the names that they have in the configuration."""


def reward_table(table: Mapping[str, Sequence[Outcome]], titles: Mapping[str, str]) -> str:
    """One row per way of training: what the answers would have earned, before weights; also what was not trained on."""
    rows = [
        [titles[name], *(scored(np.array([column(one, [f"rewards/{term}"]) for one in outcomes])) for term in REWARDS)]
        for name, outcomes in table.items()
    ]
    return markdown_table(["training", *REWARDS], rows)


def difference_table(table: Mapping[str, Sequence[Outcome]], titles: Mapping[str, str], other: str) -> str:
    """One row per way of training: its difference to another, with intervals."""
    rows = [["*clips / videos*", *counts_of(table).values()]]
    for name in table:
        if name == other:
            continue
        cells = [titles[name]]
        for keys in GROUPS.values():
            cells.append(shown(interval(table[name], table[other], keys)))
        rows.append(cells)
    return markdown_table(["training", *GROUPS], rows)


def differences_of(table: Mapping[str, Sequence[Outcome]], other: str) -> dict[str, dict[str, list[float]]]:
    """By row and column, the difference to another row and the ends of its interval, as JSON can hold them."""
    return {
        name: {group: list(interval(outcomes, table[other], keys)) for group, keys in GROUPS.items()}
        for name, outcomes in table.items()
        if name != other
    }


def draw(table: Mapping[str, Sequence[Outcome]], titles: Mapping[str, str], path: Path, *, reference: str) -> None:
    """The columns of the table side by side: a bar for the mean of a row, a dot for each of its seeds.

    Columns of one kind have one scale, which does not begin at zero.

    Args:
        table: Runs by row.
        titles: Of the rows.
        path: The picture.
        reference: Row whose value is drawn as a line through all others, if it is there.
    """
    mpl.use("agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(GROUPS), figsize=(2 * len(GROUPS) + 2, 0.35 * len(table) + 1.3), sharey=True)
    names, counts = list(table)[::-1], counts_of(table)
    values = {
        group: [[100 * column(outcome, keys) for outcome in table[name]] for name in names]
        for group, keys in GROUPS.items()
    }
    for axis, (group, rows) in zip(axes, values.items(), strict=True):
        is_share = group.endswith("right")
        for height, row in enumerate(rows):
            axis.plot([np.mean(row)] * 2, [height - 0.32, height + 0.32], color="#2f6690", linewidth=3)
            axis.plot(row, [height] * len(row), "o", color="#20242c", markersize=3.5, alpha=0.7)
        if reference in names:
            axis.axvline(np.mean(rows[names.index(reference)]), color="#b3541e", linestyle="--", linewidth=1)
        same = [one for name, group_rows in values.items() if name.endswith("right") == is_share for one in group_rows]
        low, high = np.nanmin(np.concatenate(same), initial=100.0), np.nanmax(np.concatenate(same), initial=0.0)
        axis.set_xlim(low - 3, high + 3)
        axis.set_title(f"{group}\n{counts[group]}", fontsize=9)
        axis.set_xlabel("handled right, %" if is_share else "J&F x 100", fontsize=8)
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.25)
    axes[0].set_yticks(range(len(names)), [titles[name] for name in names], fontsize=8)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
