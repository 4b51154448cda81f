"""Frames in memory read as they do from their folder."""

import numpy as np
import pytest
from PIL import Image

from datamodules import kept_frames
from datamodules.errors import MediaError
from datamodules.kept_frames import KeptFrames, with_frames_kept
from datamodules.media import FolderFrames
from datamodules.records import Clip, FrameBudget


@pytest.fixture
def folder(tmp_path) -> FolderFrames:
    rng = np.random.default_rng(0)
    files = [tmp_path / f"{index}.png" for index in range(4)]
    for file in files:
        Image.fromarray(rng.integers(0, 255, (30, 50, 3), dtype=np.uint8)).save(file)
    return FolderFrames(files, fps=2.0, clip_id="clip")


def clip_of(frames: FolderFrames) -> Clip:
    budget = FrameBudget(glance_frames=2, glance_max_pixels=600, close_up_max_pixels=1000)
    return Clip(id="clip", task="refavs", split="train", kind="seen", expression="x", frames=frames, budget=budget)


@pytest.mark.parametrize("max_pixels", [None, 1500, 700, 1])
def test_every_size_reads_as_from_the_folder(folder, max_pixels):
    kept = KeptFrames(folder)
    assert (kept.count, kept.fps, kept.size) == (4, 2.0, (30, 50))
    for indices in ([3, 0, 3], [], range(4)):
        expected = folder.read(indices, max_pixels=max_pixels)
        np.testing.assert_array_equal(kept.read(indices, max_pixels=max_pixels), expected)


def test_nothing_is_read_from_the_folder_afterwards(folder):
    clip = with_frames_kept(clip_of(folder))
    glance, close_up = clip_of(folder).glance.frames, clip_of(folder).close_up([2])
    for file in folder.files:
        file.unlink()
    np.testing.assert_array_equal(clip.glance.frames, glance)
    np.testing.assert_array_equal(clip.close_up([2]), close_up)


def test_what_is_handed_out_may_be_written_to(folder):
    kept = KeptFrames(folder)
    before = kept.read([1])
    kept.read([1])[:] = 0
    np.testing.assert_array_equal(kept.read([1]), before)


def test_large_clips_stay_in_their_folder(folder, monkeypatch):
    clip = clip_of(folder)
    monkeypatch.setattr(kept_frames, "MOST_BYTES", 4 * 30 * 50 * 3 - 1)
    assert with_frames_kept(clip) is clip
    monkeypatch.setattr(kept_frames, "MOST_BYTES", 4 * 30 * 50 * 3)
    assert isinstance(with_frames_kept(clip).frames, KeptFrames)


def test_broken_frames_and_wrong_indices_are_named_as_ever(folder):
    with pytest.raises(IndexError, match="clip"):
        KeptFrames(folder).read([4])
    folder.files[2].write_bytes(b"no picture")
    with pytest.raises(MediaError, match=r"clip: frame .*2\.png"):
        with_frames_kept(clip_of(folder))
