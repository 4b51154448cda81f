"""The scorer on prediction folders of ReVOS and MeViS, against the official programs written out once more."""

import json
import shutil

import numpy as np
import pytest
import second_opinion as other
from PIL import Image
from score_trees import (
    HEX,
    SIZE,
    TABLE,
    VIDEOS,
    official_rows,
    write_mevis_truth,
    write_video_predictions,
)

from datamodules.errors import DataLayoutError, MediaError
from metrics.score.__main__ import score
from metrics.score.answers import Problem, oddities_by_kind, problems_by_kind


def run(root, predictions, benchmark="revos", **settings):
    return score(benchmark, root, predictions, workers=1, **settings)


def expect(report, root, predictions, masks):
    """Equal to the second implementation, which treats every problem as the official program does."""
    for group, scores in other.revos_table(official_rows(root / TABLE, predictions, masks)).items():
        for name, value in scores.items():
            assert 100 * report.scores[f"{group}/{name}"] == pytest.approx(value, abs=1e-9), (group, name)


def frame(predictions, video=VIDEOS[0], expression="0", name="00005"):
    return predictions / video / expression / f"{name}.png"


def test_clean_predictions_score_as_by_the_official_program(revos):
    root, predictions, masks = revos
    report = run(root, predictions)
    expect(report, *revos)
    rows = [scores for kind, scores in official_rows(root / TABLE, predictions, masks) if kind == "non-existent"]
    mean = np.mean([round(100 * row["R_binary"], 2) for row in rows])
    assert 100 * report.scores["non-existent/R_binary"] == pytest.approx(mean, abs=1e-9)
    assert report.counts == {"videos": 2, "expressions": 10, "scored": 10, "with_a_problem": 0, "frames": 40}
    assert problems_by_kind(report.answers) == oddities_by_kind(report.answers) == {}


def test_single_and_several_objects_are_told_apart(revos):
    root, predictions, masks = revos
    rows = official_rows(root / TABLE, predictions, masks)
    several = [rows[index][1] for index in (0, 4, 5, 9)]
    single = [rows[index][1] for index in (1, 3, 6, 8)]
    report = run(root, predictions)
    for group, members in (("multi", several), ("single", single)):
        assert 100 * report.scores[f"{group}/J"] == pytest.approx(np.mean([round(100 * m["J"], 2) for m in members]))


def test_two_processes_give_what_one_gives(revos):
    root, predictions, _ = revos
    one, two = (score("revos", root, predictions, workers=workers) for workers in (1, 2))
    assert one.scores == two.scores
    assert [answer.name for answer in one.answers] == [answer.name for answer in two.answers]


def cut(path):
    path.write_bytes(path.read_bytes()[:-30])


def resize(path):
    Image.open(path).resize((SIZE[1] + 1, SIZE[0])).save(path)


FAULTS = {
    Problem.NO_FRAME: lambda path: path.unlink(),
    Problem.UNREADABLE: cut,
    Problem.UNEVEN_SIZES: resize,
    Problem.NO_EXPRESSION: lambda path: shutil.rmtree(path.parent),
    Problem.NO_VIDEO: lambda path: shutil.rmtree(path.parent.parent),
}


@pytest.mark.parametrize("problem", FAULTS)
def test_what_is_wrong_counts_0_as_in_the_official_program_and_is_named(revos, problem):
    root, predictions, _ = revos
    FAULTS[problem](frame(predictions))
    report = run(root, predictions)
    expect(report, *revos)
    named = problems_by_kind(report.answers)
    assert list(named) == [str(problem)]
    assert len(named[str(problem)]) == (5 if problem is Problem.NO_VIDEO else 1)
    assert named[str(problem)][0].startswith(f"{VIDEOS[0]}/0: ")
    assert report.counts["with_a_problem"] == len(named[str(problem)])


def test_a_missing_frame_says_what_is_there(revos):
    root, predictions, _ = revos
    for path in (predictions / VIDEOS[0] / "0").iterdir():
        path.rename(path.with_suffix(".PNG"))
    (line,) = problems_by_kind(run(root, predictions).answers)[str(Problem.NO_FRAME)]
    assert line.endswith("00000.png (found there: 00000.PNG, 00005.PNG, 00010.PNG, 00015.PNG)")


def test_predictions_all_of_another_size_are_told_from_the_ground_truth(revos):
    root, predictions, _ = revos
    for path in (predictions / VIDEOS[0] / "1").iterdir():
        resize(path)
    report = run(root, predictions)
    expect(report, *revos)
    (line,) = problems_by_kind(report.answers)[str(Problem.WRONG_SIZE)]
    assert line == f"{VIDEOS[0]}/1: pictures are 37x54, the ground truth is 37x53"


def test_names_that_are_no_expression_are_told(revos):
    root, predictions, _ = revos
    (predictions / VIDEOS[0] / "extra").mkdir()
    report = run(root, predictions)
    assert report.remarks == (f"1 names in {predictions} are no expressions of valid: {VIDEOS[0]}/extra",)


@pytest.mark.parametrize(
    ("splits", "text"), [(["train", "valid"], "are of one split; found train, valid"), (["valid", "valid"], "once")]
)
def test_splits_that_no_official_number_is_of_together_are_refused(revos, splits, text):
    root, predictions, _ = revos
    with pytest.raises(DataLayoutError, match=text):
        run(root, predictions, splits=splits)


