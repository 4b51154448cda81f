"""The scorer on prediction folders of Ref-AVS."""

import re
import shutil

import numpy as np
import pytest
import second_opinion as other
from PIL import Image
from score_trees import (
    CLIPS,
    ROWS,
    SIZE,
    save,
    write_clip_predictions,
    write_clip_truth,
    write_marked_all_over,
)

from datamodules.errors import DataLayoutError, MediaError
from metrics.score.__main__ import main, score
from metrics.score.answers import Oddity, Problem, oddities_by_kind, problems_by_kind


@pytest.fixture
def refavs(tmp_path):
    truth = write_clip_truth(tmp_path / "refavs")
    written = write_clip_predictions(tmp_path / "predictions", truth)
    return tmp_path / "refavs", tmp_path / "predictions", truth, written


def run(root, predictions, **settings):
    return score("refavs", root, predictions, **{"workers": 1} | settings)


def at_256(masks):
    return np.stack([other.resized(mask) >= 0.5 for mask in masks])[:, None]


def expected(truth, written, split):
    """Hard masks as saturated logits, in calls of four, by the second implementation."""
    made = []
    for number, (_, uid, of, fid, _) in enumerate(ROWS):
        if of == split:
            pred = at_256(written[number])
            target = at_256(truth[uid.rsplit("_", 2)[0], fid]) if split != "test_n" else np.zeros_like(pred)
            made.append((np.where(pred, 20.0, -20.0), target.astype(np.float32)))
    return other.refavs_split(made)


def test_splits_score_in_calls_of_four_whatever_lies_between(refavs):
    root, predictions, truth, written = refavs
    report = run(root, predictions)
    for split in ("test_s", "test_u"):
        j, f, _ = expected(truth, written, split)
        assert report.scores[f"{split}/J"] == pytest.approx(j, abs=5e-6)
        assert report.scores[f"{split}/F"] == pytest.approx(f, abs=5e-6)
    assert report.scores["test_n/S"] == pytest.approx(expected(truth, written, "test_n")[2], abs=5e-6)
    assert report.scores["mix/J"] == (report.scores["test_s/J"] + report.scores["test_u/J"]) / 2
    assert report.splits == ("test_s", "test_u", "test_n")
    assert report.counts["expressions"] == 9


def test_the_number_of_processes_changes_nothing(refavs):
    root, predictions, *_ = refavs
    assert run(root, predictions, workers=2).scores == run(root, predictions).scores


def test_splits_without_predictions_are_left_out_and_named(refavs):
    root, predictions, *_ = refavs
    shutil.rmtree(predictions / f"null_c-{CLIPS[0]}")
    report = run(root, predictions)
    assert report.splits == ("test_s", "test_u")
    assert report.remarks == ("no predictions for test_n: it was left out",)
    asked = run(root, predictions, splits=["test_u", "test_n"], counts_invalid=True)
    assert asked.scores["test_n/S"] == 1, "what is missing must not look like a perfect empty answer"
    with pytest.raises(DataLayoutError, match="holds no folder of any of the 1 videos of refavs"):
        run(root, predictions, splits=["test_n"])


def test_each_split_may_lie_in_a_folder_of_its_own(refavs, tmp_path):
    root, predictions, *_ = refavs
    parted = tmp_path / "parted"
    for split in ("test_s", "test_u", "test_n"):
        shutil.copytree(predictions, parted / split)
    assert run(root, parted).scores == run(root, predictions).scores


def test_folders_may_be_named_by_uid_and_shared_ones_are_named(refavs):
    """Rows 5 to 7 have one uid, two targets and lie in two splits: one folder stands for all of them."""
    root, predictions, truth, written = refavs
    for number, (_, uid, split, _, _) in enumerate(ROWS):
        clip, category, counter = uid.rsplit("_", 2)
        place = predictions / clip / f"{number:05d}_{category}_{counter}"
        if split != "train" and not (predictions / uid).exists():
            place.rename(predictions / uid)
    for number in (6, 7):
        (predictions / CLIPS[1] / f"{number:05d}_saw_4").rename(predictions / CLIPS[1] / f"saw_9{number}")
    report = run(root, predictions)
    written[6], written[7] = written[5], written[5]
    j, _, _ = expected(truth, written, "test_u")
    assert report.scores["test_u/J"] == pytest.approx(j, abs=5e-6)
    assert report.remarks[0].startswith("1 uids stand for 3 rows, some with other targets")


