import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from datamodules.avshapes.make import write_tree
from datamodules.avshapes.render import render_frames
from datamodules.avshapes.scene import sample_scene
from datamodules.avshapes.settings import WORLDS, make_settings
from datamodules.avshapes.truth import read_truth
from datamodules.avshapes.write_revos import encode_masks

Videos = dict[str, dict[str, Any]]


def load(root: Path, name: str) -> Any:
    return json.loads((root / name).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def revos_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("trees") / "revos"
    write_tree(make_settings("revos", seed=3, sizes={"train": 6, "valid": 4}), root, workers=1)
    return root


@pytest.fixture(scope="module")
def videos(revos_tree: Path) -> dict[str, Videos]:
    return {split: load(revos_tree, f"meta_expressions_{split}_.json")["videos"] for split in ("train", "valid")}


def everything(videos: dict[str, Videos]) -> Videos:
    return {**videos["train"], **videos["valid"]}


def test_the_root_holds_the_real_names(revos_tree):
    assert {path.name for path in revos_tree.iterdir()} == {
        "JPEGImages",
        "mask_dict.json",
        "mask_dict_foreground.json",
        "meta_expressions_train_.json",
        "meta_expressions_valid_.json",
        "truth.jsonl",
        "avshapes.json",
    }


def test_videos_have_slashes_and_sorted_frames(revos_tree, videos):
    assert {split: len(table) for split, table in videos.items()} == {"train": 6, "valid": 4}
    assert not set(videos["train"]) & set(videos["valid"])
    for name, video in everything(videos).items():
        assert "/" in name
        assert video["frames"] == [f"{index:05d}" for index in range(10)]
        for frame in video["frames"]:
            assert Image.open(revos_tree / "JPEGImages" / name / f"{frame}.jpg").size == (224, 224)
        assert (video["height"], video["width"]) == (224, 224)
    assert len({video["vid_id"] for video in everything(videos).values()}) == 10


def test_expressions_have_types_and_object_ids(videos):
    """Three referring, three reasoning, and in every second video one without a target: 10, 10 and 5 videos."""
    types: Counter[int] = Counter()
    for video in everything(videos).values():
        assert list(video["expressions"]) == [str(index) for index in range(len(video["expressions"]))]
        for item in video["expressions"].values():
            assert set(item) == {"exp", "obj_id", "anno_id", "type_id"}
            assert len(item["obj_id"]) == len(item["anno_id"])
            assert (item["type_id"] == 2) == (item["anno_id"] == [])
            assert item["type_id"] != 1 or item["exp"].endswith("?")
            types[item["type_id"]] += 1
    assert types == {0: 30, 1: 30, 2: 5}


def test_masks_decode_to_the_rendered_ones(revos_tree, videos):
    masks, truths = load(revos_tree, "mask_dict.json"), read_truth(revos_tree)
    rendered = {truth.clip: render_frames(sample_scene(truth.scene_key, WORLDS["revos"]))[1] for truth in truths}
    mentioned = set()
    for name, video in everything(videos).items():
        for item in video["expressions"].values():
            for target, anno_id in zip(item["obj_id"], item["anno_id"], strict=True):
                mentioned.add(str(anno_id))
                track = masks[str(anno_id)]
                assert len(track) == 10
                for frame, rle in enumerate(track):
                    expected = rendered[name][frame, target]
                    assert (rle is None) == (not expected.any())
                    if rle is not None:
                        assert rle["size"] == [224, 224]
                        assert np.array_equal(coco.decode(rle), expected)
    assert set(masks) == mentioned


def test_foreground_is_the_union_of_what_is_mentioned(revos_tree, videos):
    masks, foreground = load(revos_tree, "mask_dict.json"), load(revos_tree, "mask_dict_foreground.json")
    assert set(foreground) == set(everything(videos))
    for name, video in everything(videos).items():
        anno_ids = {str(anno_id) for item in video["expressions"].values() for anno_id in item["anno_id"]}
        for frame in range(10):
            union = np.zeros((224, 224), dtype=np.uint8)
            for anno_id in anno_ids:
                if masks[anno_id][frame] is not None:
                    union |= coco.decode(masks[anno_id][frame])
            assert np.array_equal(coco.decode(foreground[name]["masks_rle"][frame]), union)
            assert foreground[name]["foreground_ratio"][frame] == pytest.approx(union.mean(), abs=1e-6)


def test_an_invisible_frame_is_null():
    masks = np.zeros((2, 4, 6), dtype=bool)
    masks[1, 2, 3] = True

    first, second = encode_masks(masks)

    assert first is None
    assert np.array_equal(coco.decode(second), masks[1])


def test_truth_describes_every_expression(revos_tree, videos):
    truths = {(truth.clip, truth.expression_id): truth for truth in read_truth(revos_tree)}
    kinds = {0: "referring", 1: "reasoning", 2: "non-existent"}
    expected = {
        (name, key): item for name, video in everything(videos).items() for key, item in video["expressions"].items()
    }
    assert set(truths) == set(expected)
    for key, item in expected.items():
        truth = truths[key]
        assert truth.text == item["exp"]
        assert truth.kind == kinds[item["type_id"]]
        assert list(truth.targets) == item["obj_id"]
        assert [truth.things[target].object_id for target in truth.targets] == item["anno_id"]
        assert truth.sounds == ()
