import pickle

import pytest
from benchmark_trees import NumberedClips
from PIL import Image

from datamodules.errors import MediaError
from datamodules.refavs import RefAVS
from datamodules.serving import ClipSet, Place, check_frames, read_ahead


def break_frame(root, clip, frame):
    path = root / "media" / clip.video / "frames" / f"{frame}.jpg"
    path.write_bytes(path.read_bytes()[:100])


def test_clips_are_read_ahead_where_they_are_served(refavs_root):
    clip = ClipSet(RefAVS(refavs_root, split="train"))[Place(0, 1)].clip

    assert {"glance", "audio", "masks"} <= set(vars(clip))
    assert {"glance", "audio", "masks"} <= set(vars(pickle.loads(pickle.dumps(clip))))


def test_reading_ahead_can_be_replaced(refavs_root):
    seen = []
    clip = ClipSet(RefAVS(refavs_root, split="train"), prefetch=seen.append)[Place(0, 1)].clip

    assert seen == [clip]
    assert "glance" not in vars(clip)


def test_places_point_into_what_was_chosen():
    clips = ClipSet(NumberedClips(9), chosen=[4, 7])

    assert len(clips) == 2
    assert [clips[Place(0, position)].clip.id for position in range(2)] == ["4v0", "7v0"]
    assert len(ClipSet(NumberedClips(9))) == 9


def test_every_epoch_and_every_repeat_is_a_visit_of_its_own():
    """Prompt 4 is listed twice: visits 0 and 1 in epoch 0, visits 2 and 3 in epoch 1; prompt 7 once per epoch."""
    clips = ClipSet(NumberedClips(9), chosen=[4, 4, 7])

    served = [[clips[Place(epoch, position)].clip.id for position in range(3)] for epoch in range(2)]
    assert served == [["4v0", "4v1", "7v0"], ["4v2", "4v3", "7v1"]]


def test_every_epoch_may_visit_what_the_first_one_did():
    """Repeats within an epoch stay visits of their own; a run does not go on with the other rule."""
    kept, others = (ClipSet(NumberedClips(9), chosen=[4, 4, 7], same_questions=same) for same in (True, False))

    assert [[kept[Place(epoch, at)].clip.id for at in range(3)] for epoch in (0, 3)] == [["4v0", "4v1", "7v0"]] * 2
    assert kept.fingerprint != others.fingerprint


def test_a_broken_clip_stops_the_run_unless_told_otherwise(refavs_root):
    reader = RefAVS(refavs_root, split="train")
    break_frame(refavs_root, reader[0], 5)

    with pytest.raises(MediaError, match=r"refavs/train/0:.*5\.jpg cannot be decoded"):
        ClipSet(reader)[Place(0, 0)]


def test_in_training_the_next_prompt_stands_in_for_a_broken_one(refavs_root):
    reader = RefAVS(refavs_root, split="train")
    break_frame(refavs_root, reader[3], 0)
    clips = ClipSet(reader, on_bad_sample="skip", replaces_bad=True)

    served = clips[Place(0, 3)]

    assert served.clip.id == reader[0].id
    assert [clip_id for clip_id, _ in served.problems] == [reader[3].id]
    assert "0.jpg cannot be decoded" in served.problems[0][1]
    assert clips[Place(0, 1)].problems == ()


def test_in_evaluation_nothing_stands_in(refavs_root):
    reader = RefAVS(refavs_root, split="train")
    break_frame(refavs_root, reader[3], 0)

    served = ClipSet(reader, on_bad_sample="skip")[Place(0, 3)]

    assert served.clip is None
    assert len(served.problems) == 1


def test_skipping_also_finds_frames_that_no_glance_shows(refavs_root):
    """Of ten frames the glance shows 0, 3 and 6; frame 7 would break in the middle of a step."""
    from datamodules.records import FrameBudget

    reader = RefAVS(refavs_root, split="train", budget=FrameBudget(glance_frames=3))
    break_frame(refavs_root, reader[0], 7)
    assert reader[0].glance.indices == (0, 3, 6)

    assert ClipSet(reader)[Place(0, 0)].clip is not None
    assert ClipSet(reader, on_bad_sample="skip")[Place(0, 0)].clip is None


@pytest.mark.parametrize("part", ["sound", "mask"])
def test_broken_sound_and_masks_are_skipped_too(refavs_root, part):
    reader = RefAVS(refavs_root, split="train")
    media, masks = refavs_root / "media" / reader[0].video, refavs_root / "gt_mask" / reader[0].video / "fid_2"
    (media / "audio.wav" if part == "sound" else masks / "00006.png").write_bytes(b"")

    assert part in ClipSet(reader, on_bad_sample="skip")[Place(0, 0)].problems[0][1]


def test_when_every_clip_is_broken_the_run_stops(refavs_root):
    reader = RefAVS(refavs_root, split="train")
    for clip in reader:
        break_frame(refavs_root, clip, 0)

    with pytest.raises(MediaError, match="none of the 4 clips can be read; the first problem: refavs/train/"):
        ClipSet(reader, on_bad_sample="skip", replaces_bad=True)[Place(0, 2)]


def test_errors_that_are_not_about_media_are_never_skipped():
    def fail(clip):
        raise KeyError(clip.id)

    with pytest.raises(KeyError, match="0v0"):
        ClipSet(NumberedClips(2), on_bad_sample="skip", prefetch=fail)[Place(0, 0)]


def test_checking_frames_keeps_none(refavs_root):
    clip = RefAVS(refavs_root, split="train")[0]
    check_frames(clip)

    assert set(vars(clip)).isdisjoint({"glance", "audio", "masks"})


def test_reading_ahead_keeps_what_later_steps_read(refavs_root, monkeypatch):
    clip = RefAVS(refavs_root, split="train")[0]
    read_ahead(clip)
    monkeypatch.setattr(Image, "open", lambda path: pytest.fail(f"{path} was read again"))

    assert clip.glance.frames.shape[0] == 10
    assert clip.masks.frames == 10
