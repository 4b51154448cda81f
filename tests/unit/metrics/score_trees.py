"""Small ground truths and predictions on disk, and the official programs once more, on whole arrays."""

import csv
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import second_opinion as other
from PIL import Image
from pycocotools import mask as coco

SIZE = (37, 53)
FRAMES = 4
TABLE = "meta_expressions_valid_.json"
VIDEOS = ("UVO/all/-fbscFfkh4M", "TAO/a_b/c")
HEX = ("0ab4afe7fb46", "fedcba987654")
QUESTIONS = {"0": (0, [1, 2]), "1": (1, [1]), "2": (2, []), "3": (0, [2]), "4": (1, [2, 1])}
"""Number of the expression to type and objects; objects 1 and 2 of a video overlap."""

CLIPS = ("abcdefghijk_0_10000", "-bcdefghij__5000_15000")
ROWS = [
    (CLIPS[0], f"{CLIPS[0]}_cat_1", "test_s", 2, "The cat."),
    (CLIPS[0], f"{CLIPS[0]}_cat_2", "train", 2, "The cat."),
    *((CLIPS[1], f"{CLIPS[1]}_saw_{n}", "test_s", n % 2, "The saw.") for n in range(1, 5)),
    (CLIPS[1], f"{CLIPS[1]}_saw_4", "test_u", 1, "The saw."),
    (CLIPS[1], f"{CLIPS[1]}_saw_4", "test_u", 0, "The saw."),
    (CLIPS[0], f"null_c-{CLIPS[0]}_null_1", "test_n", 0, "The sound"),
    (CLIPS[0], f"null_c-{CLIPS[0]}_null_2", "test_n", 0, "The other sound"),
]
"""Five expressions of one split with a row of another in between, one uid with two targets, null rows."""


def rle(mask):
    encoded = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(mask.shape), "counts": encoded["counts"].decode()}


def squares(rng, frames, size):
    """One moving rectangle, absent on the second frame."""
    masks = np.zeros((frames, *size), bool)
    for index in range(frames):
        y, x = rng.integers(0, 20, 2)
        masks[index, y : y + 14, x : x + 18] = index != 1
    return masks


def write_video_truth(root: Path, names, *, seed: int = 0) -> dict[str, np.ndarray]:
    """ReVOS tables and masks, without a single frame; the objects' masks by `<anno_id>`."""
    rng = np.random.default_rng(seed)
    videos, masks, foreground = {}, {}, {}
    for number, name in enumerate(names):
        objects = {str(10 * number + key): squares(rng, FRAMES, SIZE) for key in (1, 2, 3)}
        masks |= objects
        expressions = {
            key: {"exp": "x", "obj_id": ids, "anno_id": [10 * number + one for one in ids], "type_id": type_id}
            for key, (type_id, ids) in QUESTIONS.items()
        }
        frames = [f"{5 * index:05d}" for index in range(FRAMES)]
        videos[name] = {"vid_id": number, "frames": frames, "expressions": expressions}
        union = np.any(list(objects.values()), axis=0)
        foreground[name] = {"masks_rle": [rle(mask) for mask in union], "foreground_ratio": [0.1] * FRAMES}
    root.mkdir(parents=True)
    (root / TABLE).write_text(json.dumps({"videos": videos}))
    stored = {key: [rle(mask) if mask.any() else None for mask in track] for key, track in masks.items()}
    (root / "mask_dict.json").write_text(json.dumps(stored))
    (root / "mask_dict_foreground.json").write_text(json.dumps(foreground))
    return masks


def write_mevis_truth(root: Path) -> dict[str, np.ndarray]:
    """The same as the split valid_u of MeViS: no types, frames from 00000, no file of all objects."""
    masks = write_video_truth(root / "valid_u", HEX)
    folder = root / "valid_u"
    (folder / "mask_dict_foreground.json").unlink()
    table = json.loads((folder / TABLE).read_text())
    for video in table["videos"].values():
        video["frames"] = [f"{index:05d}" for index in range(FRAMES)]
        video["expressions"].pop("2")
        for question in video["expressions"].values():
            question.pop("type_id")
    (folder / TABLE).unlink()
    (folder / "meta_expressions.json").write_text(json.dumps(table))
    return masks


def save(path: Path, mask: np.ndarray, *, value: int = 255) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask.astype(np.uint8) * value).save(path)


