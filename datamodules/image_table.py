"""Tables with one picture per row, as Hugging Face data sets are stored: Parquet files, or Arrow files of a saved copy.

Columns are read whole, the pictures one at a time and when they are asked for. A Parquet file is read in groups of
rows (about a hundred in published image sets), so taking one picture decompresses its group; an Arrow file is mapped
into memory and gives one picture without reading others. What is kept between two reads is numbers and paths, so a
table can be sent to another process.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

BROKEN_TABLE = (OSError, pa.ArrowInvalid, pa.ArrowKeyError)
"""What pyarrow raises on files that are no tables, are cut off, or lack a column."""


@dataclass(frozen=True)
class Part:
    """Consecutive rows that are read at once.

    Attributes:
        path: Their file, Parquet or Arrow.
        group: Number of the row group or record batch in the file.
        rows: How many rows it has.
    """

    path: Path
    group: int
    rows: int

    def read(self, columns: Sequence[str]) -> list[dict[str, Any]]:
        """Some columns of these rows.

        Raises:
            ArrowInvalid: A column is missing, or the file is broken.
        """
        table = self._table(columns)
        missing = [column for column in columns if column not in table.column_names]
        if missing:
            raise pa.ArrowInvalid(f"{self.path.name} has no column {', '.join(missing)}")
        return list(table.to_pylist())

    def read_cell(self, row: int, column: str) -> Any:  # noqa: ANN401 (whatever the column holds)
        """One value."""
        return self._table([column])[column][row].as_py()

    def _table(self, columns: Sequence[str]) -> pa.Table:
        if self.path.suffix == ".parquet":
            return pq.ParquetFile(self.path).read_row_group(self.group, columns=list(columns))
        batch = _arrow(self.path).to_batches()[self.group]
        return pa.Table.from_batches([batch]).select(list(columns))


def find_parts(base: Path, split: str) -> list[Part]:
    """The rows of a split, in order, wherever a download or a saved copy puts them.

    Args:
        base: The folder.
        split: What file names (Parquet) or folders (Arrow) of the split are called.

    Returns:
        Nothing where there is no such file.
    """
    parquet = sorted([*base.glob(f"data/{split}-*.parquet"), *base.glob(f"{split}-*.parquet")])
    arrow = [] if parquet else sorted(base.glob(f"{split}/*.arrow")) or sorted(base.glob("data-*.arrow"))
    return [part for path in [*parquet, *arrow] for part in _parts(path)]


def _parts(path: Path) -> list[Part]:
    if path.suffix == ".parquet":
        groups = pq.ParquetFile(path).metadata
        return [Part(path, index, groups.row_group(index).num_rows) for index in range(groups.num_row_groups)]
    return [Part(path, index, batch.num_rows) for index, batch in enumerate(_arrow(path).to_batches())]


def _arrow(path: Path) -> pa.Table:
    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_stream(source).read_all()
