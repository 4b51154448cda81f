"""Measurements that survive an interruption, with what is needed to make them again."""

from __future__ import annotations

import json
import os
import platform
import sys
import warnings
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from metrics.version import commit

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "benchmarks" / "results"

Point = Mapping[str, Any]


class Results:
    """A file of measurements, one per point and number of the run; what is there is not measured again.

    Attributes:
        path: JSON; written anew, at once or not at all, after every measurement.
        rows: What was measured, in order.
    """

    def __init__(self, path: Path) -> None:
        """Read what is there.

        Args:
            path: Need not exist yet.
        """
        self.path = path
        self.rows: list[dict[str, Any]] = json.loads(path.read_text())["rows"] if path.exists() else []

    def missing(self, point: Point, run: int) -> bool:
        """Whether a point has still to be measured for the given time, counted from 0.

        What is kept although it was measured with other code or libraries is named in a warning, once per kind.
        """
        found = [row for row in self.of(point) if row["run"] == run]
        now = provenance()
        for row in found:
            then = row["provenance"]
            if any(then[name] != now[name] for name in ("commit", "versions")):
                warnings.warn(
                    f"{self.path.name} holds measurements of commit {then['commit'][:12]} ({then['versions']}), and "
                    f"this is {now['commit'][:12]} ({now['versions']}): medians may mix the two. Give another --out, "
                    "or move the file away, to measure everything again.",
                    stacklevel=2,
                )
        return not found

    def of(self, point: Point) -> list[dict[str, Any]]:
        """All measurements of a point."""
        return [row for row in self.rows if row["point"] == dict(point)]

    def fitting(self, point: Point) -> list[dict[str, Any]]:
        """Measurements of a point without those that ran out of memory, which say `out_of_memory` and nothing else."""
        return [row for row in self.of(point) if "out_of_memory" not in row]

    def points(self) -> list[dict[str, Any]]:
        """All points, in the order in which they were first measured."""
        found: list[dict[str, Any]] = []
        for row in self.rows:
            if row["point"] not in found:
                found.append(row["point"])
        return found

    def add(self, point: Point, run: int, values: Mapping[str, Any]) -> None:
        """Keep a measurement."""
        self.rows.append({"point": dict(point), "run": run, **values, "provenance": provenance()})
        self.path.parent.mkdir(parents=True, exist_ok=True)
        draft = self.path.with_suffix(".draft")
        draft.write_text(json.dumps({"rows": self.rows}, indent=1) + "\n")
        draft.replace(self.path)

    def write_page(self, title: str, body: str) -> None:
        """Write the same for people, beside the JSON: a title, a text, and where the numbers come from."""
        sources = list(dict.fromkeys(_source(row["provenance"]) for row in self.rows))
        text = "\n".join([f"# {title}", "", body, "", *(f"- {source}" for source in sources)])
        self.path.with_suffix(".md").write_text(text + "\n")


def provenance() -> dict[str, str]:
    """What has to be named beside a number: command, commit, day, machine, versions."""
    packages = [name for name in ("torch", "transformers", "peft", "trl") if find_spec(name)]
    return {
        "command": " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]]),
        "commit": str(commit(ROOT)),
        "day": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "versions": ", ".join(f"{name} {version(name)}" for name in packages),
    }


def machine() -> str:
    """Processor and cores, and the GPU if there is one."""
    found = f"{_processor_name()}, {os.cpu_count()} cores"
    return f"{found}; {torch.cuda.get_device_name()}" if torch.cuda.is_available() else found


def _processor_name() -> str:
    table = Path("/proc/cpuinfo")
    if table.exists():
        for line in table.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _source(found: Mapping[str, str]) -> str:
    names = ("day", "machine", "versions")
    return f"`{found['command']}`, commit {found['commit'][:12]}, {', '.join(found[name] for name in names)}"
