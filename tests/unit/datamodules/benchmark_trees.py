"""Small trees in the layouts of the benchmarks, one of each oddity, and a writer of video files."""

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import av
import numpy as np
import soundfile
from PIL import Image
from pycocotools import mask as coco

from datamodules.reader import ClipReader
from datamodules.records import Clip, Frames

SIZE = (24, 32)
FRAMES = 10
PLAIN = "abcdefghijk_0_10000"
DASHED = "-bcdefghij__5000_15000"
SWAPPED = f"null_c-{PLAIN}"
MUTED = f"null_m-{DASHED}"
CROSSED = f"null_c-{DASHED}"

ROWS = [
    (PLAIN, f"{PLAIN}_cat_1", "train", 2, 'The cat, "the big one".'),
    (DASHED, f"{DASHED}_hair-dryer_1", "train", 0, "The  Hair-dryer_making a sound. "),
    (PLAIN, f"{SWAPPED}_null_1", "train", 0, "The first object to make a sound"),
    (DASHED, f"{MUTED}_null_2", "train", 0, "The sounding object"),
    (PLAIN, f"{PLAIN}_cat_9", "TODO", 2, "The cat."),
    (PLAIN, f"{PLAIN}_cat_2", "train", 2, "NO."),
    (PLAIN, f"{PLAIN}_cat_3", "train", 2, "[Error] 错误: 该内容仅包含:(1)小写英文字母,(2)英文空格."),
    (PLAIN, f"{PLAIN}_cat_2", "val", 2, "NO."),
    (PLAIN, f"{SWAPPED}_null_1", "val", 0, "The first object to make a sound"),
    (DASHED, f"{DASHED}_saw_4", "test_u", 4, "The saw."),
    (DASHED, f"{DASHED}_saw_4", "test_u", 0, "The saw."),
    (PLAIN, f"{PLAIN}_cat_4", "test_s", 2, "The man\u2019s cat."),
    (DASHED, f"{CROSSED}_null_1", "test_n", 0, "The sounding object"),
]
"""Quoted comma; leading dash, underscore inside the id and in the text; both kinds of null; a leftover split; texts
that say nothing; one uid with two targets; a non-ASCII letter; sound that is only in the second place."""


def disk(size: tuple[int, int], center: tuple[int, int], radius: float) -> np.ndarray:
    rows, columns = np.ogrid[: size[0], : size[1]]
    return (rows - center[0]) ** 2 + (columns - center[1]) ** 2 <= radius**2


def write_clip(root: Path, name: str, level: int, *, media: str = "media") -> None:
    """Ten gray frames whose brightness grows by 10 per frame, and ten seconds of a tone."""
    frames = root / "media" / name / "frames"
    frames.mkdir(parents=True)
    for index in range(FRAMES):
        Image.fromarray(np.full((*SIZE, 3), level + 10 * index, np.uint8)).save(frames / f"{index}.jpg", quality=95)
    sound = root / media / name / "audio.wav"
    sound.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(sound, 0.5 * np.sin(2 * np.pi * 440 * np.arange(160_000) / 16_000), 16_000)


def write_masks(root: Path, name: str, fid: int, masks: Sequence[np.ndarray]) -> None:
    folder = root / "gt_mask" / name / f"fid_{fid}"
    folder.mkdir(parents=True)
    for index, mask in enumerate(masks):
        Image.fromarray(mask.astype(np.uint8) * 255).save(folder / f"{index:05d}.png")


def write_refavs(root: Path) -> Path:
    """The oddities of the real table in one tree; `DASHED` target 0 is empty on frame 3, `PLAIN` has a target 0 too."""
    root.mkdir(parents=True, exist_ok=True)
    with (root / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\r\n")
        writer.writerow(["vid", "uid", "split", "fid", "exp"])
        writer.writerows(ROWS)
    write_clip(root, PLAIN, 20)
    write_clip(root, DASHED, 40)
    write_clip(root, SWAPPED, 60)
    write_clip(root, CROSSED, 80, media="media_cross")
    write_clip(root, MUTED, 100)
    (root / "media" / MUTED / "audio.wav").unlink()
    whole = [disk(SIZE, (8, 10), 5)] * FRAMES
    write_masks(root, PLAIN, 0, whole)
    write_masks(root, PLAIN, 2, [disk((48, 64), (16, 20), 10)] * FRAMES)
    write_masks(root, DASHED, 0, [mask & (index != 3) for index, mask in enumerate(whole)])
    write_masks(root, DASHED, 4, [disk(SIZE, (16, 20), 3)] * FRAMES)
    write_masks(root, SWAPPED, 0, [np.zeros(SIZE, bool)] * FRAMES)
    return root


def rle(mask: np.ndarray) -> dict:
    encoded = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(mask.shape), "counts": encoded["counts"].decode()}


UVO = "UVO/all/-fbscFfkh4M"
TAO = "TAO/a_b/c"
STILL = "MOSE/still"
OVIS = "OVIS/v1"