def test_a_type_without_objects_stays_in_its_group(revos):
    """The official averages look at the type alone: an empty referring target is referring."""
    root, predictions, _ = revos
    table = json.loads((root / TABLE).read_text())
    table["videos"][VIDEOS[0]]["expressions"]["3"]["anno_id"] = []
    (root / TABLE).write_text(json.dumps(table))
    report = run(root, predictions)
    expect(report, *revos)


def test_without_the_file_of_all_objects_robustness_is_left_out(revos):
    root, predictions, _ = revos
    (root / "mask_dict_foreground.json").unlink()
    report = run(root, predictions)
    assert not [key for key in report.scores if "/R_" in key]
    assert report.remarks == ("there is no mask_dict_foreground.json: R was left out",)


def test_damaged_ground_truth_stops_the_scoring(revos):
    """It is no fault of the predictions, so it must not count against them."""
    root, predictions, _ = revos
    masks = json.loads((root / "mask_dict.json").read_text())
    masks["1"][0]["counts"] = masks["1"][0]["counts"][:-2]
    (root / "mask_dict.json").write_text(json.dumps(masks))
    with pytest.raises(MediaError, match=r"mask_dict\.json, entry 1, cannot be read: the run lengths end"):
        run(root, predictions)
    masks["1"] = masks["1"][:2]
    (root / "mask_dict.json").write_text(json.dumps(masks))
    with pytest.raises(MediaError, match="entry 1, cannot be read: expected one mask for each of the 4 frames"):
        run(root, predictions)
    del masks["1"]
    (root / "mask_dict.json").write_text(json.dumps(masks))
    with pytest.raises(DataLayoutError, match=r"1 of \d objects that are asked about are not in mask_dict\.json"):
        run(root, predictions)


def test_unknown_folders_are_ignored_and_named(revos):
    root, predictions, _ = revos
    expected = run(root, predictions).scores
    (predictions / "UVO2").mkdir()
    (predictions / "results.csv").touch()
    report = run(root, predictions)
    assert report.scores == expected
    assert report.remarks == (f"2 names in {predictions} belong to no video and were ignored: UVO2, results.csv",)


@pytest.fixture
def mevis(tmp_path):
    root = tmp_path / "mevis"
    masks = write_mevis_truth(root)
    table = root / "valid_u" / "meta_expressions.json"
    return root, write_video_predictions(tmp_path / "predictions", table), masks, table


def test_mevis_is_the_plain_mean_over_expressions(mevis):
    root, predictions, masks, table = mevis
    shutil.rmtree(predictions / HEX[1])
    report = run(root, predictions, "mevis")
    rows = [scores for _, scores in official_rows(table, predictions, masks, has_foreground=False)]
    assert report.scores["valid_u/J"] == pytest.approx(np.mean([row["J"] for row in rows]), abs=1e-12)
    assert report.scores["valid_u/F"] == pytest.approx(np.mean([row["F"] for row in rows]), abs=1e-12)
    assert report.unofficial == 0
    assert len(problems_by_kind(report.answers)[str(Problem.NO_VIDEO)]) == 4


@pytest.mark.parametrize("problem", [problem for problem in FAULTS if problem is not Problem.NO_VIDEO])
def test_what_stops_the_official_program_gives_no_number_unless_asked_for(mevis, problem):
    root, predictions, masks, table = mevis
    FAULTS[problem](frame(predictions, HEX[0], "0", "00001"))
    report = run(root, predictions, "mevis")
    assert report.scores == {}
    assert str(problem) in problems_by_kind(report.answers)
    counted = run(root, predictions, "mevis", counts_invalid=True)
    rows = [scores for _, scores in official_rows(table, predictions, masks, has_foreground=False)]
    assert counted.scores["valid_u/J"] == pytest.approx(np.mean([row["J"] for row in rows]), abs=1e-12)
    assert counted.unofficial == 1
    assert counted.protocol[0].startswith("NOT THE OFFICIAL NUMBER: 1 expressions")


@pytest.mark.parametrize(
    ("names", "hint"),
    [
        (["abcdefghijk_0_10000"], "These look like predictions for refavs."),
        (["0ab4afe7fb46"], "These look like predictions for mevis."),
        (["cat", "dog"], "Is this the right folder"),
    ],
)
def test_a_folder_of_another_benchmark_is_refused(revos, tmp_path, names, hint):
    root, _, _ = revos
    for name in names:
        (tmp_path / "others" / name).mkdir(parents=True)
    with pytest.raises(DataLayoutError, match="holds no folder of any of the 2 videos of revos") as caught:
        run(root, tmp_path / "others")
    assert hint in str(caught.value)
    assert f"Found: {names[0]}" in str(caught.value)


def test_a_folder_one_level_too_high_is_refused_with_the_right_one(revos):
    root, predictions, _ = revos
    predictions.rename(predictions.parent / "Annotations")
    (predictions.parent / "run").mkdir()
    (predictions.parent / "Annotations").rename(predictions.parent / "run" / "Annotations")
    with pytest.raises(DataLayoutError, match=r"set --predictions .*run/Annotations"):
        run(root, predictions.parent / "run")


def test_no_folder_at_all_is_refused(revos, tmp_path):
    with pytest.raises(DataLayoutError, match="--predictions: there is no folder"):
        run(revos[0], tmp_path / "nothing")


def test_a_table_without_videos_is_refused(revos):
    root, predictions, _ = revos
    (root / TABLE).write_text(json.dumps({"videos": {}}))
    with pytest.raises(DataLayoutError, match="the table of valid names no video"):
        run(root, predictions)
