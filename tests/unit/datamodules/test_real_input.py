"""A RefAVS tree cut from a video file, served by the data module as it would serve the benchmark.

The video is made here; with OMNI_R1_SAMPLE_VIDEO set, that one is cut as well. The rows are some of the benchmark's
own when OMNI_R1_REFAVS_METADATA is set, else rows of the same form.
"""

import csv
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
from benchmark_trees import write_video
from PIL import Image

from datamodules.audio import read_audio
from datamodules.modules import RefAVSDataModule
from datamodules.refavs import Row, read_table
from datamodules.video import VideoFrames

MADE_UP = [
    Row(0, "--KCIeTv6PM_14000_24000", "--KCIeTv6PM_14000_24000_cat_1", "val", 0, "The object having white fur."),
    Row(1, "AbC_dE-fGh1_0_10000", "AbC_dE-fGh1_0_10000_vacuum-cleaner_2", "train", 1, "The loud object_on the floor."),
    Row(2, "AbC_dE-fGh1_0_10000", "null_c-AbC_dE-fGh1_0_10000_null_3", "train", 0, "The object making a lowest sound"),
    Row(3, "--KCIeTv6PM_14000_24000", "null_m---KCIeTv6PM_14000_24000_null_1", "val", 0, "The sounding object"),
]


def some_rows(folder: Path) -> list[Row]:
    """Two ordinary and two null rows of training and of validation each, of the real table where there is one."""
    source = os.environ.get("OMNI_R1_REFAVS_METADATA")
    if not source:
        return MADE_UP
    (folder / "metadata.csv").write_bytes(Path(source).read_bytes())
    rows = [row for row in read_table(folder) if row.text != "NO."]
    return [
        row
        for split in ("train", "val")
        for is_null in (False, True)
        for row in [row for row in rows if row.split == split and row.is_null == is_null][:2]
    ]


def cut(video: Path, rows: list[Row], root: Path) -> None:
    """Ten frames at one per second and the sound, for every clip; the target is the brighter half of each frame."""
    frames = VideoFrames.open(video, clip_id="cut", fps=1.0).read(range(10))
    sound = read_audio(video, clip_id="cut")
    for row in rows:
        folder, masks = root / "media" / row.folder, root / "gt_mask" / row.folder / f"fid_{row.fid}"
        (folder / "frames").mkdir(parents=True, exist_ok=True)
        masks.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / "audio.wav", sound, 16_000)
        for index, frame in enumerate(frames):
            Image.fromarray(frame).save(folder / "frames" / f"{index}.jpg", quality=95)
            gray = frame.mean(axis=2)
            mask = np.zeros_like(gray, bool) if row.is_null else gray >= np.median(gray)
            Image.fromarray(mask.astype(np.uint8) * 255).save(masks / f"{index:05d}.png")
    with (root / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["vid", "uid", "split", "fid", "exp"])
        writer.writerows([row.vid, row.uid, row.split, row.fid, row.text] for row in rows)


def serve(video: Path, folder: Path) -> None:
    """Cut a tree, then check what training and validation get."""
    rows = some_rows(folder)
    root = folder / "root"
    root.mkdir()
    cut(video, rows, root)
    module = RefAVSDataModule(str(root), val_size=None, num_workers=1)
    module.setup("fit")
    clips = [
        clip for loader in (module.train_dataloader(), module.val_dataloader()) for batch in loader for clip in batch
    ]

    assert sorted(clip.video for clip in clips) == sorted(row.folder for row in rows)
    source = VideoFrames.open(video, clip_id="source", fps=1.0)
    for clip in clips:
        assert clip.frames.size == source.size
        assert clip.glance.frames.shape[0] == 10
        assert clip.glance.frames[0].shape[0] * clip.glance.frames[0].shape[1] <= clip.budget.glance_max_pixels
        # JPEG changes a pixel by a few levels.
        drift = np.abs(clip.frames.read([4]).astype(int) - source.read([4]).astype(int)).mean()
        assert drift < 3
        assert abs(len(clip.audio) / 16_000 - 10) < 0.2
        assert np.abs(clip.audio).max() > 0.05
        assert clip.masks.frames == 10
        share = clip.masks.union().mean()
        assert share == 0 if clip.is_null else share >= 0.5


def test_a_tree_cut_from_a_made_video_is_served(tmp_path):
    serve(write_video(tmp_path / "v.mp4", sound_s=10.0, size=(96, 160)), tmp_path)


def test_a_tree_cut_from_a_real_video_is_served(tmp_path):
    source = os.environ.get("OMNI_R1_SAMPLE_VIDEO")
    if not source:
        pytest.skip("set OMNI_R1_SAMPLE_VIDEO to a video of at least ten seconds with sound to cut a tree from it")
    serve(Path(source), tmp_path)
