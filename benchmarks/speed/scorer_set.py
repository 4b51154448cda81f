"""A ground truth and predictions in the layout of ReVOS, of any size: blobs that move, with ragged rims."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco

PER_VIDEO = 10
OBJECTS = 4


def write_set(root: Path, predictions: Path, expressions: int, frames: int, size: tuple[int, int]) -> None:
    """Write tables, masks and predictions of videos with up to ten expressions each."""
    videos: dict[str, Any] = {}
    masks: dict[str, Any] = {}
    foreground: dict[str, Any] = {}
    for number in range(-(-expressions // PER_VIDEO)):
        name = f"set/video{number:03d}"
        rng = np.random.default_rng(number)
        objects = [moving_blob(rng, frames, size) for _ in range(OBJECTS)]
        masks |= {str(10 * number + key): [encoded(mask) for mask in track] for key, track in enumerate(objects)}
        foreground[name] = {"masks_rle": [encoded(np.any(frame, axis=0)) for frame in zip(*objects, strict=True)]}
        asked = {}
        for key in range(min(PER_VIDEO, expressions - PER_VIDEO * number)):
            targets = rng.permutation(OBJECTS)[: 1 + key % 2].tolist()
            asked[str(key)] = {
                "exp": "it",
                "obj_id": targets,
                "anno_id": [10 * number + target for target in targets],
                "type_id": key % 2,
            }
            truth = np.any([objects[target] for target in targets], axis=0)
            write_prediction(predictions / name / str(key), np.roll(truth, rng.integers(-6, 7, 2), axis=(1, 2)))
        names = [f"{index:05d}" for index in range(frames)]
        videos[name] = {"vid_id": number, "frames": names, "expressions": asked}
    root.mkdir()
    (root / "meta_expressions_valid_.json").write_text(json.dumps({"videos": videos}))
    (root / "mask_dict.json").write_text(json.dumps(masks))
    (root / "mask_dict_foreground.json").write_text(json.dumps(foreground))


def moving_blob(rng: np.random.Generator, frames: int, size: tuple[int, int]) -> np.ndarray:
    """An object with a wavy, ragged outline that drifts across the picture."""
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float32)
    center, speed = rng.uniform(0.2, 0.8, 2) * size, rng.uniform(-2, 2, 2)
    axes, waves = rng.uniform(0.08, 0.25, 2) * size, int(rng.integers(3, 9))
    ragged = rng.uniform(-0.04, 0.04, size).astype(np.float32)
    out = np.empty((frames, *size), dtype=bool)
    for index in range(frames):
        dy, dx = (y - center[0] - index * speed[0]) / axes[0], (x - center[1] - index * speed[1]) / axes[1]
        out[index] = (dy**2 + dx**2) * (1 + 0.2 * np.sin(waves * np.arctan2(dy, dx))) + ragged < 1
    return out


def encoded(mask: np.ndarray) -> dict[str, Any]:
    """COCO run lengths."""
    found = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(mask.shape), "counts": found["counts"].decode("ascii")}


def write_prediction(folder: Path, masks: np.ndarray) -> None:
    """One PNG per frame, 0 and 255."""
    folder.mkdir(parents=True)
    for index, mask in enumerate(masks):
        Image.fromarray(mask.astype(np.uint8) * 255).save(folder / f"{index:05d}.png", compress_level=1)
