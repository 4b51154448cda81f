import numpy as np
import pytest
import torch

from datamodules.avshapes.world import UNSEEN_LOOKS
from datamodules.avshapes_video import AVShapesVideoDataModule, HeldOutCases, SceneFrames, TrainWindows, tracking_case
from datamodules.avshapes_windows import WindowBatch, WindowShape, _draw_span, draw_windows, jitter_box
from datamodules.errors import ConfigError

SIDE = 64


def windows(shape: WindowShape, key: tuple[int, ...] = (0, 0, 1), jitter: float = 0.2) -> WindowBatch:
    return draw_windows(np.random.default_rng(key), key, shape, side=SIDE, jitter=jitter)


def tight(mask: torch.Tensor) -> list[float]:
    rows, columns = mask.any(dim=1).nonzero(), mask.any(dim=0).nonzero()
    return [float(columns.min()), float(rows.min()), float(columns.max()) + 1, float(rows.max()) + 1]


def test_shapes_agree():
    found = windows(WindowShape(clips=3, frames=4, prompts=2))
    rows = len(found.clip)
    assert found.frames.shape == (3, 4, 3, SIDE, SIDE)
    assert found.frames.dtype == torch.uint8
    assert found.masks.shape == (rows, 4, SIDE, SIDE)
    assert found.boxes.shape == (rows, 2, 4)
    assert sorted(set(found.clip.tolist())) == [0, 1, 2]
    assert len(set(found.prompted)) == 2
    assert list(found.prompted) == sorted(found.prompted)


def test_the_same_key_gives_the_same_batch_and_another_key_another():
    shape = WindowShape(clips=2, frames=3)
    one, again, other = windows(shape), windows(shape), windows(shape, (0, 0, 2))
    assert torch.equal(one.frames, again.frames)
    assert torch.equal(one.boxes, again.boxes)
    assert torch.equal(one.masks, again.masks)
    assert not torch.equal(one.frames, other.frames)


def test_without_jitter_boxes_are_tight_on_every_prompted_frame():
    found = windows(WindowShape(clips=3, frames=4, prompts=2), jitter=0.0)
    for row, boxes in enumerate(found.boxes):
        for frame, box in zip(found.prompted, boxes, strict=True):
            assert box.tolist() == tight(found.masks[row, frame])


def test_a_mask_covers_pixels_that_stand_out():
    """Every visible thing is brighter in some channel than the dark background around it."""
    found = windows(WindowShape(clips=4, frames=1))
    covered = torch.zeros(4, SIDE, SIDE, dtype=torch.bool)
    for clip, mask in zip(found.clip, found.masks[:, 0], strict=True):
        assert not (covered[clip] & mask).any()
        covered[clip] |= mask
        assert found.frames[clip, 0][:, mask].float().amax(dim=0).mean() > 150


def test_windows_with_absence_are_preferred():
    """Half of the rows that never vanish are left out; rows that do are all kept: more than 10 % absent frames."""
    batches = [windows(WindowShape(clips=6, frames=10), (0, 0, step)) for step in range(8)]
    away = [~batch.masks.flatten(2).any(dim=2) for batch in batches]
    assert torch.cat(away).float().mean() > 0.1
    for batch, absent in zip(batches, away, strict=True):
        assert not absent[:, list(batch.prompted)].any()


def test_prompts_fall_on_every_position_and_mostly_on_the_first():
    positions = [windows(WindowShape(clips=1, frames=4), (0, 0, step)).prompted[0] for step in range(60)]
    assert set(positions) == {0, 1, 2, 3}
    assert positions.count(0) > 25


def test_jittered_boxes_stay_inside_and_keep_an_area():
    rng = np.random.default_rng(0)
    mask = np.zeros((20, 30), dtype=bool)
    mask[0:3, 25:30] = True
    for _ in range(200):
        x1, y1, x2, y2 = jitter_box(rng, mask, 0.9)
        assert 0 <= x1 <= x2 - 1 + 1e-5 <= 29 + 1e-4
        assert 0 <= y1 <= y2 - 1 + 1e-5 <= 19 + 1e-4


def test_rough_boxes_look_like_a_detectors():
    """Sides moved by up to 0.15 of the box leave a mean IoU near 0.75 with the tight box."""
    rng = np.random.default_rng(0)
    mask = np.zeros((200, 200), dtype=bool)
    mask[50:150, 60:140] = True
    ious = []
    for _ in range(400):
        x1, y1, x2, y2 = jitter_box(rng, mask, 0.15)
        overlap = (min(x2, 140) - max(x1, 60)) * (min(y2, 150) - max(y1, 50))
        ious.append(overlap / ((x2 - x1) * (y2 - y1) + 8000 - overlap))
    assert 0.7 < np.mean(ious) < 0.8


def strides(shape: WindowShape, count: int = 40) -> set[int]:
    """Distances between neighboring frames of drawn windows."""
    rngs = [np.random.default_rng(seed) for seed in range(count)]
    return {abs(span[1] - span[0]) for span in (_draw_span(rng, 10, shape) for rng in rngs)}


def test_strides_go_up_to_what_is_asked_for_and_what_fits():
    assert strides(WindowShape(clips=1, frames=5)) == {1}
    assert strides(WindowShape(clips=1, frames=4, stride=2)) == {1, 2}
    assert strides(WindowShape(clips=1, frames=5, stride=9)) == {1, 2}
    assert strides(WindowShape(clips=1, frames=2, stride=9), count=200) == set(range(1, 10))
    assert strides(WindowShape(clips=1, frames=10, stride=9)) == {1}


