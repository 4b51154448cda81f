"""Entries of a large JSON object, one at a time.

The mask files of ReVOS and MeViS hold one entry per object and run to a gigabyte; parsed whole they take many times
that, in every worker. Here the file is scanned once for where each entry begins, and an entry is parsed when asked.
The scan relies on what these files look like: an object of objects, or an object of lists with numbers as keys, and no
quotation mark inside a string value.
"""

from __future__ import annotations

import json
import mmap
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

Shape = Literal["lists", "objects"]

# Inside the entries no key is a number and no key is followed by an object, so neither pattern matches there.
_ENTRY = {
    "lists": re.compile(rb'"(\d+)"\s*:\s*(?=\[)'),
    "objects": re.compile(rb'"((?:[^"\\]|\\.)*)"\s*:\s*(?=\{)'),
}


class JsonIndex:
    """Where each entry of a JSON object lies in its file."""

    def __init__(self, path: Path, *, shape: Shape) -> None:
        """Scan the file.

        Args:
            path: A JSON file with one object at its top.
            shape: What its entries are: "lists" (keys are whole numbers) or "objects".

        Raises:
            FileNotFoundError: There is no such file.
        """
        self.path = path
        self._spans: dict[str, tuple[int, int]] = {}
        with path.open("rb") as file:
            size = file.seek(0, 2)
            if not size:  # An empty file cannot be mapped.
                return
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                found = [(match.group(1), match.start(), match.end()) for match in _ENTRY[shape].finditer(data)]
        starts = [start for _, start, _ in found] + [size]
        for (key, _, begin), end in zip(found, starts[1:], strict=True):
            self._spans[json.loads(b'"' + key + b'"')] = (begin, end)

    def __len__(self) -> int:
        """Number of entries."""
        return len(self._spans)

    def __iter__(self) -> Iterator[str]:
        """Keys in the order of the file."""
        return iter(self._spans)

    def __contains__(self, key: object) -> bool:
        """Whether there is an entry of that name."""
        return key in self._spans

    def read(self, key: str) -> Any:  # noqa: ANN401
        """Parse one entry.

        Args:
            key: Name of the entry.

        Raises:
            KeyError: There is no such entry.
            ValueError: The entry is not valid JSON, for example because the file was cut off.
        """
        begin, end = self._spans[key]
        with self.path.open("rb") as file:
            file.seek(begin)
            text = file.read(end - begin).decode("utf-8")
        return json.JSONDecoder().raw_decode(text)[0]


def open_index(path: Path, *, shape: Shape) -> JsonIndex:
    """The index of a file, scanned once per process and again when the file has changed.

    Processes forked later share the scan; clips sent between processes carry the path and not the index.

    Args:
        path: A JSON file with one object at its top.
        shape: What its entries are: "lists" (keys are whole numbers) or "objects".

    Raises:
        FileNotFoundError: There is no such file.
    """
    state = path.stat()
    return _scan(path, shape, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=8)
def _scan(path: Path, shape: Shape, changed_ns: int, size: int) -> JsonIndex:
    del changed_ns, size  # They only tell versions of the file apart.
    return JsonIndex(path, shape=shape)
