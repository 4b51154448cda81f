"""Count what is in a generated tree, from its tables."""

from __future__ import annotations

import csv
import json
from collections import Counter, defaultdict
from pathlib import Path

from pyarrow.parquet import read_metadata

_TYPE_NAMES = {0: "referring", 1: "reasoning", 2: "non-existent"}


def describe_tree(root: Path) -> str:
    """A small table: per split its clips and expressions, by kind.

    Args:
        root: Root of a generated benchmark.
    """
    if (root / "metadata.csv").is_file():
        rows = _count_refavs(root)
    elif (root / "data").is_dir():
        count = sum(read_metadata(path).num_rows for path in root.glob("data/*.parquet"))
        rows = [("train", count, Counter(one=count))]
    else:
        is_revos = (root / "mask_dict.json").is_file()
        rows = _count_revos(root) if is_revos else _count_mevis(root)
    width = max(len(split) for split, _, _ in rows)
    lines = [f"  {split:<{width}}  {clips:>5} clips  {_join(kinds)}" for split, clips, kinds in rows]
    return "\n".join([str(root), *lines])


def _join(kinds: Counter[str]) -> str:
    parts = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    return f"{sum(kinds.values()):>5} expressions" + (f" ({parts})" if parts else "")


def _count_refavs(root: Path) -> list[tuple[str, int, Counter[str]]]:
    clips: dict[str, set[str]] = defaultdict(set)
    kinds: dict[str, Counter[str]] = defaultdict(Counter)
    with (root / "metadata.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            folder, category, _ = row["uid"].rsplit("_", 2)
            clips[row["split"]].add(folder)
            kinds[row["split"]]["null" if category == "null" else "with a target"] += 1
    return [(split, len(clips[split]), kinds[split]) for split in clips]


def _count_revos(root: Path) -> list[tuple[str, int, Counter[str]]]:
    rows = []
    for split in ("train", "valid"):
        videos = json.loads((root / f"meta_expressions_{split}_.json").read_text(encoding="utf-8"))["videos"]
        types = (item["type_id"] for video in videos.values() for item in video["expressions"].values())
        rows.append((split, len(videos), Counter(_TYPE_NAMES[type_id] for type_id in types)))
    return rows


def _count_mevis(root: Path) -> list[tuple[str, int, Counter[str]]]:
    rows = []
    for path in sorted(root.glob("*/meta_expressions.json")):
        videos = json.loads(path.read_text(encoding="utf-8"))["videos"]
        targets = (item.get("obj_id") for video in videos.values() for item in video["expressions"].values())
        names = ("without masks" if ids is None else "one" if len(ids) == 1 else "several" for ids in targets)
        rows.append((path.parent.name, len(videos), Counter(names)))
    return rows