def test_pictures_at_256_and_short_frame_names_are_taken(refavs):
    """A mask that was resized by the benchmark's rule before it was saved scores the same."""
    root, predictions, *_, written = refavs
    before = run(root, predictions).scores
    folder = predictions / CLIPS[0] / "00000_cat_1"
    for index, mask in enumerate(at_256(written[0])[:, 0]):
        (folder / f"{index:05d}.png").unlink()
        save(folder / f"{index}.png", mask)
    assert run(root, predictions).scores == pytest.approx(before, abs=1e-9)


def test_pictures_of_any_one_size_are_taken(refavs):
    """Prediction and ground truth come to 256 x 256 each from its own size, as in the benchmark's program."""
    root, predictions, truth, written = refavs
    written[0] = written[0][:, ::2, ::3]
    for index, mask in enumerate(written[0]):
        save(predictions / CLIPS[0] / "00000_cat_1" / f"{index:05d}.png", mask)
    report = run(root, predictions)
    assert report.scores["test_s/J"] == pytest.approx(expected(truth, written, "test_s")[0], abs=5e-6)
    (named,) = oddities_by_kind(report.answers)[str(Oddity.RESIZED)]
    assert named.endswith(f"{CLIPS[0]}/00000_cat_1 has 19x18, the ground truth 37x53")


def test_values_in_between_are_foreground_and_named(refavs):
    root, predictions, *_ = refavs
    before = run(root, predictions).scores
    for path in (predictions / CLIPS[0] / "00000_cat_1").iterdir():
        Image.fromarray((np.asarray(Image.open(path)) > 0).astype(np.uint8) * 3).save(path)
    report = run(root, predictions)
    assert report.scores == before
    (named,) = oddities_by_kind(report.answers)[str(Oddity.NOT_255)]
    assert named.startswith(f"{CLIPS[0]}/00000_cat_1: ")


def test_names_that_belong_to_no_clip_are_told(refavs):
    root, predictions, *_ = refavs
    (predictions / "notes").mkdir()
    assert run(root, predictions).remarks == (f"1 names in {predictions} belong to no clip and were ignored: notes",)


@pytest.mark.parametrize("problem", [Problem.UNEVEN_SIZES, Problem.NO_FRAME, Problem.NO_EXPRESSION, Problem.UNREADABLE])
def test_a_problem_gives_no_number_unless_asked_for(refavs, problem):
    root, predictions, *_ = refavs
    path = predictions / CLIPS[0] / "00000_cat_1" / "00003.png"
    if problem is Problem.UNEVEN_SIZES:
        Image.open(path).resize((SIZE[1] * 2, SIZE[0])).save(path)
    elif problem is Problem.NO_FRAME:
        path.unlink()
    elif problem is Problem.UNREADABLE:
        path.write_bytes(path.read_bytes()[:50])
    else:
        path.parent.rename(path.parent.parent / "other")
    report = run(root, predictions)
    assert report.scores == {}
    (line,) = problems_by_kind(report.answers)[str(problem)]
    assert line.startswith(f"{CLIPS[0]}/00000_cat_1: ")
    counted = run(root, predictions, counts_invalid=True)
    assert counted.unofficial == 1
    assert 0 < counted.scores["test_s/J"] < 1


@pytest.mark.parametrize("value", [1, 255, 65535])
def test_16_bits_that_lose_what_is_marked_give_no_number(refavs, value):
    """S of a null clip would be perfect."""
    root, predictions, *_ = refavs
    for path in (predictions / CLIPS[0] / "00000_cat_1").iterdir():
        mask = np.asarray(Image.open(path)) > 0
        Image.fromarray(mask.astype(np.uint16) * value).save(path)
    report = run(root, predictions)
    if value == 65535:
        assert report.scores
        assert str(Oddity.SIXTEEN_BITS) in oddities_by_kind(report.answers)
        return
    assert report.scores == {}
    (line,) = problems_by_kind(report.answers)[str(Problem.UNREADABLE)]
    assert line.endswith("00000.png: 16 bits with values of 1 to 255, which 8 bits lose")


@pytest.mark.parametrize("mode", ["alpha", "palette", "white"])
def test_colors_that_gray_does_not_show_give_no_number(refavs, mode):
    """A null clip that is marked all over would have a perfect S."""
    root, predictions, *_ = refavs
    for path in (predictions / f"null_c-{CLIPS[0]}" / "00008_null_1").iterdir():
        write_marked_all_over(path, mode)
    report = run(root, predictions)
    if mode == "white":
        assert report.scores["test_n/S"] > 0.5
        return
    assert report.scores == {}
    (line,) = problems_by_kind(report.answers)[str(Problem.UNREADABLE)]
    assert line.endswith("00000.png: marks in the alpha channel or in colors next to black, which gray loses")


