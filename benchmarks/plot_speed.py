"""Draw the measurements of the other scripts: what a step costs over prompt length, completion length and group size.

    python benchmarks/plot_speed.py

Reads `trl_step.json` and `system2.json` under `benchmarks/results` and writes `docs/images/speed_step.png` (seconds of
a step on both sides, and how many times longer TRL with its default cache takes, with the token ideal drawn in) and
`docs/images/speed_system2.png` (System 2 over rollouts and over the length of the clip). A picture without measurements
is left out.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

from speed.results import FOLDER, ROOT, Results
from speed.step_ratios import RATIOS, token_ideal

Point = dict[str, Any]
Curve = list[tuple[float, list[float]]]
"""What stands on the horizontal axis, and the values of all runs there."""


def main() -> None:
    """Draw what there is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=FOLDER)
    parser.add_argument("--pictures", type=Path, default=ROOT / "docs" / "images")
    options = parser.parse_args()
    mpl.use("agg")
    options.pictures.mkdir(parents=True, exist_ok=True)
    for name, draw in (("trl_step", draw_steps), ("system2", draw_system2)):
        results = Results(options.results / f"{name}.json")
        target = options.pictures / f"speed_{name.removeprefix('trl_')}.png"
        if results.rows:
            draw(results, target)
            print(target)


def draw_steps(results: Results, path: Path) -> None:
    """Seconds above, ratios below; one column per thing that varies, one color per thing that does not."""
    from matplotlib import pyplot as plt
    from matplotlib.lines import Line2D
    from matplotlib.ticker import LogLocator, NullLocator

    columns = {"prompt": "prompt tokens P", "completion": "completion tokens C", "group": "completions per prompt G"}
    shown = [point for point in results.points() if point["cache"] == "default" and results.fitting(point)]
    figure, axes = plt.subplots(2, 3, figsize=(12, 6.4), layout="constrained")
    for number, (name, title) in enumerate(columns.items()):
        for family in families(shown, name):
            draw_family(results, family, name, axes[0][number], axes[1][number])
        for row, label in zip(axes, ("seconds of a step", "TRL / ours"), strict=True):
            row[number].set_xlabel(title, fontsize=8)
            row[number].set_ylabel(label, fontsize=8)
            row[number].set_xscale("log", base=2)
            row[number].xaxis.set_major_formatter(plain)
        axes[0][number].set_yscale("log")
        axes[0][number].yaxis.set_major_formatter(plain)
        axes[0][number].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes[0][number].yaxis.set_minor_locator(NullLocator())
    styles = {"TRL": "--", "ours, and TRL / ours": "-", "token ideal": ":"}
    lines = [Line2D([], [], color="gray", linestyle=style) for style in styles.values()]
    figure.legend(lines, list(styles), loc="outside upper center", ncols=3, fontsize=8)
    finish(figure, axes.flat, path)


def plain(value: float, _: int) -> str:
    """A number on an axis."""
    return f"{value:g}"


def draw_family(results: Results, family: Sequence[Point], name: str, seconds: Any, ratio: Any) -> None:
    """One pair of curves of seconds, and one of ratios with its ideal."""
    curve = [(point[name], [row["ratios"]["step"] for row in results.fitting(point)]) for point in family]
    color = draw_curve(ratio, curve, describe(family[0], name), "-")
    ideal = [token_ideal(point) for point in family]
    ratio.plot([point[name] for point in family], ideal, ":", color=color, linewidth=1)
    for side, style in (("trl", "--"), ("ours", "-")):
        curve = [(point[name], [whole_step(row, side) for row in results.fitting(point)]) for point in family]
        draw_curve(seconds, curve, None, style, color)


