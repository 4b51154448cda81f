import shutil
from pathlib import Path

import pytest
from benchmark_trees import LEFT, RIGHT, SIZE, edit_json
from mevis_tree import HELD, ONE, SERVER, STILL, TWO, write_mevis

from datamodules.errors import ConfigError, DataLayoutError, MediaError
from datamodules.layout import check_mevis, main
from datamodules.mevis import TREE, MeViS
from datamodules.modules import MeViSDataModule


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_mevis(tmp_path / "mevis")


def mevis(root, *, stage="fit", **settings):
    module = MeViSDataModule(str(root), **{"val_null_fraction": None, **settings})
    module.setup(stage)
    return module


def clips(loader):
    return [clip for batch in loader for clip in batch]


def test_a_sentence_becomes_a_clip(root):
    first, second = MeViS(root, split="train")[:2]
    assert (first.id, first.task, first.split) == (f"mevis/train/{TWO}/0", "mevis", "train")
    assert (first.expression, first.kind, second.kind) == ("the disks moving right", "multi", "single")
    assert (first.video, first.expression_id, first.position, second.position) == (TWO, "0", 0, 1)
    assert first.frame_names == ("00000", "00001", "00002", "00003")
    assert (first.frames.count, first.frames.fps, first.frames.size, first.audio) == (4, 2.0, SIZE, None)
    assert [round(float(first.frames.read([index]).mean())) for index in range(4)] == [20, 30, 40, 50]


def test_each_object_keeps_its_masks_and_gaps_are_empty(root):
    masks = MeViS(root, split="train")[0].masks
    assert (masks.frames, masks.objects) == (4, 2)
    assert (masks.union([2])[0] == (LEFT | RIGHT)).all()
    assert masks.counts[1] == masks.counts[3] == (None, None)


def test_masks_are_looked_up_in_the_folder_of_the_split(root):
    """Object 1 exists in both splits, with other masks."""
    one, both = MeViS(root, split="valid_u")
    assert (one.masks.dense()[:, 0] == LEFT).all()
    assert both.masks.areas[0, 1] == 0
    assert both.expression_id == "11"


def test_the_split_for_the_server_has_no_ground_truth(root):
    (clip,) = MeViS(root, split="valid")
    assert (clip.kind, clip.is_null, clip.masks, clip.foreground) == ("unlabeled", False, None, None)


def test_masks_in_the_split_for_the_server_are_not_read(root):
    """Somebody copied the file of another split there."""
    shutil.copy(root / "valid_u" / "mask_dict.json", root / "valid")
    edit_json(
        root / "valid" / "meta_expressions.json",
        lambda table: table["videos"][SERVER]["expressions"]["0"].update(anno_id=[1]),
    )
    assert MeViS(root, split="valid")[0].masks is None


def test_an_empty_list_of_objects_is_an_absent_target(root):
    edit_json(
        root / "valid_u" / "meta_expressions.json",
        lambda table: table["videos"][ONE]["expressions"]["0"].update(anno_id=[]),
    )
    clip = MeViS(root, split="valid_u")[0]
    assert (clip.kind, clip.is_null, clip.masks.objects) == ("non-existent", True, 0)


def test_fewer_frames_keep_their_names(root):
    clip = MeViS(root, split="train", clip_frames=2)[0]
    assert clip.frame_names == ("00000", "00002")
    assert (clip.frames.fps, clip.masks.frames) == (1.0, 2)


def test_a_wrapped_archive_is_found(root, tmp_path):
    shutil.move(root, tmp_path / "data" / "MeViS_release")
    assert len(MeViS(tmp_path / "data", split="valid_u")) == 2


def test_an_unknown_split_is_refused(root):
    with pytest.raises(ValueError, match="MeViS has no split 'test'; it has train, valid_u, valid"):
        MeViS(root, split="test")


def test_a_missing_split_is_refused(root):
    shutil.rmtree(root / "valid_u")
    with pytest.raises(DataLayoutError, match=r"there is no valid_u/meta_expressions\.json"):
        MeViS(root, split="valid_u")


def test_a_missing_object_names_file_and_clip(root):
    edit_json(root / "valid_u" / "mask_dict.json", lambda masks: masks.pop("2"))
    with pytest.raises(MediaError, match=rf"mevis/valid_u/{ONE}/11: masks in .*mask_dict\.json: there is no entry '2'"):
        _ = MeViS(root, split="valid_u")[1].masks


