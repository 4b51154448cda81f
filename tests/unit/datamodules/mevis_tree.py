"""A small tree in the layout of MeViS, one of each oddity."""

import json
from pathlib import Path

import numpy as np
from benchmark_trees import LEFT, RIGHT, SIZE, rle
from PIL import Image

TWO, STILL, HELD, ONE, SERVER = "0ab4afe7fb46", "1111deadbeef", "2222deadbeef", "fedcba987654", "00000000000a"


def write_mevis(root: Path) -> Path:
    """Two objects and gaps, one frame only, a table without vid_id, `valid` without targets and masks."""

    def ask(text: str, annotations: list[int]) -> dict:
        return {"exp": text, "obj_id": list(range(len(annotations))), "anno_id": annotations}

    names = [f"{index:05d}" for index in range(4)]
    tables = {
        "train": {
            TWO: {
                "vid_id": 7,
                "frames": names,
                "expressions": {"0": ask("The  disks Moving right. ", [1, 2]), "1": ask("the left one", [1])},
            },
            STILL: {"vid_id": 8, "frames": names[:1], "expressions": {"0": ask("it stands still", [3])}},
            HELD: {"vid_id": 9, "frames": names, "expressions": {"0": ask("it moves", [4])}},
        },
        "valid_u": {ONE: {"frames": names[:3], "expressions": {"0": ask("it turns", [1]), "11": ask("both", [1, 2])}}},
        "valid": {SERVER: {"vid_id": 1, "frames": names, "expressions": {"0": {"exp": "what rolls away"}}}},
    }
    empty = rle(np.zeros(SIZE, bool))
    masks = {
        "train": {"1": [rle(LEFT), None, rle(LEFT), empty], "2": [None, None, rle(RIGHT), None], "3": [rle(LEFT)]},
        "valid_u": {"1": [rle(LEFT)] * 3, "2": [None, rle(RIGHT), rle(RIGHT)]},
    }
    masks["train"]["4"] = [rle(RIGHT)] * 4
    for split, table in tables.items():
        (root / split).mkdir(parents=True)
        (root / split / "meta_expressions.json").write_text(json.dumps({"videos": table}))
        if split in masks:
            (root / split / "mask_dict.json").write_text(json.dumps(masks[split]))
        for name, video in table.items():
            folder = root / split / "JPEGImages" / name
            folder.mkdir(parents=True)
            for index, frame in enumerate(video["frames"]):
                Image.fromarray(np.full((*SIZE, 3), 20 + 10 * index, np.uint8)).save(folder / f"{frame}.jpg")
    return root
