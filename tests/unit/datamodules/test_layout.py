import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from benchmark_trees import DASHED, MUTED, OVIS, PLAIN, TAO, UVO, edit_json

from datamodules import refavs, revos_meta
from datamodules.errors import DataLayoutError
from datamodules.layout import check_refavs, check_revos, main


def test_a_good_refavs_folder_is_counted(refavs_root):
    report = check_refavs(refavs_root, every_file=True)

    assert report.base == refavs_root
    assert report.warnings == ()
    assert report.facts[0] == "train: 6 rows, 2 videos, 4 clips, 4 targets, 2 null rows of 2 clips"


def test_everything_wrong_with_a_refavs_folder_is_named_at_once(refavs_root):
    shutil.rmtree(refavs_root / "media" / PLAIN / "frames")
    (refavs_root / "media" / DASHED / "audio.wav").unlink()
    shutil.rmtree(refavs_root / "gt_mask" / DASHED / "fid_4")

    with pytest.raises(DataLayoutError, match=r"What is wrong \(3\)") as caught:
        check_refavs(refavs_root)
    text = str(caught.value)
    assert f"1 of 5 clips have no frames; first: {refavs_root}/media/{PLAIN}/frames" in text
    assert f"1 of 4 clips have no sound; first: {refavs_root}/media/{DASHED}/audio.wav" in text
    assert f"1 of 3 targets have no masks; first: {refavs_root}/gt_mask/{DASHED}/fid_4" in text
    assert "Found: gt_mask/, media/, media_cross/, metadata.csv" in text


def test_only_the_splits_that_are_used_are_checked(refavs_root):
    """Nothing but test_u uses target 4."""
    shutil.rmtree(refavs_root / "gt_mask" / DASHED / "fid_4")

    check_refavs(refavs_root, splits=["train", "val"])
    with pytest.raises(DataLayoutError, match="targets have no masks"):
        check_refavs(refavs_root, splits=["test_u"])


def test_single_files_are_looked_for_when_asked(refavs_root):
    (refavs_root / "media" / PLAIN / "frames" / "3.jpg").unlink()
    (refavs_root / "gt_mask" / PLAIN / "fid_2" / "00009.png").unlink()

    check_refavs(refavs_root)
    with pytest.raises(DataLayoutError, match="1 of 50 frames are not there") as caught:
        check_refavs(refavs_root, every_file=True)
    assert "1 of 30 masks are not there" in str(caught.value)


def test_muted_clips_need_neither_sound_nor_masks_but_frames(refavs_root):
    assert not (refavs_root / "media" / MUTED / "audio.wav").exists()
    shutil.rmtree(refavs_root / "media" / MUTED / "frames")

    with pytest.raises(DataLayoutError, match="1 of 5 clips have no frames"):
        check_refavs(refavs_root)


def test_a_split_without_rows_is_a_problem(refavs_root):
    path = refavs_root / "metadata.csv"
    path.write_text("\n".join(line for line in path.read_text().splitlines() if ",test_s," not in line))

    with pytest.raises(DataLayoutError, match=r"metadata\.csv has no row of split test_s"):
        check_refavs(refavs_root)


def test_long_lists_of_problems_are_cut(refavs_root):
    with (refavs_root / "metadata.csv").open("a") as file:
        file.writelines(f"v,v_cat_{n},train,x,The cat.\n" for n in range(20))

    with pytest.raises(DataLayoutError, match=r"What is wrong \(20\)") as caught:
        check_refavs(refavs_root)
    assert "... and 12 more" in str(caught.value)
    assert str(caught.value).count("fid is 'x'") == 8


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (lambda path: None, "Found: no such folder"),
        (lambda path: path.mkdir(), "Found: an empty folder"),
        (lambda path: path.write_text(""), "Found: a file, not a folder"),
        (lambda path: [(path / f"d{n}").mkdir(parents=True) for n in range(12)], r"Found: d0/, .*\(12 entries\)"),
    ],
)
def test_what_was_found_is_shown(tmp_path, make, found):
    make(tmp_path / "root")

    with pytest.raises(DataLayoutError, match=found):
        check_refavs(tmp_path / "root")


def test_a_good_revos_folder_is_counted(revos_root):
    report = check_revos(revos_root, every_file=True)

    assert report.facts == (
        "train: 3 videos, 6 expressions (3 referring, 2 reasoning, 1 non-existent)",
        "valid: 1 videos, 2 expressions (1 referring, 0 reasoning, 1 non-existent)",
    )
    assert len(report.warnings) == 1
    assert "1 videos have fewer than two frames (first: MOSE/still)" in report.warnings[0]


