import numpy as np
import pytest
import torch

from datamodules.avshapes.world import COLORS
from datamodules.avshapes_boxes import (
    AVShapesBoxesDataModule,
    DetectionBatch,
    DetectionBatches,
    RemainingSteps,
    draw_batch,
    tight_box,
)
from datamodules.errors import ConfigError

SMALL = {"scenes": 3, "frames_per_scene": 2, "queries": 12, "side": 112}


def batch(key: tuple[int, ...] = (0, 1, 2), **settings) -> DetectionBatch:
    return draw_batch(np.random.default_rng(key), key, **{**SMALL, **settings})


def test_a_tight_box_is_half_open():
    """Rows 2 to 4 and columns 1 to 6 are True: the box ends one past the last of each."""
    mask = np.zeros((8, 9), dtype=bool)
    mask[2:5, 1:7] = True
    assert tight_box(mask) == (1, 2, 7, 5)


def test_the_same_key_gives_the_same_batch():
    first, second, other = batch(), batch(), batch((0, 1, 3))
    for name, value in vars(first).items():
        same = torch.equal(value, getattr(second, name)) if isinstance(value, torch.Tensor) else None
        assert same or value == getattr(second, name)
    assert not torch.equal(first.images, other.images)


def test_shapes_agree():
    found = batch()
    things = len(found.image_of)
    assert found.images.shape == (6, 3, 112, 112)
    assert found.boxes.shape == (things, 4)
    assert found.masks.shape == (things, 112, 112)
    assert found.matches.shape == (things, 12) == (things, len(found.texts))
    assert int(found.image_of.max()) < 6


def test_boxes_hold_all_visible_pixels_and_touch_them_on_every_side():
    found = batch()
    for box, mask in zip((found.boxes * 112).round().int().tolist(), found.masks, strict=True):
        left, top, right, bottom = box
        assert mask.sum() == mask[top:bottom, left:right].sum()
        assert all(edge.any() for edge in (mask[top], mask[bottom - 1], mask[:, left], mask[:, right - 1]))


def test_matches_say_what_the_pixels_show():
    """Where a text names a color, the things it matches have that color under their masks."""
    found = batch(scenes=8, queries=40)
    checked = 0
    for index, (image, mask) in enumerate(zip(found.image_of, found.masks, strict=True)):
        if mask.sum() < 40:
            continue
        shown = found.images[image][:, mask].float().median(dim=1).values
        nearest = min(COLORS, key=lambda name: float((shown - torch.tensor(COLORS[name])).abs().sum()))
        for text, is_true in zip(found.texts, found.matches[index].tolist(), strict=True):
            named = [color for color in COLORS if color in text.replace(".", "").replace(",", "").split()]
            if is_true and named:
                assert named == [nearest]
                checked += 1
    assert checked > 10


def test_specks_do_not_count():
    found = batch((0, 1, 8))
    sizes = found.masks.sum(dim=(1, 2))
    assert torch.equal(found.counts, sizes >= 15)
    assert not found.counts.all()


def test_moving_to_a_device_keeps_the_texts():
    found = batch().to("meta")
    assert found.images.device.type == "meta"
    assert found.texts == batch().texts


def test_the_batch_of_a_step_is_the_same_in_every_run():
    batches = DetectionBatches((0, 10), steps=5, **SMALL)
    assert torch.equal(batches[3].images, DetectionBatches((0, 10), steps=9, **SMALL)[3].images)
    with pytest.raises(IndexError, match="step 5 of 5"):
        batches[5]


def test_a_continued_run_asks_where_it_stands_when_it_begins_and_keeps_its_length():
    taken = [0]
    steps = RemainingSteps(5, taken=lambda: taken[0])
    taken[0] = 3
    assert list(steps) == [3, 4]
    assert len(steps) == 5


def test_the_data_module_serves_different_scenes_for_training_and_validation():
    data = AVShapesBoxesDataModule(steps=2, val_batches=1, **SMALL)
    train, val = list(data.train_dataloader()), list(data.val_dataloader())
    assert (len(train), len(val)) == (2, 1)
    assert not torch.equal(train[0].images, val[0].images)


def test_all_counts_below_one_are_named_at_once():
    with pytest.raises(ConfigError) as error:
        AVShapesBoxesDataModule(scenes=0, queries=-1)
    assert "data.scenes is 0; expected at least 1" in str(error.value)
    assert "data.queries is -1; expected at least 1" in str(error.value)
