import csv
import pickle
import shutil

import numpy as np
import pytest
import soundfile
from benchmark_trees import CROSSED, DASHED, LEFT, MUTED, PLAIN, SIZE, SWAPPED, write_clip, write_masks
from PIL import Image

from datamodules.errors import MediaError
from datamodules.refavs import SPLITS, RefAVS


def level(clip, frame=0):
    """Which clip and frame the pixels come from, told by their brightness."""
    return round(float(clip.frames.read([frame]).mean()))


def test_a_row_becomes_a_clip(refavs_root):
    clip = RefAVS(refavs_root, split="train")[0]

    assert clip.id == f"refavs/train/0:{PLAIN}_cat_1"
    assert (clip.task, clip.split, clip.kind, clip.is_null) == ("refavs", "train", "seen", False)
    assert clip.expression == 'the cat, "the big one"'
    assert (clip.video, clip.expression_id) == (PLAIN, "00000_cat_1")
    assert (clip.frames.count, clip.frames.fps, clip.frames.size) == (10, 1.0, SIZE)
    assert [level(clip, frame) for frame in (0, 9)] == [20, 110]
    assert clip.duration_s == 10


def test_useless_rows_are_left_out_of_training_only(refavs_root):
    """Of seven training rows one says "NO." and one is a message of the annotation tool; the TODO row is no split."""
    assert [clip.expression for clip in RefAVS(refavs_root, split="train")] == [
        'the cat, "the big one"',
        "the hair-dryer, making a sound",
        "the first object to make a sound",
        "the sounding object",
    ]
    assert RefAVS(refavs_root, split="val")[0].expression == "no"


@pytest.mark.parametrize(
    ("split", "kinds"),
    [
        ("train", ["seen", "seen", "null", "null"]),
        ("val", ["seen", "null"]),
        ("test_s", ["seen"]),
        ("test_u", ["unseen", "unseen"]),
        ("test_n", ["null"]),
    ],
)
def test_kinds_follow_split_and_category(refavs_root, split, kinds):
    reader = RefAVS(refavs_root, split=split)

    assert [clip.kind for clip in reader] == kinds
    assert reader.nulls == tuple(kind == "null" for kind in kinds)


def test_rows_with_the_same_uid_keep_their_own_targets(refavs_root):
    first, second = RefAVS(refavs_root, split="test_u")

    assert first.id != second.id
    assert first.expression_id != second.expression_id
    assert first.video == second.video == DASHED
    assert first.masks.areas[0, 0] < second.masks.areas[0, 0]


def test_a_frame_without_the_target_has_no_mask(refavs_root):
    masks = RefAVS(refavs_root, split="train")[1].masks

    assert (masks.areas[:, 0] > 0).tolist() == [frame != 3 for frame in range(10)]


def test_masks_take_the_size_of_the_frame(refavs_root):
    """Target 2 is stored at 48 x 64, twice the frame; its disk of radius 10 becomes one of radius about 5."""
    masks = RefAVS(refavs_root, split="test_s")[0].masks

    assert masks.size == SIZE
    assert abs(int(masks.areas[0, 0]) - np.pi * 25) < 8


def test_null_clips_have_their_own_pictures_and_no_target(refavs_root):
    """The raw clip has a target 0 that is not empty; the null row has target 0 too and must not find it."""
    clip = RefAVS(refavs_root, split="train")[2]

    assert clip.video == SWAPPED
    assert level(clip) == 60
    assert clip.is_null
    assert (clip.masks.frames, clip.masks.objects, clip.masks.size) == (10, 0, SIZE)
    assert not clip.masks.union().any()


def test_null_clips_need_no_masks_on_disk(refavs_root):
    clip = RefAVS(refavs_root, split="train")[3]

    assert not (refavs_root / "gt_mask" / MUTED).exists()
    assert clip.masks.frames == 10


def test_a_muted_clip_without_a_sound_file_is_silent_for_its_whole_length(refavs_root):
    """Samples and not None: a prompt without sound would look different from all others."""
    audio = RefAVS(refavs_root, split="train")[3].audio

    assert audio.shape == (160_000,)
    assert not audio.any()


@pytest.mark.parametrize("index", [0, 3])
def test_a_sound_file_without_samples_is_silence_too(refavs_root, index):
    clip = RefAVS(refavs_root, split="train")[index]
    soundfile.write(refavs_root / "media" / clip.video / "audio.wav", np.zeros(0), 16_000)

    assert clip.audio.tolist() == [0.0] * 160_000


def test_sound_is_looked_for_in_both_places(refavs_root):
    clip = RefAVS(refavs_root, split="test_n")[0]

    assert not (refavs_root / "media" / CROSSED / "audio.wav").exists()
    assert abs(float(np.abs(clip.audio).max()) - 0.5) < 0.01


