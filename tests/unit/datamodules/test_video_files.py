import pickle

import numpy as np
import pytest
from benchmark_trees import write_video

from datamodules.errors import MediaError
from datamodules.records import FrameBudget
from datamodules.video import SingleClip, VideoFrames, video_clip


@pytest.fixture(scope="module")
def ten_seconds(tmp_path_factory):
    """20 frames at 2 per second; frame i has the gray value 20 + 10 i."""
    return write_video(tmp_path_factory.mktemp("video") / "v.mp4", sound_s=10.0)


def levels(frames):
    """Which frames of the file these are, told by their brightness."""
    return ((frames.reshape(len(frames), -1).mean(axis=1) - 20) / 10).round().astype(int).tolist()


@pytest.mark.parametrize(
    ("fps", "expected"),
    [(None, list(range(20))), (1.0, list(range(0, 20, 2))), (0.5, [0, 4, 8, 12, 16]), (30.0, list(range(20)))],
)
def test_frames_are_those_on_screen_at_each_time(ten_seconds, fps, expected):
    frames = VideoFrames.open(ten_seconds, clip_id="c", fps=fps)

    assert levels(frames.read(range(frames.count))) == expected
    assert frames.count / frames.fps == 10


def test_a_pace_that_does_not_divide_shows_the_frame_before(ten_seconds):
    """At 1.5 per second, times 0, 2/3, 4/3, 2 fall on frames 0, 1, 2 and 4, which last half a second each."""
    frames = VideoFrames.open(ten_seconds, clip_id="c", fps=1.5)

    assert frames.indices[:4] == (0, 1, 2, 4)
    assert frames.count == 15


def test_a_last_second_that_is_not_full_still_counts(tmp_path):
    path = write_video(tmp_path / "v.mp4", frames=5, fps=2)

    assert VideoFrames.open(path, clip_id="c", fps=1.0).indices == (0, 2, 4)


def test_a_limit_thins_out_evenly_and_lowers_the_pace(ten_seconds):
    frames = VideoFrames.open(ten_seconds, clip_id="c", fps=1.0, max_frames=4)

    assert levels(frames.read(range(4))) == [0, 4, 10, 14]
    assert frames.fps == 0.4


def test_decoding_shrinks_to_the_budget(ten_seconds):
    frames = VideoFrames.open(ten_seconds, clip_id="c", fps=1.0)

    assert frames.size == (48, 64)
    assert frames.read([1], max_pixels=24 * 32).shape == (1, 24, 32, 3)
    assert levels(frames.read([5, 1], max_pixels=24 * 32)) == [10, 2]
    assert frames.read([], max_pixels=24 * 32).shape == (0, 24, 32, 3)


@pytest.mark.parametrize("width", [16, 32, 48, 64, 96, 100])
def test_every_width_can_be_asked_for(tmp_path, width):
    """decord alone fails on 16, 32, 48 and 96, whose padded rows it takes for rows of other channels."""
    path = write_video(tmp_path / "v.mp4", frames=3, size=(240, 320))

    frames = VideoFrames.open(path, clip_id="c").read([2, 0], max_pixels=width * width * 3 // 4)

    assert frames.shape == (2, width * 3 // 4, width, 3)
    assert levels(frames) == [2, 0]


def test_subsets_and_pickles_read_the_same_frames(ten_seconds):
    part = pickle.loads(pickle.dumps(VideoFrames.open(ten_seconds, clip_id="c").subset([3, 7], fps=0.2)))

    assert (part.count, part.fps) == (2, 0.2)
    assert levels(part.read([1, 0])) == [7, 3]


def test_frames_outside_the_clip_are_refused(ten_seconds):
    with pytest.raises(IndexError, match=r"c: frames \[20\] were asked for; the clip has frames 0 to 19"):
        VideoFrames.open(ten_seconds, clip_id="c").read([0, 20])
    with pytest.raises(IndexError, match=r"frames \[-1\] were asked for"):
        VideoFrames.open(ten_seconds, clip_id="c").subset([-1], fps=1.0)


def test_a_clip_of_a_file_has_frames_sound_and_a_clean_expression(ten_seconds):
    clip = video_clip(ten_seconds, " The Red  car. ", budget=FrameBudget(glance_frames=5))

    assert clip.expression == "the red car"
    assert (clip.task, clip.id, clip.video) == ("video", "video/v.mp4", "v")
    assert clip.masks is None
    assert not clip.is_null
    assert clip.glance.frames.shape == (5, 48, 64, 3)
    assert clip.audio is not None
    assert abs(len(clip.audio) - 160_000) < 3200


def test_a_file_without_sound_is_silent(tmp_path):
    assert video_clip(write_video(tmp_path / "v.mp4", frames=4), "it").audio is None


def test_a_missing_file_is_named_with_the_flag(tmp_path):
    with pytest.raises(MediaError, match=r"there is no video file .*nothing\.mp4.*--data\.video"):
        video_clip(tmp_path / "nothing.mp4", "it")


@pytest.mark.parametrize("keep", [0, 10, 2000])
def test_a_broken_file_is_named(tmp_path, ten_seconds, keep):
    path = tmp_path / "broken.mp4"
    path.write_bytes(ten_seconds.read_bytes()[:keep])

    with pytest.raises(MediaError, match=r"c: video .*broken\.mp4 cannot be decoded"):
        VideoFrames.open(path, clip_id="c")


def test_a_file_that_vanishes_is_named_when_it_is_read(tmp_path):
    path = write_video(tmp_path / "v.mp4", frames=4)
    frames = VideoFrames.open(path, clip_id="c")
    path.unlink()

    with pytest.raises(MediaError, match="there is no video file"):
        frames.read([0])


def test_a_single_clip_is_a_reader(ten_seconds):
    reader = SingleClip(video_clip(ten_seconds, "it"))

    assert len(reader) == 1
    assert reader.nulls == (False,)
    assert reader[0] is reader.clip(0, visit=3)
    with pytest.raises(IndexError):
        reader[1]


def test_no_file_stays_open(ten_seconds):
    """Reading a hundred times leaves no more open files than before."""
    import os

    frames = VideoFrames.open(ten_seconds, clip_id="c")
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    for _ in range(100):
        frames.read([0])
    after = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0

    assert after <= before


def test_values_are_colors(tmp_path):
    frames = VideoFrames.open(write_video(tmp_path / "v.mp4", frames=3), clip_id="c").read([0, 2])

    assert frames.dtype == np.uint8
    assert np.abs(frames.astype(int) - np.array([20, 40])[:, None, None, None]).max() <= 4
