from pathlib import Path

import numpy as np
import pytest

from datamodules.avshapes.make import write_tree
from datamodules.avshapes.settings import make_settings
from datamodules.avshapes.truth import TRUTH_FILE, Truth, read_truth
from datamodules.refavs import RefAVS
from datamodules.revos import ReVOS

REFAVS_SIZES = {"train": 2, "val": 0, "test_s": 1, "test_u": 1, "test_n": 2, "null_train": 1, "null_val": 0}


def write_without_truth(benchmark: str, sizes: dict[str, int], root: Path) -> list[Truth]:
    """Write a tree, take its truth file away and return what it said."""
    write_tree(make_settings(benchmark, seed=4, sizes=sizes), root, workers=1)
    truths = read_truth(root)
    (root / TRUTH_FILE).unlink()
    return truths


def test_the_refavs_reader_serves_every_row_without_the_truth(tmp_path):
    root = tmp_path / "tree"
    truths = {int(truth.expression_id): truth for truth in write_without_truth("refavs", REFAVS_SIZES, root)}
    served = 0
    for split in ("train", "test_s", "test_u", "test_n"):
        reader = RefAVS(root, split=split)
        for row, clip in zip(reader.rows, reader, strict=True):
            truth = truths[row.number]
            served += 1
            assert (clip.video, clip.is_null) == (truth.clip, truth.targets == ())
            assert clip.expression == truth.text.lower().rstrip(".")
            assert clip.audio.shape == (160_000,)
            assert clip.frames.read([0, 9]).shape == (2, 224, 224, 3)
            if truth.targets:
                areas = truth.things[truth.targets[0]].areas
                assert clip.masks.areas[:, 0] / 224**2 == pytest.approx(np.array(areas), abs=1e-5)
    assert served == len(truths)


def test_the_revos_reader_serves_every_question_without_the_truth(tmp_path):
    root = tmp_path / "tree"
    written = write_without_truth("revos", {"train": 3, "valid": 1}, root)
    truths = {(truth.clip, truth.expression_id): truth for truth in written}
    clips = [clip for split in ("train", "valid") for clip in ReVOS(root, split=split)]

    assert len(clips) == len(truths)
    for clip in clips:
        truth = truths[clip.video, clip.expression_id]
        assert clip.is_null == (truth.targets == ())
        areas = np.array([truth.things[target].areas for target in truth.targets]).reshape(-1, 10).T
        assert clip.masks.areas / 224**2 == pytest.approx(areas, abs=1e-5)
