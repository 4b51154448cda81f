"""Write AVShapes in the layout of ReVOS.

    JPEGImages/<video>/00000.jpg ...       <video> holds slashes, and some components begin with `-`
    meta_expressions_train_.json           note the underscore before .json
    meta_expressions_valid_.json
    mask_dict.json                         anno_id to one COCO run-length mask per frame, null where it is not visible
    mask_dict_foreground.json              per video the union of all things that an expression mentions
    truth.jsonl                            not part of the layout; see `datamodules.avshapes.truth`

`type_id` is 0 for referring, 1 for reasoning, 2 for non-existent targets, whose obj_id and anno_id are empty. The clips
have no sound, like the real ones. Not imitated: sparse annotation, outer spaces, videos of differing size.

Reference:
    VISA / ReVOS, arXiv:2407.11325.
"""

from __future__ import annotations

import json
import string
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool
from PIL import Image
from pycocotools import mask as coco

from datamodules.avshapes.expressions import Expression, Kind, choose_balanced, revos_expressions
from datamodules.avshapes.render import render_frames
from datamodules.avshapes.scene import sample_scene
from datamodules.avshapes.settings import RevosSizes
from datamodules.avshapes.truth import Truth, describe_things, make_truth, write_truth
from datamodules.avshapes.world import Scene, Stream, World, generator

SPLITS = ("train", "valid")
TYPE_IDS: dict[Kind, int] = {"referring": 0, "reasoning": 1, "non-existent": 2}

_BENCHMARK = 1
_JPEG_QUALITY = 95
_SOURCES = ("shapes/all", "parade", "arena/day/cam-2", "arena/night/-cam")
_ID_ALPHABET = string.ascii_letters + string.digits + "-"
_VIDEOS_PER_SPLIT = 1_000_000

Rle = dict[str, object]


@dataclass(frozen=True)
class RevosJob:
    """One video to write: which split, and which video of that split."""

    split: str
    index: int


@dataclass(frozen=True)
class RevosResult:
    """What a written video adds to the tables.

    Attributes:
        split: Its split.
        video: Its name.
        meta: Its entry of the expression table.
        masks: anno_id to one run-length mask, or None, per frame.
        foreground: Its entry of the foreground table.
        truths: The truth of each expression.
    """

    split: str
    video: str
    meta: dict[str, object]
    masks: dict[str, list[Rle | None]]
    foreground: dict[str, list[object]]
    truths: tuple[Truth, ...]


def revos_jobs(sizes: RevosSizes) -> list[RevosJob]:
    """Every video of a tree, in the order of the tables."""
    counts = {"train": sizes.train, "valid": sizes.valid}
    return [RevosJob(split, index) for split in SPLITS for index in range(counts[split])]


def write_revos_clip(job: RevosJob, root: Path, *, seed: int, world: World, sizes: RevosSizes) -> RevosResult:
    """Write one video; nothing depends on the videos written before.

    Args:
        job: Which one.
        root: Root of the tree.
        seed: The tree's seed.
        world: The dials.
        sizes: How many expressions of each kind; the numbers of videos are ignored.
    """
    number = SPLITS.index(job.split) * _VIDEOS_PER_SPLIT + job.index
    scene = sample_scene((seed, _BENCHMARK, SPLITS.index(job.split), job.index), world)
    video = _sample_video(generator(scene.key, Stream.NAMES))
    frames, masks = render_frames(scene)
    names = [f"{index:05d}" for index in range(len(frames))]
    folder = root / "JPEGImages" / video
    folder.mkdir(parents=True)
    for name, frame in zip(names, frames, strict=True):
        Image.fromarray(frame).save(folder / f"{name}.jpg", quality=_JPEG_QUALITY)

    chosen = _choose(scene, job, sizes)
    anno_ids = [10 * number + index for index in range(len(scene.things))]
    mentioned = sorted({target for expression in chosen for target in expression.targets})
    height, width = frames.shape[1:3]
    things = describe_things(scene, masks.mean(axis=(2, 3)), anno_ids)
    return RevosResult(
        split=job.split,
        video=video,
        meta={
            "vid_id": number,
            "height": height,
            "width": width,
            "frames": names,
            "expressions": {str(index): _entry(item, anno_ids) for index, item in enumerate(chosen)},
        },
        masks={str(anno_ids[target]): encode_masks(masks[:, target]) for target in mentioned},
        foreground=_foreground(np.any(masks[:, mentioned], axis=1)),
        truths=tuple(
            make_truth(
                expression,
                split=job.split,
                clip=video,
                audio="muted",
                scene=scene,
                things=things,
                sounds=(),
                expression_id=str(index),
            )
            for index, expression in enumerate(chosen)
        ),
    )


def finish_revos(root: Path, results: Sequence[RevosResult]) -> None:
    """Write the tables once every video is there."""
    for split in SPLITS:
        videos = {result.video: result.meta for result in results if result.split == split}
        dump_json(root / f"meta_expressions_{split}_.json", {"videos": videos})
    dump_json(root / "mask_dict.json", {key: mask for result in results for key, mask in result.masks.items()})
    dump_json(root / "mask_dict_foreground.json", {result.video: result.foreground for result in results})
    write_truth(root, (truth for result in results for truth in result.truths))


def encode_masks(masks: Bool[np.ndarray, "frames height width"]) -> list[Rle | None]:
    """COCO run lengths per frame; None where the thing is not visible."""
    return [_encode(mask) if mask.any() else None for mask in masks]


def _choose(scene: Scene, job: RevosJob, sizes: RevosSizes) -> list[Expression]:
    rng = generator(scene.key, Stream.TEXT)
    valid = revos_expressions(scene, rng)
    has_absent = sizes.non_existent_every > 0 and job.index % sizes.non_existent_every == 0
    counts: tuple[tuple[Kind, int], ...] = (
        ("referring", sizes.referring),
        ("reasoning", sizes.reasoning),
        ("non-existent", int(has_absent)),
    )
    chosen: list[Expression] = []
    for kind, count in counts:
        chosen += choose_balanced([expression for expression in valid if expression.kind == kind], count, rng)
    return chosen


def _sample_video(rng: np.random.Generator) -> str:
    """A source of one or more folders, then eleven characters."""
    source = _SOURCES[int(rng.integers(len(_SOURCES)))]
    return f"{source}/" + "".join(_ID_ALPHABET[int(index)] for index in rng.integers(len(_ID_ALPHABET), size=11))


def _entry(expression: Expression, anno_ids: Sequence[int]) -> dict[str, object]:
    """One expression of the table."""
    return {
        "exp": expression.text,
        "obj_id": list(expression.targets),
        "anno_id": [anno_ids[target] for target in expression.targets],
        "type_id": TYPE_IDS[expression.kind],
    }


def _foreground(union: Bool[np.ndarray, "frames height width"]) -> dict[str, list[object]]:
    """The union of the mentioned things; unlike in mask_dict.json, an empty frame is an encoded empty mask."""
    return {
        "masks_rle": [_encode(mask) for mask in union],
        "foreground_ratio": [round(float(mask.mean()), 6) for mask in union],
    }


def _encode(mask: Bool[np.ndarray, "height width"]) -> Rle:
    encoded = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(mask.shape), "counts": encoded["counts"].decode("ascii")}


def dump_json(path: Path, content: object) -> None:
    """Write a table without spaces, the same bytes on every machine."""
    path.write_text(json.dumps(content, separators=(",", ":")), encoding="utf-8", newline="\n")
