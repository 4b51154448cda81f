"""A small tree in the layout of refCOCOg_2k_840, one of each oddity."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from benchmark_trees import disk, rle
from PIL import Image

SIDE = 840
TAGGED, LISTED, POINTS_FIRST = "refcocog_17", "refcocog_21_35", "refcocog_44"


def picture(level: int, side: int = SIDE) -> bytes:
    stored = io.BytesIO()
    Image.fromarray(np.full((side, side, 3), level, np.uint8)).save(stored, format="JPEG", quality=95)
    return stored.getvalue()


def row(name: str, text: str, solution: str, level: int, size: tuple[int, int] = (428, 640)) -> dict[str, Any]:
    image = {"bytes": picture(level), "path": None}
    sizes = {"img_height": size[0], "img_width": size[1]}
    return {"id": name, "problem": text, "solution": solution, "image": image, **sizes}


def rows() -> list[dict[str, Any]]:
    """The usual form; a JSON list about two objects; points in front, spaces inside, an object at the left edge."""
    two = [{"bbox_2d": [0, 10, 99, 109], "point_2d": [50, 60]}, {"bbox_2d": [200, 10, 299, 109], "point_2d": [250, 60]}]
    usual = "<box>(210,420),(629,839)</box><points>(400,600),(300,500)</points>"
    turned = "<points>( 5, 6),(7 ,8)</points>\nand <box>( 0,0 ) , (9, 19)</box>"
    return [
        row(TAGGED, "The  Man in a hat.", usual, 40),
        row(LISTED, "both cups", json.dumps(two), 80),
        row(POINTS_FIRST, "the corner", turned, 120),
    ]


def write_refcocog(root: Path, table: list[dict[str, Any]] | None = None, *, saved: bool = False) -> Path:
    """The table as it is published, or as `save_to_disk` writes it.

    Args:
        root: New folder.
        table: Rows; None takes `rows`.
        saved: Arrow files in place of a Parquet file.
    """
    content = pa.Table.from_pylist(rows() if table is None else table)
    if saved:
        (root / "train").mkdir(parents=True)
        for number in range(2):
            path = root / "train" / f"data-0000{number}-of-00002.arrow"
            with pa.ipc.new_stream(str(path), content.schema) as stream:
                stream.write_table(content.slice(2 * number, 2), max_chunksize=1)
    else:
        (root / "data").mkdir(parents=True)
        pq.write_table(content, root / "data" / "train-00000-of-00001.parquet", row_group_size=2)
    return root


def write_annotations(root: Path) -> None:
    """Polygons in two pieces, run lengths both ways, and a picture whose annotation has one column less."""
    left, right = disk((420, 420), (50, 50), 20), disk((420, 420), (50, 200), 20)
    plain = {"size": [428, 639], "counts": [0, 428, 428 * 638]}
    square, strip = [0, 0, 100, 0, 100, 100, 0, 100], [200, 0, 300, 0, 300, 100, 200, 100]
    table = {
        "images": [
            {"id": 1, "height": 420, "width": 420},
            {"id": 2, "height": 420, "width": 420},
            {"id": 3, "height": 428, "width": 639},
        ],
        "annotations": [
            {"id": 17, "image_id": 1, "segmentation": [square, strip]},
            {"id": 21, "image_id": 2, "segmentation": rle(left)},
            {"id": 35, "image_id": 2, "segmentation": rle(right)},
            {"id": 44, "image_id": 3, "segmentation": plain},
            {"id": 99, "image_id": 1, "segmentation": [square]},
        ],
    }
    (root / "instances.json").write_text(json.dumps(table))