def test_spans_stay_in_the_clip_and_run_both_ways():
    rng = np.random.default_rng(0)
    spans = [_draw_span(rng, 10, WindowShape(clips=1, frames=4, stride=3)) for _ in range(200)]
    for span in spans:
        assert len(set(np.diff(span))) == 1
        assert 0 <= min(span) <= max(span) <= 9
    assert {span[0] for span in spans} == set(range(10))
    assert _draw_span(rng, 10, WindowShape(clips=1, frames=1, stride=9))[0] in range(10)


TRAIN = {"pair_steps": 4, "video_steps": 6, "side": SIDE, "images": 3, "window_clips": 4, "window_frames": 5}


def train_windows(**changes) -> TrainWindows:
    return TrainWindows(0, **{**TRAIN, "image_share": 3, "jitter": 0.2, **changes})


def test_stages_follow_each_other():
    """Steps of pairs and of frames in turns; then short and whole windows, of every three steps one with pairs and one
    with frames again. A short batch has 4 x 5 frames, so a batch of whole clips of 10 frames holds 2."""
    shapes = [tuple(batch.frames.shape[:2]) for batch in (train_windows()[step] for step in range(10))]
    assert shapes == [(3, 2), (3, 1), (3, 2), (3, 1), (4, 5), (3, 2), (3, 1), (2, 10), (3, 2), (3, 1)]


def test_pairs_begin_as_neighbors_and_end_as_far_apart_as_the_clip_is_long():
    windows = train_windows(pair_steps=40)
    widest = [windows.shape(np.random.default_rng(0), step).stride for step in range(0, 40, 2)]
    assert widest[0] == 1
    assert widest == sorted(widest)
    assert widest[10:] == [9] * 10


def test_a_continued_run_sees_what_it_would_have_seen():
    later = train_windows(first_step=8)
    assert len(later) == 2
    assert torch.equal(later[0].frames, train_windows()[8].frames)


def test_steps_end():
    with pytest.raises(IndexError, match="step 10 of 10"):
        train_windows()[10]
    with pytest.raises(IndexError, match="case 3 of 3"):
        HeldOutCases(0, count=3, size=SIDE, jitter=0.1)[3]


def test_a_case_asks_about_the_frame_where_most_is_visible():
    case = tracking_case((0, 1, 5), size=SIDE, jitter=0.0)
    (found,) = case.grounding.keyframes
    areas = case.clip.masks.areas[:, 0]
    assert found.frame == areas.argmax()
    assert found.boxes[0].tolist() == case.clip.masks.boxes(found.frame)[0].tolist()
    assert case.clip.masks.size == case.clip.frames.size == (SIDE, SIDE)
    assert case.clip.masks.frames == case.clip.frames.count


def test_cases_show_no_held_out_look_and_differ():
    names = [HeldOutCases(0, count=30, size=SIDE, jitter=0.1)[index].clip.expression for index in range(30)]
    held_out = {f"the {color} {shape}" for color, shape in UNSEEN_LOOKS}
    assert not held_out & set(names)
    assert len(set(names)) > 8


def test_frames_are_rendered_on_demand_at_the_asked_size():
    frames = tracking_case((0, 1, 5), size=SIDE, jitter=0.0).clip.frames
    assert isinstance(frames, SceneFrames)
    both = frames.read([3, 1])
    assert both.shape == (2, SIDE, SIDE, 3)
    assert np.array_equal(both[1], frames.read([1])[0])
    assert frames.read([0], max_pixels=32 * 32 + 5).shape == (1, 32, 32, 3)
    assert frames.read([0], max_pixels=10**6).shape == (1, SIDE, SIDE, 3)


def test_the_data_module_serves_both():
    data = AVShapesVideoDataModule(**TRAIN, image_share=3, val_cases=2, case_size=SIDE)
    steps = list(data.train_dataloader())
    assert len(steps) == 10
    assert torch.equal(steps[8].frames, train_windows(jitter=0.25)[8].frames)
    assert [case.clip.id for case in data.val_dataloader()] == ["avshapes/0/1/0", "avshapes/0/1/1"]


def test_batches_move_and_cases_stay():
    data = AVShapesVideoDataModule(**TRAIN)
    case = tracking_case((0, 1, 5), size=SIDE, jitter=0.0)
    assert data.transfer_batch_to_device(case, torch.device("cpu"), 0) is case
    moved = data.transfer_batch_to_device(windows(WindowShape(clips=1, frames=2)), torch.device("meta"), 0)
    assert {moved.frames.device.type, moved.clip.device.type, moved.boxes.device.type, moved.masks.device.type} == {
        "meta"
    }


def test_all_wrong_settings_are_named_at_once():
    with pytest.raises(ConfigError) as error:
        AVShapesVideoDataModule(images=0, window_frames=11, image_share=1, val_cases=-1)
    for text in (
        "data.images must be at least 1, found 0.",
        "data.val_cases must be at least 1, found -1.",
        "data.window_frames must be 3..10, found 11.",
        "data.image_share must be at least 2, found 1.",
    ):
        assert text in str(error.value)