def test_names_that_occur_twice_are_refused(root):
    path = root / "valid_u" / "meta_expressions.json"
    path.write_text(path.read_text().replace('"11":', '"0":'))
    where = rf"meta_expressions\.json, videos, {ONE}, expressions"
    with pytest.raises(DataLayoutError, match=f"{where} has two entries called 0"):
        MeViS(root, split="valid_u")


def test_a_good_folder_is_counted(root):
    report = check_mevis(root, every_file=True)
    assert report.facts == (
        "train: 3 videos, 4 expressions (3 single, 1 multi)",
        "valid_u: 1 videos, 2 expressions (1 single, 1 multi)",
        "valid: 1 videos, 1 expressions (1 unlabeled)",
    )
    assert report.warnings == (f"1 videos have fewer than two frames (first: {STILL}); training leaves them out",)


def test_only_the_splits_that_are_there_or_used_are_checked(root):
    shutil.rmtree(root / "train")
    assert len(check_mevis(root).facts) == 2
    with pytest.raises(DataLayoutError, match=r"there is no train/meta_expressions\.json"):
        check_mevis(root, splits=["train"])


def test_everything_wrong_with_a_folder_is_named_at_once(root):
    shutil.rmtree(root / "train" / "JPEGImages" / TWO)
    (root / "valid_u" / "mask_dict.json").unlink()
    edit_json(root / "train" / "mask_dict.json", lambda masks: masks.pop("3"))
    edit_json(root / "valid" / "meta_expressions.json", lambda table: table["videos"].clear())
    with pytest.raises(DataLayoutError, match=r"What is wrong \(4\)") as caught:
        check_mevis(root)
    text = str(caught.value)
    assert f"1 of 3 frames of train are not there; first: {root}/train/JPEGImages/{TWO}/00000.jpg" in text
    assert "1 of 4 objects that are asked about are not in train/mask_dict.json; first: 3" in text
    assert "there is no valid_u/mask_dict.json" in text
    assert "the table of split valid has no video" in text


def test_the_command_checks_it(root, capsys):
    assert main(["mevis", str(root)]) == 0
    assert f"{root} can be used." in capsys.readouterr().out
    assert main(["mevis", str(root / "train")]) == 1
    assert "there is no train/meta_expressions.json or valid_u/meta_expressions.json" in capsys.readouterr().err


def test_the_page_about_data_shows_the_tree():
    page = (Path(__file__).parents[3] / "docs" / "data.md").read_text(encoding="utf-8")
    assert TREE.picture.strip() in page
    assert "python -m datamodules.layout mevis " in page


def test_training_asks_one_question_per_video_and_validation_holds_videos_out(root):
    module = mevis(root, clip_frames=3)
    trained, held_out = clips(module.train_dataloader()), clips(module.val_dataloader())
    videos = {clip.video for clip in trained} | {clip.video for clip in held_out}
    assert videos | {STILL} == {TWO, HELD, STILL}
    assert {clip.video for clip in trained}.isdisjoint({clip.video for clip in held_out})
    assert {clip.frames.count for clip in trained} == {3}


def test_validation_may_take_the_test_videos(root):
    module = mevis(root, val_split="valid_u")
    assert [clip.id for clip in clips(module.val_dataloader())] == [f"mevis/valid_u/{ONE}/{key}" for key in ("0", "11")]
    assert {clip.video for clip in clips(module.train_dataloader())} == {TWO, HELD}


def test_tests_take_every_sentence_of_valid_u(root):
    (loader,) = mevis(root, stage="test").test_dataloader()
    assert [clip.position for clip in clips(loader)] == [0, 1]


def test_the_split_for_the_server_can_be_predicted_on_and_not_tested(root):
    (loader,) = mevis(root, stage="predict", test_splits=["valid"]).predict_dataloader()
    assert [clip.id for clip in clips(loader)] == [f"mevis/valid/{SERVER}/0"]
    with pytest.raises(ConfigError, match=r"names valid, whose ground truth is not public.*test_splits \[valid_u\]"):
        mevis(root, stage="test", test_splits=["valid"])
