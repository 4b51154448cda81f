import pickle
import shutil
from collections import Counter

import numpy as np
import pytest
from benchmark_trees import LEFT, OVIS, RIGHT, SIZE, STILL, TAO, UVO, edit_json

from datamodules.errors import MediaError
from datamodules.questions import QuestionRounds
from datamodules.revos import ReVOS


def level(clip, frame):
    return round(float(clip.frames.read([frame]).mean()))


def test_a_question_becomes_a_clip(revos_root):
    clip = ReVOS(revos_root, split="train")[0]

    assert clip.id == f"revos/train/{UVO}/0"
    assert (clip.task, clip.split, clip.video, clip.expression_id) == ("revos", "train", UVO, "0")
    assert (clip.kind, clip.expression) == ("referring", "the two disks")
    assert (clip.frames.count, clip.frames.fps, clip.frames.size) == (4, 2.0, SIZE)
    assert [level(clip, frame) for frame in range(4)] == [20, 30, 40, 50]
    assert clip.audio is None


def test_kinds_and_nulls_follow_type_and_annotations(revos_root):
    reader = ReVOS(revos_root, split="train")

    assert [clip.kind for clip in reader] == [
        "referring",
        "reasoning",
        "non-existent",
        "referring",
        "reasoning",
        "referring",
    ]
    assert reader.nulls == (False, False, True, False, False, False)
    assert reader[1].expression == "which one is on the left?"


def test_a_question_without_annotations_is_null_whatever_its_type(revos_root):
    def change(table):
        table["videos"][OVIS]["expressions"]["0"]["anno_id"] = []

    edit_json(revos_root / "meta_expressions_valid_.json", change)
    clip = ReVOS(revos_root, split="valid")[0]

    assert (clip.kind, clip.is_null, clip.masks.objects) == ("non-existent", True, 0)


def test_a_non_existent_target_has_no_mask_even_if_one_is_listed(revos_root):
    def change(table):
        table["videos"][OVIS]["expressions"]["1"]["anno_id"] = [15]

    edit_json(revos_root / "meta_expressions_valid_.json", change)
    clip = ReVOS(revos_root, split="valid")[1]

    assert (clip.is_null, clip.masks.objects, clip.masks.frames) == (True, 0, 3)


def test_each_object_keeps_its_masks_and_gaps_are_empty(revos_root):
    masks = ReVOS(revos_root, split="train")[0].masks

    assert (masks.frames, masks.objects, masks.size) == (4, 2, SIZE)
    dense = masks.dense()
    assert (dense[0, 0] == LEFT).all()
    assert not dense[1].any()
    assert (dense[2, 1] == RIGHT).all()
    assert masks.counts[3] == (None, None)


def test_overlapping_objects_are_joined(revos_root):
    """The two disks overlap; adding them, as the official scorer does, would give 2 there."""
    masks = ReVOS(revos_root, split="train")[0].masks

    assert (LEFT & RIGHT).any()
    assert (masks.union([2])[0] == (LEFT | RIGHT)).all()


def test_masks_of_another_size_are_brought_to_the_frame(revos_root):
    """Stored at twice the size as a disk of radius 12 around (20, 20)."""
    masks = ReVOS(revos_root, split="valid")[0].masks

    assert masks.size == SIZE
    assert abs(int(masks.areas[0, 0]) - np.pi * 36) < 10


def test_videos_directly_under_the_root_are_found(revos_root):
    clip = next(clip for clip in ReVOS(revos_root, split="train") if clip.video == TAO)

    assert not (revos_root / "JPEGImages" / TAO).exists()
    assert level(clip, 6) == 80


def test_a_root_without_the_released_folder_is_read(revos_root):
    for folder in list((revos_root / "JPEGImages").iterdir()):
        shutil.move(folder, revos_root / folder.name) if not (revos_root / folder.name).exists() else None

    assert level(ReVOS(revos_root, split="valid")[0], 1) == 30


def test_foreground_is_read_when_asked(revos_root):
    clip = ReVOS(revos_root, split="train")[1]

    assert (clip.foreground.union()[2] == (LEFT | RIGHT)).all()
    assert clip.foreground.areas[[1, 3], 0].tolist() == [0, 0]
    assert clip.foreground.objects == 1


def test_without_a_foreground_file_there_is_no_foreground(revos_root):
    (revos_root / "mask_dict_foreground.json").unlink()

    assert ReVOS(revos_root, split="train")[0].foreground is None


def test_fewer_frames_are_spread_evenly_and_keep_the_length(revos_root):
    """Seven frames at 2 per second last 3.5 s; four of them are 0, 1, 3, 5. The disk moves 3 pixels per frame."""
    clip = next(clip for clip in ReVOS(revos_root, split="train", clip_frames=4) if clip.video == TAO)

    assert [level(clip, frame) for frame in range(4)] == [20, 30, 50, 70]
    assert clip.duration_s == pytest.approx(3.5)
    assert clip.frames.fps == pytest.approx(2 * 4 / 7)
    centers = [float(np.argwhere(mask)[:, 1].mean()) for mask in clip.masks.union()]
    assert centers == pytest.approx([4, 7, 13, 19])
    assert ReVOS(revos_root, split="train", clip_frames=4)[0].frames.count == 4


def test_the_order_of_the_table_is_the_order_of_time(revos_root):
    def change(table):
        table["videos"][OVIS]["frames"].reverse()

    edit_json(revos_root / "meta_expressions_valid_.json", change)

    assert [level(ReVOS(revos_root, split="valid")[0], frame) for frame in range(3)] == [40, 30, 20]


