"""Tables and plots of runs on the same test clips: means, spread over seeds, paired intervals over videos."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np

from callbacks.interval import resampled_means
from callbacks.media import markdown_table
from outcomes import Outcome

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
    """Mean difference of two rows and the ends of its 95 % interval, by a bootstrap over videos.

    Clips are questions about videos, several about each; those of one video are drawn together.

    Args:
        row: The runs of a row, one per seed.
        other: Those of the row that it is compared with.
        keys: Means over clips, of which the mean is compared.

    Returns:
        (difference, low, high); NaN without clips.
    """
    changes = []
    for key in keys:
        ours, theirs = _per_clip(row, key), _per_clip(other, key)
        changes.append({clip: ours[clip] - theirs[clip] for clip in sorted(ours.keys() & theirs.keys())})
    return interval_of(changes)


def interval_of(changes: Sequence[Mapping[str, float]]) -> tuple[float, float, float]:
    """The mean of mean differences and the ends of its 95 % interval, by a bootstrap over videos.

    Args:
        changes: Differences by clip id; of each mapping the mean is taken.

    Returns:
        (difference, low, high); NaN where one of them has no clips.
    """
    if not all(changes):
        return float("nan"), float("nan"), float("nan")
    videos = {video: place for place, video in enumerate(sorted({video_of(clip) for one in changes for clip in one}))}
    sums, counts = np.zeros((2, len(videos), len(changes)))
    for place, one in enumerate(changes):
        for clip, change in one.items():
            sums[videos[video_of(clip)], place] += change
            counts[videos[video_of(clip)], place] += 1
    low, high = np.nanquantile(resampled_means(sums, counts).mean(axis=1), [0.025, 0.975])
    return float((sums.sum(axis=0) / counts.sum(axis=0)).mean()), float(low), float(high)


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


def _per_clip(row: Sequence[Outcome], key: str) -> dict[str, float]:
    """The mean over seeds for every clip that has a value."""
    clips = [clip for clip, values in row[0].clips.items() if key in values]
    return {clip: float(np.mean([one.clips[clip][key] for one in row])) for clip in clips}


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
    rows = [["*clips / videos*", "", *counts_of(table).values(), "", "", "", ""]]
    for name, outcomes in table.items():
        cells = [titles[name], str(len(outcomes))]
        for keys in GROUPS.values():
            values = np.array([column(outcome, keys) for outcome in outcomes])
            cells.append(scored(values))
        s = float(np.mean([outcome.metrics.get("null/s", np.nan) for outcome in outcomes]))
        unusable = scored(np.array([column(outcome, ["parse_failures"]) for outcome in outcomes]))
        seconds = np.mean([outcome.seconds for outcome in outcomes])
        rows.append([*cells, "-" if np.isnan(s) else f"{s:.3f}", unusable, str(outcomes[0].prompts), f"{seconds:.0f}"])
    return markdown_table(["training", "seeds", *GROUPS, "null S", "unusable", "prompts", "seconds"], rows)


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


def draw(
    table: Mapping[str, Sequence[Outcome]], titles: Mapping[str, str], path: Path, *, pale: Collection[str]
) -> None:
    """Bars of the four groups with a target and the two without, with clips and videos; one dot per seed.

    Args:
        table: Runs by row.
        titles: Of the rows.
        path: The picture.
        pale: Rows that the others are compared with.
    """
    mpl.use("agg")
    from matplotlib import pyplot as plt

    shown = [name for name in GROUPS if name != "overall"]
    figure, axes = plt.subplots(1, len(shown), figsize=(2.1 * len(shown), 0.35 * len(table) + 1.2), sharey=True)
    names, counts = list(table)[::-1], counts_of(table)
    for axis, group in zip(axes, shown, strict=True):
        for height, name in enumerate(names):
            values = [100 * column(outcome, GROUPS[group]) for outcome in table[name]]
            axis.barh(height, np.mean(values), color="#b7c9d9" if name in pale else "#4f81a8")
            axis.plot(values, [height] * len(values), ".", color="#20242c", markersize=4)
        axis.set_title(f"{group}\n{counts[group]}", fontsize=9)
        axis.tick_params(labelsize=8)
        axis.grid(axis="x", alpha=0.3)
    axes[0].set_yticks(range(len(names)), [titles[name] for name in names], fontsize=8)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
