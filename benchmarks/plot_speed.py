"""Draw the measurements of the other scripts: what a step costs over prompt length, completion length and group size.

    python benchmarks/plot_speed.py

Reads `trl_step.json` and `system2.json` under `benchmarks/results` and writes `docs/images/speed_step.png` (seconds of
a step on both sides, and how many times longer TRL takes, with the token ideal drawn in) and
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
    """Seconds above, ratios below; one column per thing that varies."""
    from matplotlib import pyplot as plt

    columns = {"prompt": "prompt tokens", "completion": "completion tokens", "group": "completions per prompt"}
    figure, axes = plt.subplots(2, 3, figsize=(12, 6.4), layout="constrained")
    for number, (name, title) in enumerate(columns.items()):
        for family in families(results.points(), name):
            draw_family(results, family, name, axes[0][number], axes[1][number])
        for row, label in zip(axes, ("seconds of a step", "TRL / ours"), strict=True):
            row[number].set_xlabel(title, fontsize=8)
            row[number].set_ylabel(label, fontsize=8)
            row[number].set_xscale("log", base=2)
        axes[0][number].set_yscale("log")
    finish(figure, axes.flat, path)


def draw_family(results: Results, family: Sequence[Point], name: str, seconds: Any, ratio: Any) -> None:
    """One pair of curves of seconds, and one of ratios with its ideal."""
    label = describe(family[0], name)
    for side, style in (("trl", "--"), ("ours", "-")):
        curve = [(point[name], [whole_step(row, side) for row in results.fitting(point)]) for point in family]
        draw_curve(seconds, curve, f"{side.upper() if side == 'trl' else side}, {label}", style)
    curve = [(point[name], [row["ratios"]["step"] for row in results.fitting(point)]) for point in family]
    color = draw_curve(ratio, curve, label, "-")
    ideal = [token_ideal(point) for point in family]
    ratio.plot([point[name] for point in family], ideal, ":", color=color, linewidth=1, label=f"token ideal, {label}")


def draw_system2(results: Results, path: Path) -> None:
    """Milliseconds over rollouts and over frames."""
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for point in results.points():
        label = f"{point['size']}, {point['frames']} frames, {point['kind']}"
        groups = [name for name in results.of(point)[0]["seconds"] if name.isdecimal()]
        draw_curve(axes[0], [(int(name), all_parts(results, point, name)) for name in groups], label, "-")
    for family in families(results.points(), "frames"):
        for name in ("1", "8"):
            curve = [(point["frames"], all_parts(results, point, name)) for point in family]
            draw_curve(axes[1], curve, f"{family[0]['size']}, {family[0]['kind']}, {name} rollouts", "-")
    for axis, label in zip(axes, ("rollouts of a group", "frames of the clip"), strict=True):
        axis.set_xlabel(label, fontsize=8)
        axis.set_ylabel("milliseconds", fontsize=8)
        axis.set_ylim(bottom=0)
    finish(figure, axes.flat, path)


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
    return ", ".join([*fixed, point["lengths"], f"{point['cache']} cache"])


def whole_step(row: dict[str, Any], side: str) -> float:
    """Seconds of a step."""
    return sum(row["seconds"][side].get(part, 0.0) for part in RATIOS["step"])


def draw_curve(axis: Any, curve: Curve, label: str, style: str) -> str:
    """The median, and a bar from the lowest to the highest run; returns the color."""
    known = [(x, values) for x, values in curve if values]
    middle = [statistics.median(values) for _, values in known]
    low = [m - min(values) for m, (_, values) in zip(middle, known, strict=True)]
    high = [max(values) - m for m, (_, values) in zip(middle, known, strict=True)]
    drawn = axis.errorbar(
        [x for x, _ in known], middle, [low, high], fmt=style, marker="o", markersize=3, capsize=2, label=label
    )
    color: str = drawn[0].get_color()
    return color


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
