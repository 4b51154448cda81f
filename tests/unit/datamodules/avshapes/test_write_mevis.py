import json

import numpy as np
import pytest
from pycocotools import mask as coco

from datamodules.avshapes.__main__ import main
from datamodules.avshapes.make import ensure_avshapes, write_tree
from datamodules.avshapes.motion import PHRASES, choose_targets, motion_expressions, motion_groups
from datamodules.avshapes.scene import Scene, sample_scene
from datamodules.avshapes.settings import WORLDS, make_settings
from datamodules.avshapes.truth import read_truth
from datamodules.layout import check_mevis
from datamodules.mevis import MeViS

SIZES = {"train": 5, "valid_u": 3, "valid": 1}


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    root = tmp_path_factory.mktemp("trees") / "mevis"
    write_tree(make_settings("mevis", seed=3, sizes=SIZES), root, workers=1)
    return root


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [sample_scene((5, 2, 0, index), WORLDS["mevis"]) for index in range(60)]


def test_the_tree_is_what_the_check_and_the_reader_of_the_real_one_take(tree):
    report = check_mevis(tree, every_file=True)
    assert [fact.partition(",")[0] for fact in report.facts] == [
        "train: 5 videos",
        "valid_u: 3 videos",
        "valid: 1 videos",
    ]
    assert not (tree / "valid" / "mask_dict.json").exists()
    assert all(clip.masks is None for clip in MeViS(tree, split="valid"))


def test_masks_are_those_of_the_scene_and_truth_names_them(tree):
    truths = {(truth.split, truth.clip, truth.expression_id): truth for truth in read_truth(tree)}
    for split in ("train", "valid_u"):
        for clip in MeViS(tree, split=split):
            truth = truths[split, clip.video, clip.expression_id]
            areas = np.array([truth.things[target].areas for target in truth.targets]).T
            assert clip.masks.areas / 224**2 == pytest.approx(areas, abs=1e-5)
            assert clip.expression == truth.text
            assert (clip.kind == "multi") == (len(truth.targets) > 1)


def test_names_are_those_of_the_real_one(tree):
    videos = json.loads((tree / "train" / "meta_expressions.json").read_text())["videos"]
    masks = json.loads((tree / "train" / "mask_dict.json").read_text())
    for name, video in videos.items():
        assert len(name) == 12
        assert int(name, 16) >= 0
        assert video["frames"][0] == "00000"
        assert set(video) == {"vid_id", "frames", "expressions"}
    assert {rle["size"][0] for track in masks.values() for rle in track if rle} == {224}
    assert {coco.decode(rle).shape for rle in masks["0"] if rle} <= {(224, 224)}


def test_there_are_several_targets_and_single_ones(scenes):
    rng = np.random.default_rng(0)
    chosen = [item for scene in scenes for item in choose_targets(motion_expressions(scene, rng), 4, rng)]
    several = sum(len(item.targets) > 1 for item in chosen)
    assert len(chosen) > 2 * len(scenes)
    assert 0.15 < several / len(chosen) < 0.6
    assert {item.evidence for item in chosen} == {"motion"}


def test_groups_leave_somebody_out_and_are_true_of_the_rest(scenes):
    """Each claim is checked on the scene's own numbers."""
    seen = set()
    for scene in scenes:
        for fact in motion_groups(scene):
            things = scene.things
            among = [index for index, thing in enumerate(things) if fact.shape in ("", thing.shape)]
            others = [index for index in among if index not in fact.targets]
            assert others
            seen.add(fact.variant)
            for index in among:
                thing, is_target = things[index], index in fact.targets
                growth = thing.radius[-1] / thing.radius[0]
                claim = {
                    "moves": thing.moves,
                    "still": not thing.in_motion,
                    "appears": thing.presence == "enter",
                    "leaves": thing.presence == "leave",
                    "grows": growth >= 1.4,
                    "shrinks": growth <= 1 / 1.4,
                }[fact.variant]
                assert claim == is_target, (fact, index)
    assert seen == set(PHRASES)


def test_phrases_are_in_the_right_number(scenes):
    rng = np.random.default_rng(1)
    for scene in scenes:
        for item in motion_expressions(scene, rng):
            noun = item.shape or "thing"
            assert (f"{noun}s" in item.text.split()) == (len(item.targets) > 1)
            assert "{" not in item.text


def test_it_is_made_from_the_command_line_and_found_again(tmp_path, capsys):
    arguments = ["--benchmark", "mevis", "--workers", "1", "--out", str(tmp_path / "tree")]
    assert main([*arguments, *(f"--size={name}={count}" for name, count in SIZES.items())]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:3] for line in lines[1:]] == [
        ["train", "5", "clips"],
        ["valid", "1", "clips"],
        ["valid_u", "3", "clips"],
    ]
    first, again = (ensure_avshapes("mevis", sizes=SIZES, cache_dir=tmp_path, workers=1) for _ in range(2))
    assert first == again
