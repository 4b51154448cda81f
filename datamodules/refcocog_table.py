"""The table of refCOCOg_2k_840 and the annotations of RefCOCOg: rows, boxes, encoded masks. No picture is read here.

Reference:
    Seg-Zero, arXiv:2503.06520, its published training set; RefCOCOg (UMD), arXiv:1511.02283.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pycocotools import mask as coco

from datamodules.image_table import BROKEN_TABLE, Part, find_parts
from datamodules.tree import Tree

SPLITS = ("train",)
SIDE = 840
"""Height and width of every stored picture."""

ANNOTATIONS = "instances.json"
COLUMNS = ("id", "problem", "solution", "img_height", "img_width")

TREE = Tree(
    command="refcocog",
    title="refCOCOg_2k_840",
    picture="""
<root>/data/train-*.parquet                             columns id, problem, solution, image, img_height, img_width
<root>/train/*.arrow                                    (in place of it: a copy written by save_to_disk)
<root>/instances.json                                   (optional: annotations of RefCOCOg, for masks)
""",
    markers=("data/train-*.parquet", "train-*.parquet", "train/*.arrow", "data-*.arrow"),
    folders=("refCOCOg_2k_840", "refcocog"),
)

Box = tuple[int, int, int, int]
Point = tuple[int, int]

_PAIR = r"\(\s*(\d+)\s*,\s*(\d+)\s*\)"
_BOX = re.compile(rf"<box>\s*{_PAIR}\s*,\s*{_PAIR}\s*</box>")
_POINTS = re.compile(rf"<points>\s*{_PAIR}\s*,\s*{_PAIR}\s*</points>")


@dataclass(frozen=True)
class Row:
    """One row of the table, without its picture.

    Attributes:
        number: Position in the table, 0-based; the only key of a row.
        id: The table's name of it, ``refcocog_<annotation>``; several annotations are joined by ``_``.
        text: The expression as annotated.
        boxes: xyxy in pixels of the stored picture, corners inclusive, one per object.
        points: Two interior points of the object, or one per object in later sets.
        original_size: (height, width) of the picture before it was squashed, in pixels.
        part: Where the row lies.
        place: Its position there.
    """

    number: int
    id: str
    text: str
    boxes: tuple[Box, ...]
    points: tuple[Point, ...]
    original_size: tuple[int, int]
    part: Part
    place: int

    @property
    def annotations(self) -> tuple[int, ...]:
        """RefCOCOg's annotation ids; none where the name has another form."""
        numbers = self.id.partition("_")[2].split("_")
        return tuple(map(int, numbers)) if all(number.isdecimal() for number in numbers) else ()


def parse_solution(text: str) -> tuple[tuple[Box, ...], tuple[Point, ...]]:
    """Read boxes and points out of a solution.

    Args:
        text: Either tags, ``<box>(x1,y1),(x2,y2)</box>`` and ``<points>(x1,y1),(x2,y2)</points>`` in any order with
            anything between, or a JSON list of objects with ``bbox_2d`` and ``point_2d``, as later sets have it.

    Returns:
        Boxes (xyxy, corners inclusive) and points, each as they are written; empty where there are none.
    """
    tagged = [tuple(map(int, match.groups())) for match in _BOX.finditer(text)]
    pairs = [tuple(map(int, match.groups())) for match in _POINTS.finditer(text)]
    points = [pair[start : start + 2] for pair in pairs for start in (0, 2)]
    boxes = list(tagged)
    if not tagged:
        for entry in _json_entries(text):
            boxes += [numbers] if (numbers := _numbers(entry.get("bbox_2d"), 4)) else []
            points += [numbers] if (numbers := _numbers(entry.get("point_2d"), 2)) else []
    return tuple(boxes), tuple(points)  # type: ignore[arg-type]


def _json_entries(text: str) -> list[dict[str, Any]]:
    try:
        found = json.loads(text)
    except ValueError:
        return []
    return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []


def _numbers(values: object, count: int) -> tuple[int, ...]:
    if not isinstance(values, list) or len(values) != count:
        return ()
    return tuple(round(value) for value in values) if all(isinstance(value, int | float) for value in values) else ()


def read_rows(base: Path, split: str = "train") -> list[Row]:
    """Read the table without its pictures.

    Args:
        base: Folder that holds it.
        split: The only one is train.

    Raises:
        DataLayoutError: A file is no table, a column is missing, or rows cannot be used; names them all.
    """
    rows: list[Row] = []
    try:
        for part in find_parts(base, split):
            for place, record in enumerate(part.read(COLUMNS)):
                boxes, points = parse_solution(str(record["solution"]))
                size = (int(record["img_height"]), int(record["img_width"]))
                name, text = str(record["id"]), str(record["problem"])
                rows.append(Row(len(rows), name, text, boxes, points, size, part, place))
    except BROKEN_TABLE as error:
        raise TREE.error(base, [f"a table cannot be read: {' '.join(str(error).split())[:200]}"]) from error
    problems = [problem for row in rows for problem in _problems(row)]
    if problems:
        raise TREE.error(base, problems)
    return rows


def _problems(row: Row) -> Iterator[str]:
    where = f"row {row.number} ({row.id})"
    if not row.boxes:
        yield f"{where}: solution has no <box>(x1,y1),(x2,y2)</box> and no bbox_2d"
    for left, top, right, bottom in row.boxes:
        if not (0 <= left <= right < SIDE and 0 <= top <= bottom < SIDE):
            yield f"{where}: box {(left, top, right, bottom)} is not within a picture of {SIDE}x{SIDE} pixels"


def read_annotations(base: Path, wanted: Collection[int]) -> dict[int, list[dict[str, Any]]] | None:
    """Masks of some annotations, still encoded.

    Args:
        base: Folder that may hold `instances.json`.
        wanted: Annotation ids.

    Returns:
        Per annotation that is there, its COCO run lengths (one for each of its pieces); None without the file.

    Raises:
        DataLayoutError: The file is no JSON, or not of COCO's form.
    """
    path = base / ANNOTATIONS
    if not path.is_file():
        return None
    try:
        with path.open(encoding="utf-8") as file:
            table = json.load(file)
        sizes = {image["id"]: (int(image["height"]), int(image["width"])) for image in table["images"]}
        chosen = [entry for entry in table["annotations"] if entry["id"] in wanted]
        return {entry["id"]: _run_lengths(entry["segmentation"], sizes[entry["image_id"]]) for entry in chosen}
    except (ValueError, KeyError, TypeError) as error:
        problem = f"{ANNOTATIONS} is not of COCO's form ({type(error).__name__}: {error})"
        raise TREE.error(base, [problem]) from error


def _run_lengths(segmentation: object, size: tuple[int, int]) -> list[dict[str, Any]]:
    if isinstance(segmentation, dict):
        return [segmentation]
    pieces = coco.frPyObjects(segmentation, *size)
    return [{"size": list(size), "counts": piece["counts"].decode("ascii")} for piece in pieces]
