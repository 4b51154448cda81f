import numpy as np
import pytest
from benchmark_trees import write_video
from hypothesis import given
from hypothesis import strategies as st
from small_models import ArrayFrames

from datamodules.records import Clip, FrameBudget
from datamodules.refavs import RefAVS
from datamodules.revos import ReVOS
from datamodules.thinning import spread
from datamodules.video import VideoFrames


def long_clip(total, fps, shown):
    frames = ArrayFrames(np.zeros((total, 1, 1, 3), dtype=np.uint8), fps=fps)
    return Clip("long", "video", "predict", "video", "it", frames, FrameBudget(glance_frames=shown))


@given(st.integers(1, 300), st.integers(1, 300))
def test_spread_begins_at_the_start_and_keeps_the_order(total, wanted):
    indices = spread(total, wanted)

    assert len(indices) == min(total, wanted)
    assert list(indices) == sorted(set(indices))
    assert indices[0] == 0
    assert indices[-1] < total
    assert spread(total, None) == tuple(range(total))


def test_spread_by_hand():
    """Ten frames, four picked: at 0, 2.5, 5 and 7.5 frames of time, frames 0, 2, 5 and 7 are on screen."""
    assert spread(10, 4) == (0, 2, 5, 7)


@given(st.integers(1, 300), st.integers(1, 40), st.sampled_from([0.5, 1.0, 2.0, 29.97]))
def test_a_shown_frame_is_on_screen_at_the_time_that_the_glance_says(total, shown, fps):
    """So an answer that names the time of a shown frame picks that very frame."""
    clip = long_clip(total, fps, shown)
    times = [number / clip.glance.fps for number in range(len(clip.glance.indices))]

    assert all(abs(index / fps - time) < 1 / fps for index, time in zip(clip.glance.indices, times, strict=True))
    assert [clip.frame_at(time) for time in times] == list(clip.glance.indices)


def test_a_minute_by_hand():
    """60 frames at 1 per second, 16 shown at 0.2667 per second: the last is announced at 56.25 s, and is frame 56."""
    glance = long_clip(60, 1.0, 16).glance

    assert glance.indices[-1] == 56
    assert 15 / glance.fps == pytest.approx(56.25)


def test_thinned_clips_of_every_reader_are_on_time(refavs_root, revos_root, tmp_path):
    """Brightness grows by 10 per stored frame, so it tells which frame of the file is shown."""
    served = [
        (1.0, RefAVS(refavs_root, split="train", clip_frames=4)[0].frames),
        (2.0, ReVOS(revos_root, split="train", clip_frames=3)[0].frames),
        (2.0, VideoFrames.open(write_video(tmp_path / "v.mp4"), clip_id="v", fps=2.0, max_frames=3)),
    ]
    for stored_fps, frames in served:
        levels = frames.read(range(frames.count)).reshape(frames.count, -1).mean(axis=1)
        stored = ((levels - levels[0]) / 10).round()
        assert np.abs(stored - stored_fps * np.arange(frames.count) / frames.fps).max() < 1
