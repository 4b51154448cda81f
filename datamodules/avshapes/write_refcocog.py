"""Write AVShapes in the layout of refCOCOg_2k_840.

    data/train-00000-of-00001.parquet      columns id, problem, solution, image, img_height, img_width
    instances.json                         annotations as RefCOCOg has them; only where `annotations` asks for them
    truth.jsonl                            not part of the layout; see `datamodules.avshapes.truth`

Every picture is one frame of a scene, enlarged to the stored 840 x 840 pixels, with one expression about the look of
one thing. Not imitated: pictures that are not square, several expressions about one picture.

Reference:
    Seg-Zero, arXiv:2503.06520, its published training set.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Bool
from PIL import Image
from scipy.ndimage import distance_transform_edt

from datamodules.avshapes.expressions import Expression, choose_balanced, refavs_expressions
from datamodules.avshapes.facts import IN_VIEW
from datamodules.avshapes.render import render_frames
from datamodules.avshapes.scene import sample_scene
from datamodules.avshapes.settings import RefcocogSizes
from datamodules.avshapes.truth import Truth, describe_things, make_truth, write_truth
from datamodules.avshapes.world import Scene, Stream, World, generator
from datamodules.avshapes.write_revos import dump_json, encode_masks

SIDE = 840
"""Height and width of every stored picture."""

_BENCHMARK = 3
_JPEG_QUALITY = 95
_ROWS_PER_GROUP = 100
_FIELDS = (
    ("id", pa.string()),
    ("problem", pa.string()),
    ("solution", pa.string()),
    ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
    ("img_height", pa.int64()),
    ("img_width", pa.int64()),
)


@dataclass(frozen=True)
class RefcocogResult:
    """What a picture adds to the tables.

    Attributes:
        row: Its row, by column.
        annotation: Its entry of `instances.json`.
        truth: The truth of its expression.
    """

    row: dict[str, Any]
    annotation: dict[str, Any]
    truth: Truth


def refcocog_jobs(sizes: RefcocogSizes) -> list[int]:
    """Every picture of a tree, in the order of the table."""
    return list(range(sizes.train))


def write_refcocog_picture(index: int, *, seed: int, world: World) -> RefcocogResult:
    """Draw one picture; nothing depends on the pictures drawn before.

    Args:
        index: Which one.
        seed: The tree's seed.
        world: The dials.
    """
    scene = sample_scene((seed, _BENCHMARK, 0, index), world)
    frame = _fullest_frame(scene)
    pictures, masks = render_frames(scene, frames=[frame])
    expression = _choose(scene, frame)
    target = expression.targets[0]
    mask = masks[0, target]
    # Ids of real annotations are large and have gaps.
    ids = [100_000 + 10 * index + number for number in range(len(scene.things))]
    name = f"refcocog_{ids[target]}"
    things = describe_things(scene, masks.mean(axis=(2, 3)), ids)
    truth = make_truth(
        expression,
        split="train",
        clip=name,
        audio="muted",
        scene=scene,
        things=things,
        sounds=(),
        expression_id=str(index),
    )
    row = {
        "id": name,
        "problem": expression.text,
        "solution": _solution(mask),
        "image": {"bytes": _encode_picture(pictures[0]), "path": f"{index}.jpg"},
        "img_height": mask.shape[0],
        "img_width": mask.shape[1],
    }
    annotation = {"id": ids[target], "image_id": index, "segmentation": encode_masks(mask[None])[0]}
    return RefcocogResult(row, annotation, truth)


def finish_refcocog(root: Path, results: Sequence[RefcocogResult], *, annotations: bool) -> None:
    """Write the table once every picture is drawn.

    Args:
        root: Root of the tree.
        results: All pictures, in order.
        annotations: Write `instances.json` too.
    """
    (root / "data").mkdir()
    schema = pa.schema(list(_FIELDS), metadata={"huggingface": json.dumps(_features())})
    table = pa.Table.from_pylist([result.row for result in results], schema=schema)
    pq.write_table(table, root / "data" / "train-00000-of-00001.parquet", row_group_size=_ROWS_PER_GROUP)
    if annotations:
        images = [
            {"id": index, "height": result.row["img_height"], "width": result.row["img_width"]}
            for index, result in enumerate(results)
        ]
        dump_json(root / "instances.json", {"images": images, "annotations": [result.annotation for result in results]})
    write_truth(root, (result.truth for result in results))


def _features() -> dict[str, Any]:
    """What Hugging Face's loader reads from a Parquet file to know that a column holds pictures."""
    features: dict[str, Any] = {
        name: {"dtype": str(kind), "_type": "Value"} for name, kind in _FIELDS if not pa.types.is_struct(kind)
    }
    return {"info": {"features": features | {"image": {"_type": "Image"}}}}


def _fullest_frame(scene: Scene) -> int:
    """The frame on which the least visible thing is seen best."""
    return int(np.array(scene.visible).min(axis=0).argmax())


def _choose(scene: Scene, frame: int) -> Expression:
    """An expression about the look of a thing that is plainly in the picture; one thing always is."""
    rng = generator(scene.key, Stream.TEXT)
    best = int(np.array(scene.visible)[:, frame].argmax())
    looks = [expression for expression in refavs_expressions(scene, rng) if expression.evidence == "looks"]
    plain = [one for one in looks if one.targets[0] == best or scene.visible[one.targets[0]][frame] >= IN_VIEW]
    return choose_balanced(plain, 1, rng)[0]


def _solution(mask: Bool[np.ndarray, "height width"]) -> str:
    """Box and two interior points of a mask, in pixels of the stored picture, corners inclusive."""
    scale = np.array([SIDE / mask.shape[1], SIDE / mask.shape[0]])
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top_left = np.array([columns[0], rows[0]]) * scale
    bottom_right = np.array([columns[-1] + 1, rows[-1] + 1]) * scale - 1
    corners = [(int(x), int(y)) for x, y in (top_left.round(), bottom_right.round())]
    points = [(int(x), int(y)) for x, y in ((_interior_points(mask) + 0.5) * scale).astype(int)]
    box, pair = (",".join(f"({x},{y})" for x, y in two) for two in (corners, points))
    return f"<box>{box}</box><points>{pair}</points>"


def _interior_points(mask: Bool[np.ndarray, "height width"]) -> np.ndarray:
    """Centers (x, y) of the largest inscribed circle, and of the largest in what it leaves."""
    padded = np.pad(mask, 1)
    depth = distance_transform_edt(padded)
    y, x = np.unravel_index(depth.argmax(), depth.shape)
    rows, columns = np.ogrid[: padded.shape[0], : padded.shape[1]]
    rest = padded & ((rows - y) ** 2 + (columns - x) ** 2 >= depth[y, x] ** 2)
    depth = distance_transform_edt(rest) if rest.any() else depth
    second_y, second_x = np.unravel_index(depth.argmax(), depth.shape)
    return np.array([[x - 1, y - 1], [second_x - 1, second_y - 1]])


def _encode_picture(picture: np.ndarray) -> bytes:
    stored = io.BytesIO()
    enlarged = Image.fromarray(picture).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    enlarged.save(stored, format="JPEG", quality=_JPEG_QUALITY)
    return stored.getvalue()