def draw_system2(results: Results, path: Path) -> None:
    """Milliseconds over rollouts, with the largest group one by one as a line, and over frames if they vary."""
    from matplotlib import pyplot as plt

    varied = families(results.points(), "frames")
    figure, axes = plt.subplots(1, 1 + bool(varied), figsize=(4.5 + 4.5 * bool(varied), 3.6), layout="constrained")
    panels = list(axes) if varied else [axes]
    most = ""
    for point in base_points(results.points(), varied):
        groups = [name for name in results.of(point)[0]["seconds"] if name.isdecimal()]
        curve = [(int(name), all_parts(results, point, name)) for name in groups]
        color = draw_curve(panels[0], curve, f"{point['kind']}", "-")
        most = f"{groups[-1]}, one by one"
        ends = [1, int(groups[-1])], [statistics.median(all_parts(results, point, name)) for name in ("1", most)]
        panels[0].plot(*ends, "--", color=color, linewidth=1)
    for family in varied:
        for name, style in (("1", "--"), ("8", "-")):
            curve = [(point["frames"], all_parts(results, point, name)) for point in family]
            draw_curve(panels[1], curve, f"{family[0]['kind']}, {name} rollouts", style)
    for axis, label in zip(panels, (f"rollouts of a group (dashed: {most})", "frames of the clip"), strict=False):
        axis.set_xlabel(label, fontsize=8)
        axis.set_ylabel("milliseconds", fontsize=8)
        axis.set_ylim(bottom=0)
    finish(figure, panels, path)


def base_points(points: Sequence[Point], varied: Sequence[Sequence[Point]]) -> list[Point]:
    """Of points that differ in their frames only, the middle one; and all others."""
    middle = [family[len(family) // 2] for family in varied]
    several = [point for family in varied for point in family]
    return [point for point in points if point in middle or point not in several]


def all_parts(results: Results, point: Point, name: str) -> list[float]:
    """Milliseconds of boxes and masks together, run by run; empty where this group was not measured."""
    rows = [row["seconds"][name] for row in results.fitting(point) if name in row["seconds"]]
    return [1000 * sum(row.values()) for row in rows]


def families(points: Sequence[Point], name: str) -> list[list[Point]]:
    """Points that differ in one thing only, at least two each, in its order."""
    found: dict[str, list[Point]] = {}
    for point in points:
        rest = str(sorted((key, str(value)) for key, value in point.items() if key != name))
        found.setdefault(rest, []).append(point)
    sort: Callable[[Point], Any] = lambda point: point[name]  # noqa: E731
    return [sorted(family, key=sort) for family in found.values() if len(family) > 1]


def describe(point: Point, varied: str) -> str:
    """What stays the same along a curve."""
    short = {"prompt": "P", "completion": "C", "group": "G"}
    fixed = [f"{letter} {point[name]}" for name, letter in short.items() if name != varied]
    return ", ".join([*fixed, f"{point['lengths']} lengths"])


def whole_step(row: dict[str, Any], side: str) -> float:
    """Seconds of a step."""
    return sum(row["seconds"][side].get(part, 0.0) for part in RATIOS["step"])


def draw_curve(axis: Any, curve: Curve, label: str | None, style: str, color: str | None = None) -> str:
    """The median, and a bar from the lowest to the highest run; returns the color."""
    known = [(x, values) for x, values in curve if values]
    middle = [statistics.median(values) for _, values in known]
    low = [m - min(values) for m, (_, values) in zip(middle, known, strict=True)]
    high = [max(values) - m for m, (_, values) in zip(middle, known, strict=True)]
    places = [x for x, _ in known]
    look = {"fmt": style, "marker": "o", "markersize": 3, "capsize": 2, "label": label, "color": color}
    drawn = axis.errorbar(places, middle, [low, high], **look)
    chosen: str = drawn[0].get_color()
    return chosen


def finish(figure: Any, axes: Any, path: Path) -> None:
    """Grids, small letters, and the file."""
    for axis in axes:
        axis.grid(alpha=0.3)
        axis.tick_params(labelsize=8)
        if axis.get_legend_handles_labels()[0]:
            axis.legend(fontsize=6)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
