"""Official scores as a table for people: one row per group, one column per score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich import box
from rich.table import Table

SHOWN = {
    "JF": "J&F",
    "J": "J",
    "F": "F",
    "S": "S",
    "R_official": "R official",
    "R_binary": "R binary",
    "A_official": "A official",
    "A_binary": "A binary",
}
"""Scores in the order of the columns, with their headings."""

UNSCALED = {"S"}
"""Scores that are published as they are; all others are shown times 100."""

MARGIN = "scores x 100, S as it is"


def show_score(name: str, value: float | None) -> str:
    """A score as text: times 100 with two decimals, S with four; "-" where there is none."""
    if value is None:
        return "-"
    return f"{value:.4f}" if name in UNSCALED else f"{100 * value:.2f}"


def official_table(scores: Mapping[str, float]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of scores that are named ``<group>/<score>``.

    Args:
        scores: Values in 0..1, in the order in which groups shall appear.

    Returns:
        Cells as text; columns that no group has are left out.
    """
    groups = nested(scores)
    names = [name for name in SHOWN if any(name in values for values in groups.values())]
    rows = [[group, *(show_score(name, values.get(name)) for name in names)] for group, values in groups.items()]
    return ["group", *(SHOWN[name] for name in names)], rows


def console_table(header: Sequence[str], rows: Sequence[Sequence[str]], title: str) -> Table:
    """A table for a console of 80 columns, in which no name of a group and no number is cut.

    Args:
        header: Names of the columns; the first column holds the groups.
        rows: Cells as text.
        title: Above the table.
    """
    table = Table(title=title, box=box.SIMPLE, padding=(0, 1, 0, 0))
    for index, name in enumerate(header):
        table.add_column(name, no_wrap=index == 0, justify="right" if index else "left")
    for row in rows:
        table.add_row(*row)
    return table


def nested(scores: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Scores that are named ``<group>/<score>``, by group."""
    groups: dict[str, dict[str, float]] = {}
    for key, value in scores.items():
        group, _, name = key.rpartition("/")
        groups.setdefault(group, {})[name] = value
    return groups
