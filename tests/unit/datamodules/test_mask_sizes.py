"""Ground truth of another size than the frames: what is served, and what is scored."""

import numpy as np
import pytest
import torch
from benchmark_trees import FRAMES, PLAIN, SIZE, disk
from PIL import Image

from callbacks.predictions import write_masks
from datamodules.masks import MaskTrack
from datamodules.records import ParseReport, Plan, Rollout
from datamodules.refavs import RefAVS
from lightning_modules.evaluation import place_of
from metrics.clips import official_scores, score_clip
from metrics.score.__main__ import score

HALF, TWICE = (SIZE[0] // 2, SIZE[1] // 2), (2 * SIZE[0], 2 * SIZE[1])


@pytest.fixture
def halved(refavs_root):
    """The masks of one target lie at half the size of the frames, that of frame 4 at twice the size."""
    for index, path in enumerate(sorted((refavs_root / "gt_mask" / PLAIN / "fid_2").iterdir())):
        if index != 4:
            Image.open(path).resize(HALF[::-1], Image.Resampling.NEAREST).save(path)
    return RefAVS(refavs_root, split="test_s")[0]


def test_masks_come_at_the_size_of_the_frames_and_as_they_are_stored(halved):
    assert halved.masks.size == SIZE
    assert [track.size for track in halved.masks.stored] == [TWICE if index == 4 else HALF for index in range(FRAMES)]
    assert [track.size for track in halved.masks.subset([4, 5]).stored] == [TWICE, HALF]


def test_masks_of_the_frames_size_are_kept_once(refavs_root):
    assert RefAVS(refavs_root, split="test_u")[0].masks.stored == ()


def test_what_is_written_scores_what_was_reported(halved, refavs_root, tmp_path):
    """The same masks through the files of `predict` and the scorer, and as `test` scores them: equal to rounding."""
    moved = np.stack([disk(SIZE, (11, 8 + index), 7) for index in range(FRAMES)])
    plan, ids = Plan((), False, ParseReport(is_well_formed=True)), torch.zeros(1, dtype=torch.long)
    masks = MaskTrack.from_dense(moved[:, None])
    rollout = Rollout(halved, 0, "", ids, torch.zeros(1), False, plan, masks=masks)
    write_masks(rollout, tmp_path / "out" / halved.video / halved.expression_id, halved.frame_names)
    settings = {"rules": "refavs", "is_null": False, "plan_absent": False, "place": place_of(halved)}
    reported = official_scores([score_clip("seen", masks, halved.masks, **settings)])["refavs"]

    scored = score("refavs", refavs_root, tmp_path / "out", splits=["test_s"], workers=1).scores
    assert {key: scored[key] for key in reported} == pytest.approx(reported, abs=1e-12)
    assert 0.2 < reported["test_s/J"] < 0.95