def test_everything_wrong_with_a_revos_folder_is_named_at_once(revos_root):
    shutil.rmtree(revos_root / "JPEGImages" / UVO)
    shutil.rmtree(revos_root / TAO)
    edit_json(revos_root / "mask_dict.json", lambda masks: [masks.pop(key) for key in ("12", "15")])

    with pytest.raises(DataLayoutError, match=r"What is wrong \(2\)") as caught:
        check_revos(revos_root)
    text = str(caught.value)
    assert f"2 of 4 frames are not there; first: {revos_root}/{UVO}/00000.jpg, {revos_root}/{TAO}/frame0000.jpg" in text
    assert "2 of 5 objects that are asked about are not in mask_dict.json; first: 12, 15" in text


def test_every_frame_of_a_video_is_looked_for_when_asked(revos_root):
    (revos_root / TAO / "frame0003.jpg").unlink()

    check_revos(revos_root)
    with pytest.raises(DataLayoutError, match=r"1 of 15 frames are not there; first: .*frame0003\.jpg"):
        check_revos(revos_root, every_file=True)


def test_a_mask_file_that_is_missing_or_cut_off_is_a_problem(revos_root):
    path = revos_root / "mask_dict.json"
    path.write_text(path.read_text()[:-30])
    with pytest.raises(DataLayoutError, match=r"mask_dict\.json is cut off"):
        check_revos(revos_root)

    path.write_text("")
    with pytest.raises(DataLayoutError, match=r"5 of 5 objects that are asked about are not in mask_dict\.json"):
        check_revos(revos_root)

    path.unlink()
    with pytest.raises(DataLayoutError, match=r"there is no mask_dict\.json"):
        check_revos(revos_root)


def test_a_split_without_videos_is_a_problem(revos_root):
    edit_json(revos_root / "meta_expressions_valid_.json", lambda table: table["videos"].clear())

    with pytest.raises(DataLayoutError, match="the table of split valid has no video"):
        check_revos(revos_root)


def test_odd_tables_are_usable_with_a_warning_each(revos_root):
    def change(table):
        table["videos"][OVIS]["frames"].reverse()
        table["videos"][OVIS]["expressions"]["1"]["anno_id"] = [15]

    edit_json(revos_root / "meta_expressions_valid_.json", change)
    (revos_root / "mask_dict_foreground.json").unlink()

    warnings = check_revos(revos_root, splits=["valid"]).warnings
    assert [f"out of order (first: {OVIS})" in warnings[0], f"(first: {OVIS}/1)" in warnings[1]] == [True, True]
    assert "robustness score cannot be computed" in warnings[2]


def test_what_single_clips_lack_is_a_warning_where_clips_may_be_left_out(refavs_root, revos_root):
    """Of four clips with sound one has lost it; an object of one ReVOS video is gone."""
    (refavs_root / "media" / DASHED / "audio.wav").unlink()
    edit_json(revos_root / "mask_dict.json", lambda masks: masks.pop("12"))

    warnings = check_refavs(refavs_root, may_skip=True).warnings + check_revos(revos_root, may_skip=True).warnings[:1]
    assert warnings == (
        f"1 of 4 clips have no sound; first: {refavs_root}/media/{DASHED}/audio.wav; such clips are left out",
        "1 of 5 objects that are asked about are not in mask_dict.json; first: 12; such clips are left out",
    )
    with pytest.raises(
        DataLayoutError, match=r"leave out single clips that lack files with --data\.on_bad_sample skip"
    ):
        check_refavs(refavs_root)


def test_a_folder_that_lacks_half_of_its_clips_is_refused_all_the_same(refavs_root):
    for clip in (PLAIN, DASHED):
        (refavs_root / "media" / clip / "audio.wav").unlink()

    with pytest.raises(DataLayoutError, match="2 of 4 clips have no sound"):
        check_refavs(refavs_root, may_skip=True)


def test_the_command_reports_and_exits_with_0(revos_root, capsys):
    assert main(["revos", str(revos_root), "--every-file"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{revos_root} can be used.\n")
    assert "Warning: 1 videos have fewer than two frames" in out


def test_the_command_explains_and_exits_with_1(revos_root, capsys):
    assert main(["refavs", str(revos_root)]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "there is no metadata.csv" in captured.err


def test_the_command_runs_as_documented(refavs_root):
    command = [sys.executable, "-m", "datamodules.layout", "refavs", str(refavs_root)]

    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    assert (done.returncode, done.stderr) == (0, "")
    assert "test_u: 2 rows, 1 videos, 1 clips, 2 targets" in done.stdout


def test_the_page_about_data_shows_the_trees_that_are_checked():
    page = (Path(__file__).parents[3] / "docs" / "data.md").read_text(encoding="utf-8")

    for tree in (refavs.TREE, revos_meta.TREE):
        assert tree.picture.strip() in page
        assert f"python -m datamodules.layout {tree.command} " in page