def test_names_without_the_trailing_underscore_are_read(revos_root):
    (revos_root / "meta_expressions_valid_.json").rename(revos_root / "meta_expressions_valid.json")

    assert len(ReVOS(revos_root, split="valid")) == 2


def test_unlabeled_questions_have_no_ground_truth(revos_root):
    def change(table):
        for question in table["videos"][OVIS]["expressions"].values():
            del question["anno_id"], question["obj_id"], question["type_id"]

    edit_json(revos_root / "meta_expressions_valid_.json", change)
    clip = ReVOS(revos_root, split="valid")[0]

    assert clip.masks is None
    assert (clip.kind, clip.is_null) == ("referring", False)


def test_only_some_videos_may_be_served(revos_root):
    reader = ReVOS(revos_root, split="train", videos={TAO})

    assert {clip.video for clip in reader} == {TAO}
    assert len(reader) == 2


def test_the_folder_of_the_archive_is_looked_into(revos_root, tmp_path):
    shutil.move(revos_root, tmp_path / "outer" / "ReVOS")

    assert len(ReVOS(tmp_path / "outer", split="train")) == 6


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda masks: masks.pop("12"), "there is no entry '12'"),
        (lambda masks: masks["12"].pop(), "expected one mask for each of the 4 frames, found 3 masks"),
        (lambda masks: masks["12"][2].update(size=[5, 5]), "of a mask of 5x5"),
    ],
)
def test_damaged_masks_name_the_clip_and_the_object(revos_root, change, problem):
    edit_json(revos_root / "mask_dict.json", change)
    clip = ReVOS(revos_root, split="train")[0]

    with pytest.raises(
        MediaError, match=rf"revos/train/{UVO}/0: masks in .*mask_dict\.json.*{problem}.*--data\.on_bad"
    ):
        _ = clip.masks


def test_a_mask_file_that_is_cut_off_names_the_object(revos_root):
    path = revos_root / "mask_dict.json"
    path.write_text(path.read_text()[:-40])

    with pytest.raises(MediaError, match=r"mask_dict\.json, 15: the entry is not valid JSON"):
        _ = ReVOS(revos_root, split="valid")[0].masks


def test_a_missing_mask_file_is_named(revos_root):
    clip = ReVOS(revos_root, split="train")[0]
    (revos_root / "mask_dict.json").unlink()

    with pytest.raises(MediaError, match=r"mask_dict\.json: there is no such file"):
        _ = clip.masks


def test_a_foreground_entry_without_masks_is_named(revos_root):
    edit_json(revos_root / "mask_dict_foreground.json", lambda table: table.update({UVO: {"foreground_ratio": []}}))

    with pytest.raises(MediaError, match="found NoneType"):
        _ = ReVOS(revos_root, split="train")[0].foreground


def test_making_readers_and_clips_opens_no_media_and_no_masks(revos_root, no_media, monkeypatch):
    monkeypatch.setattr("datamodules.revos_masks.open_index", lambda *_, **__: pytest.fail("masks were opened"))
    questions = ReVOS(revos_root, split="train")

    assert len(list(questions)) == 6
    assert len(list(QuestionRounds(questions))) == 2


def test_clips_travel_with_what_was_read_and_without_the_mask_files(revos_root):
    clip = ReVOS(revos_root, split="train")[0]
    _ = clip.glance, clip.masks, clip.foreground
    text = pickle.dumps(clip)
    shutil.rmtree(revos_root)
    copy = pickle.loads(text)

    assert copy.masks == clip.masks
    assert copy.foreground == clip.foreground
    assert b"expressions" not in text


def test_training_asks_every_question_of_a_video_before_any_again(revos_root):
    reader = QuestionRounds(ReVOS(revos_root, split="train"), seed=3)
    asked = [
        [reader.clip(0, visit=visit).expression_id for visit in range(3 * turn, 3 * turn + 3)] for turn in range(20)
    ]

    assert all(sorted(turn) == ["0", "1", "2"] for turn in asked)
    assert len({tuple(turn) for turn in asked}) == 6


def test_what_a_visit_asks_depends_on_seed_video_and_visit_alone(revos_root):
    every = QuestionRounds(ReVOS(revos_root, split="train"), seed=3)
    alone = QuestionRounds(ReVOS(revos_root, split="train", videos={TAO}), seed=3)
    other = QuestionRounds(ReVOS(revos_root, split="train", videos={TAO}), seed=4)

    asked, again, changed = (
        [reader.clip(index, visit=visit).id for visit in range(40)]
        for reader, index in ((every, 1), (alone, 0), (other, 0))
    )
    assert asked == again
    assert asked != changed


def test_videos_of_one_frame_are_left_out_of_training(revos_root):
    questions = ReVOS(revos_root, split="train")

    assert STILL in {clip.video for clip in questions}
    assert {clip.video for clip in QuestionRounds(questions)} == {UVO, TAO}


def test_questions_with_and_without_a_target_can_be_kept_apart(revos_root):
    reader = QuestionRounds(ReVOS(revos_root, split="train"), separates_nulls=True)

    assert reader.nulls == (False, True, False)
    for index, is_null in enumerate(reader.nulls):
        assert {reader.clip(index, visit=visit).is_null for visit in range(8)} == {is_null}
    assert Counter(QuestionRounds(ReVOS(revos_root, split="train")).nulls) == {False: 2}


def test_an_unknown_split_is_refused(revos_root):
    with pytest.raises(ValueError, match="ReVOS has no split 'test'; it has train, valid"):
        ReVOS(revos_root, split="test")