@pytest.mark.parametrize(("split", "index", "name"), [("train", 2, SWAPPED), ("train", 0, PLAIN)])
def test_sound_that_is_missing_is_an_error_and_never_taken_from_the_raw_clip(refavs_root, split, index, name):
    (refavs_root / "media" / name / "audio.wav").unlink()
    clip = RefAVS(refavs_root, split=split)[index]

    with pytest.raises(MediaError, match=rf"refavs/train/.*media/{name}/audio\.wav is missing .*media_cross"):
        _ = clip.audio


def test_a_missing_mask_of_an_ordinary_clip_is_an_error(refavs_root):
    (refavs_root / "gt_mask" / PLAIN / "fid_2" / "00004.png").unlink()

    with pytest.raises(MediaError, match=rf"mask .*{PLAIN}/fid_2/00004\.png is missing"):
        _ = RefAVS(refavs_root, split="test_s")[0].masks


@pytest.mark.parametrize("folder", ["REFAVS", "RefAVSBench"])
def test_the_folder_of_the_archive_is_looked_into(refavs_root, tmp_path, folder):
    shutil.move(refavs_root, tmp_path / "outer" / folder)

    assert level(RefAVS(tmp_path / "outer", split="train")[0]) == 20


def test_fewer_frames_keep_the_length_and_their_masks(refavs_root):
    clip = RefAVS(refavs_root, split="train", clip_frames=3)[1]

    assert (clip.frames.count, clip.frames.fps, clip.duration_s) == (3, 0.3, 10)
    assert [level(clip, frame) for frame in range(3)] == [40, 70, 100]
    assert (clip.masks.areas[:, 0] > 0).tolist() == [True, False, True]


def test_positions_count_from_the_end_and_slices_are_lists(refavs_root):
    reader = RefAVS(refavs_root, split="train")

    assert reader[-1].id == reader[3].id
    assert [clip.id for clip in reader[1:3]] == [reader[1].id, reader[2].id]
    with pytest.raises(IndexError):
        reader[4]


def test_making_a_reader_and_its_clips_opens_no_media(refavs_root, no_media):
    clips = [clip for split in SPLITS for clip in RefAVS(refavs_root, split=split)]

    assert len(clips) == 10
    with pytest.raises(AssertionError, match="media was opened"):
        _ = clips[0].glance


def test_a_table_of_many_rows_opens_no_media(tmp_path, no_media):
    """As many rows as the real training split has; there is no media at all."""
    with (tmp_path / "metadata.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["vid", "uid", "split", "fid", "exp"])
        writer.writerows([f"v{n}", f"v{n}_cat_1", "train", n % 5, f"The cat number {n}."] for n in range(14_113))
    reader = RefAVS(tmp_path, split="train")

    assert len(reader) == 14_113
    assert reader[14_000].expression == "the cat number 14000"


def test_clips_travel_with_what_was_read(refavs_root):
    clip = RefAVS(refavs_root, split="train")[0]
    _ = clip.glance, clip.audio, clip.masks
    shutil.rmtree(refavs_root)

    copy = pickle.loads(pickle.dumps(clip))

    assert copy.id == clip.id
    assert (copy.glance.frames == clip.glance.frames).all()
    assert (copy.audio == clip.audio).all()
    assert copy.masks == clip.masks
    with pytest.raises(MediaError, match="is missing"):
        copy.close_up([0])


def test_readers_can_be_sent_to_workers(refavs_root):
    reader = pickle.loads(pickle.dumps(RefAVS(refavs_root, split="train")))

    assert level(reader[0]) == 20


def test_an_unknown_split_is_refused(refavs_root):
    with pytest.raises(ValueError, match="Ref-AVS has no split 'TODO'; it has train, val, test_s, test_u, test_n"):
        RefAVS(refavs_root, split="TODO")


def test_a_mask_that_is_an_indexed_picture_counts_by_color(refavs_root):
    """The tree's helper writes plain masks; this target's are replaced by palette images of index 1 = (0, 0, 0)."""
    write_clip(refavs_root, "new", 30)
    write_masks(refavs_root, "new", 0, [LEFT] * 10)
    for path in (refavs_root / "gt_mask" / "new" / "fid_0").iterdir():
        image = Image.fromarray(LEFT.astype(np.uint8), "P")
        image.putpalette([0, 0, 0, 0, 0, 0])
        image.save(path)
    with (refavs_root / "metadata.csv").open("a", newline="", encoding="utf-8") as file:
        file.write("new,new_cat_1,test_s,0,The cat.\r\n")

    assert not RefAVS(refavs_root, split="test_s")[1].masks.areas.any()