LEFT, RIGHT = disk(SIZE, (10, 10), 6), disk(SIZE, (10, 16), 6)


def revos_tables() -> tuple[dict, dict, dict, dict]:
    """Train table, valid table, masks, foreground."""

    def question(text: str, annotations: list[int], type_id: int) -> dict:
        return {"exp": text, "obj_id": list(range(len(annotations))), "anno_id": annotations, "type_id": type_id}

    def video(frames: list[str], **questions: dict) -> dict:
        return {"vid_id": 1, "height": SIZE[0], "width": SIZE[1], "frames": frames, "expressions": questions}

    names = [f"{5 * index:05d}" for index in range(4)]
    train = {
        UVO: video(
            names,
            **{
                "0": question(" The two disks. ", [11, 12], 0),
                "1": question("Which one is on the left?", [11], 1),
                "2": question("the elephant", [], 2),
            },
        ),
        TAO: video(
            [f"frame{index:04d}" for index in range(7)],
            **{"0": question("a disk", [13], 0), "1": question("the left disk", [13], 1)},
        ),
        STILL: video(["00000"], **{"0": question("a disk", [14], 0)}),
    }
    valid = {OVIS: video(names[:3], **{"0": question("a disk", [15], 0), "1": question("no disk", [], 2)})}
    large = disk((2 * SIZE[0], 2 * SIZE[1]), (20, 20), 12)
    masks = {
        "11": [rle(LEFT), None, rle(LEFT), rle(np.zeros(SIZE, bool))],
        "12": [None, None, rle(RIGHT), None],
        "13": [rle(disk(SIZE, (10, 4 + 3 * index), 3)) for index in range(7)],
        "14": [rle(LEFT)],
        "15": [rle(large)] * 3,
    }
    seen = {
        UVO: [rle(LEFT), rle(np.zeros(SIZE, bool)), rle(LEFT | RIGHT), rle(np.zeros(SIZE, bool))],
        OVIS: [rle(LEFT)] * 3,
    }
    foreground = {name: {"masks_rle": rles, "foreground_ratio": [0.1] * len(rles)} for name, rles in seen.items()}
    return train, valid, masks, foreground


def write_revos(root: Path) -> Path:
    """Slashes and a dash in names, one video directly under the root, overlaps, gaps, an unanswerable question."""
    train, valid, masks, foreground = revos_tables()
    root.mkdir(parents=True, exist_ok=True)
    for split, table in (("train", train), ("valid", valid)):
        (root / f"meta_expressions_{split}_.json").write_text(json.dumps({"videos": table}))
        for name, video in table.items():
            folder = (root if name == TAO else root / "JPEGImages") / name
            folder.mkdir(parents=True)
            for index, frame in enumerate(video["frames"]):
                Image.fromarray(np.full((*SIZE, 3), 20 + 10 * index, np.uint8)).save(folder / f"{frame}.jpg")
    (root / "mask_dict.json").write_text(json.dumps(masks))
    (root / "mask_dict_foreground.json").write_text(json.dumps(foreground))
    return root


def edit_json(path: Path, change: Callable[[dict], object]) -> None:
    """Change a JSON file in place."""
    table = json.loads(path.read_text())
    change(table)
    path.write_text(json.dumps(table))


def write_video(
    path: Path,
    *,
    frames: int = 20,
    fps: int = 2,
    sound_s: float = 0.0,
    rate: int = 44_100,
    size: tuple[int, int] = (48, 64),
) -> Path:
    """Gray frames, 10 brighter each, and a stereo tone of `sound_s` seconds if it is above 0."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=fps, options={"crf": "1"})
        video.height, video.width, video.pix_fmt = *size, "yuv420p"
        audio = container.add_stream("aac", rate=rate) if sound_s else None
        for index in range(frames):
            image = np.full((*size, 3), 20 + 10 * index, np.uint8)
            container.mux(video.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(video.encode())
        if audio:
            tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(int(sound_s * rate)) / rate)
            block = av.AudioFrame.from_ndarray(
                np.stack([tone, tone]).astype(np.float32), format="fltp", layout="stereo"
            )
            block.sample_rate = rate
            container.mux(audio.encode(block))
            container.mux(audio.encode())
    return path


class GrayFrames(Frames):
    """Two small gray frames in memory."""

    count = 2
    fps = 1.0
    size = (4, 4)

    def read(self, indices: Sequence[int], *, max_pixels: int | None = None) -> np.ndarray:
        return np.zeros((len(indices), 4, 4, 3), np.uint8)


class NumberedClips(ClipReader):
    """Clips named ``<index>v<visit>``, without media worth the name."""

    def __init__(self, count: int) -> None:
        self._count = count

    @property
    def nulls(self) -> tuple[bool, ...]:
        return (False,) * self._count

    def clip(self, index: int, *, visit: int = 0) -> Clip:
        return Clip(f"{index}v{visit}", "video", "train", "video", "it", GrayFrames())