def test_one_frame_of_another_size_is_named(refavs):
    root, predictions, *_ = refavs
    save(predictions / CLIPS[0] / "00000_cat_1" / "00003.png", np.zeros((5, 5), bool))
    (line,) = problems_by_kind(run(root, predictions).answers)[str(Problem.UNEVEN_SIZES)]
    assert line.endswith("00003.png is 5x5, the first one 37x53")


def test_null_rows_never_read_masks(refavs):
    """The raw clip has a target 0, and even masks in the null folder itself are not looked at."""
    root, predictions, *_ = refavs
    before = run(root, predictions).scores
    shutil.copytree(root / "gt_mask" / CLIPS[0], root / "gt_mask" / f"null_c-{CLIPS[0]}")
    assert run(root, predictions).scores == before


def test_missing_ground_truth_stops_the_scoring(refavs):
    root, predictions, *_ = refavs
    (root / "gt_mask" / CLIPS[0] / "fid_2" / "00004.png").unlink()
    with pytest.raises(MediaError, match=r"00000_cat_1: mask .*00004\.png is missing"):
        run(root, predictions)


def test_a_folder_of_another_benchmark_is_refused(refavs, tmp_path):
    (tmp_path / "others" / "0ab4afe7fb46").mkdir(parents=True)
    with pytest.raises(DataLayoutError, match="These look like predictions for mevis"):
        run(refavs[0], tmp_path / "others")


def test_folders_of_splits_without_any_clip_are_all_named(refavs, tmp_path):
    """Those of the table's splits that there are, and the folder above for the splits that have none."""
    for name in ("test_s", "test_u"):
        (tmp_path / "parted" / name).mkdir(parents=True)
    with pytest.raises(DataLayoutError) as caught:
        run(refavs[0], tmp_path / "parted")
    for folder, found in (("parted/test_s", "an empty folder"), ("parted/test_u", "an empty folder")):
        assert re.search(rf"--predictions: \S*{folder} holds no folder of .*\nFound: {found}\n", str(caught.value))


@pytest.mark.parametrize("splits", [[], ["--splits", "test_s", "--invalid", "worst"]])
def test_clips_with_other_names_inside_are_refused(refavs, tmp_path, capsys, splits):
    """The layout of the ground truth is what one would take first, as the benchmark has none for predictions."""
    root, *_ = refavs
    named = [f"--root={root}", f"--predictions={root / 'gt_mask'}", f"--out={tmp_path / 'out' / 'results.json'}"]
    assert main(["refavs", *named, "--workers=1", *splits]) == 1
    printed = capsys.readouterr()
    assert "gt_mask holds folders of clips of refavs, but none of any expression" in printed.err
    assert f"expected for example {CLIPS[0]}/00000_cat_1/00000.png" in printed.err
    assert f"found in {CLIPS[0]}: fid_0, fid_2" in printed.err
    assert printed.out == ""
    assert not (tmp_path / "out").exists()


def test_other_names_are_found_in_the_folder_of_a_split(refavs, tmp_path):
    root, predictions, *_ = refavs
    for frame in (predictions / CLIPS[0] / "00000_cat_1").iterdir():
        save(tmp_path / "parted" / "test_s" / CLIPS[0] / frame.name, np.zeros(SIZE, bool))
    (tmp_path / "parted" / "test_u").mkdir()
    with pytest.raises(DataLayoutError, match=rf"found in test_s/{CLIPS[0]}: 00000\.png, .*, 00004\.png, \.\.\."):
        run(root, tmp_path / "parted")
    shutil.rmtree(tmp_path / "parted" / "test_s" / CLIPS[0])
    (tmp_path / "parted" / "test_s" / CLIPS[0]).mkdir()
    with pytest.raises(DataLayoutError, match=f"found in test_s/{CLIPS[0]}: nothing"):
        run(root, tmp_path / "parted")


def test_a_split_with_other_names_inside_is_left_out_and_shown(refavs):
    root, predictions, *_ = refavs
    clip = f"null_c-{CLIPS[0]}"
    for place in (predictions / clip).iterdir():
        place.rename(place.with_name(place.name.removeprefix("0000")))
    report = run(root, predictions)
    assert report.splits == ("test_s", "test_u")
    assert report.remarks == (
        f"no predictions for test_n: it was left out; expected for example {clip}/00008_null_1/00000.png,"
        f" found in {clip}: 8_null_1, 9_null_2",
    )


def test_splits_that_the_table_does_not_have_are_named(refavs):
    root, predictions, *_ = refavs
    with pytest.raises(DataLayoutError, match=r"--splits: .*metadata\.csv has no rows of val; it has test_n, test_s, "):
        run(root, predictions, splits=["test_s", "val"])