def write_video_predictions(folder: Path, table: Path, *, seed: int = 1) -> Path:
    """A moving rectangle for every expression."""
    rng = np.random.default_rng(seed)
    for name, video in json.loads(table.read_text())["videos"].items():
        for key in video["expressions"]:
            for frame, mask in zip(video["frames"], squares(rng, FRAMES, SIZE), strict=True):
                save(folder / name / key / f"{frame}.png", mask)
    return folder


def official_expression(video, question, predictions, masks, annotated):
    """One expression as the official programs score it: any problem whatever gives 0 in every score."""
    nothing = dict.fromkeys(("J", "F", "A_official", "A_binary", "R_official", "R_binary"), 0.0)
    try:
        pred = np.stack([other.read_gray(predictions / f"{frame}.png") for frame in video["frames"]])
        truth = np.zeros(pred.shape, np.uint8)
        for key in question["anno_id"]:
            truth += masks[str(key)]
        assert annotated is None or annotated.shape == pred.shape
    except (OSError, ValueError, AssertionError):
        return nothing
    scores = {"J": other.region_j(pred, truth).mean(), "F": other.boundary_f(pred, truth).mean()}
    if annotated is not None:
        scores |= {
            "A_official": other.revos_a(pred, truth, 255).mean(),
            "A_binary": other.revos_a(pred, truth, 1).mean(),
            "R_official": other.revos_r(pred, truth, annotated, 255).mean(),
            "R_binary": other.revos_r(pred, truth, annotated, 1).mean(),
        }
    return scores


def official_rows(table: Path, predictions: Path, masks: Mapping[str, np.ndarray], *, has_foreground: bool = True):
    """(kind, scores) of every expression."""
    rows = []
    for number, (name, video) in enumerate(json.loads(table.read_text())["videos"].items()):
        union = np.any([masks[str(10 * number + key)] for key in (1, 2, 3)], axis=0) if has_foreground else None
        for key, question in video["expressions"].items():
            kind = ("referring", "reasoning", "non-existent")[question.get("type_id", 0)]
            rows.append((kind, official_expression(video, question, predictions / name / key, masks, union)))
    return rows


def write_clip_truth(root: Path) -> dict[tuple[str, int], np.ndarray]:
    """A Ref-AVS table and masks of two sizes; masks by folder and target."""
    root.mkdir(parents=True)
    with (root / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\r\n")
        writer.writerow(["vid", "uid", "split", "fid", "exp"])
        writer.writerows(ROWS)
    rng = np.random.default_rng(0)
    truth = {}
    for clip, fid, size in ((CLIPS[0], 0, SIZE), (CLIPS[0], 2, SIZE), (CLIPS[1], 0, (60, 80)), (CLIPS[1], 1, (60, 80))):
        truth[clip, fid] = squares(rng, 10, size)
        for index, mask in enumerate(truth[clip, fid]):
            save(root / "gt_mask" / clip / f"fid_{fid}" / f"{index:05d}.png", mask)
    return truth


def write_clip_predictions(folder: Path, truth: Mapping[tuple[str, int], np.ndarray]) -> dict[int, np.ndarray]:
    """A rectangle for every test row, named by row; masks by row."""
    rng, written = np.random.default_rng(2), {}
    for number, (_, uid, split, fid, _) in enumerate(ROWS):
        if split == "train":
            continue
        clip, category, counter = uid.rsplit("_", 2)
        written[number] = squares(rng, 10, truth[clip, fid].shape[1:] if (clip, fid) in truth else SIZE)
        for index, mask in enumerate(written[number]):
            save(folder / clip / f"{number:05d}_{category}_{counter}" / f"{index:05d}.png", mask)
    return written


def write_marked_all_over(path: Path, mode: str) -> None:
    """A color picture whose every pixel but the first is marked: in the alpha channel, next to black, or white."""
    mask = np.ones(SIZE, np.uint8)
    mask[0, 0] = 0
    if mode == "palette":
        image = Image.fromarray(mask, "P")
        image.putpalette([0, 0, 0, 0, 0, 1])
    else:
        color = np.full(SIZE, 255 if mode == "white" else 0, np.uint8)
        alpha = np.full(SIZE, 255, np.uint8) if mode == "white" else mask * 255
        image = Image.fromarray(np.stack([color, color, color, alpha], axis=-1), "RGBA")
    image.save(path)
