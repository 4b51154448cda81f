"""Base of the benchmarks' own averages: one row of numbers per expression, of all processes, each expression once.

Sums would not do: the Ref-AVS scores depend on which expressions are scored together, and ReVOS rounds every expression
before it averages. Rows are put in the benchmark's order before anything is computed, so neither the batch size nor the
number of processes nor the order of arrival changes a result.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from jaxtyping import Float64
from torch import Tensor
from torchmetrics import Metric

Values = Float64[Tensor, "expressions columns"]


class GroupRows(NamedTuple):
    """The expressions of one group, in the benchmark's order: the numbers of each."""

    group: str
    values: Values


class ExpressionRows(Metric):
    """A metric whose state is one row per expression."""

    full_state_update = False
    rows: list[Tensor]

    def __init__(self, groups: Sequence[str], *, columns: int, **settings: Any) -> None:  # noqa: ANN401
        """Start without expressions.

        Args:
            groups: Every group that an expression may belong to, in the order of the results.
            columns: Numbers per expression.
            **settings: Those of `torchmetrics.Metric`.

        Raises:
            ValueError: A group is named twice.
        """
        super().__init__(**{"dist_sync_fn": _gather} | settings)
        if len(set(groups)) != len(groups):
            raise ValueError(f"every group must be named once, found {', '.join(groups)}")
        self.groups = tuple(groups)
        self.columns = columns
        self.add_state("rows", default=[], dist_reduce_fx="cat")

    def _add_row(self, values: Sequence[float], *, group: str, position: int) -> None:
        """Add one expression.

        Args:
            values: Its numbers.
            group: One of the groups given at the start.
            position: Its place in the benchmark's own order; an expression that is added twice counts once.

        Raises:
            ValueError: The group is unknown, or there are more or fewer numbers than columns.
        """
        if group not in self.groups:
            raise ValueError(f"expected one of the groups {', '.join(self.groups)}, found {group!r}")
        if len(values) != self.columns:
            raise ValueError(f"expected {self.columns} numbers per expression, found {len(values)}")
        row = [float(self.groups.index(group)), float(position), *values]
        self.rows.append(torch.tensor(row, dtype=torch.float64))

    def by_group(self) -> list[GroupRows]:
        """The rows of each group that has any, in the benchmark's order."""
        rows = self.rows if isinstance(self.rows, list) else [self.rows]
        filled = [part.cpu().reshape(-1, self.columns + 2) for part in rows if part.numel()]
        if not filled:
            return []
        # Rows that differ in nothing but their numbers would be two answers to one question; the first one counts.
        unique = {(row[0], row[1]): index for index, row in reversed(list(enumerate(torch.cat(filled).tolist())))}
        table = torch.cat(filled)[[unique[key] for key in sorted(unique)]]
        parts = [(name, table[table[:, 0] == index, 2:]) for index, name in enumerate(self.groups)]
        return [GroupRows(name, values) for name, values in parts if len(values)]


def _gather(rows: Tensor, group: Any = None) -> list[Tensor]:  # noqa: ANN401 (a process group)
    """Rows of every process, whatever the backend: some have none, and not every device has double precision."""
    shares: list[Tensor] = [rows] * dist.get_world_size(group)
    dist.all_gather_object(shares, rows.cpu(), group=group)
    return shares
