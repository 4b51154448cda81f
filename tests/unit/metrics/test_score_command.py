"""The command line of the scorer, and the files that it leaves."""

import json
import subprocess
import sys

import pytest
from score_trees import HEX, TABLE, VIDEOS, write_mevis_truth, write_video_predictions, write_video_truth

from metrics.score.__main__ import main, show
from metrics.score.report import Report
from metrics.tables import official_table, show_score


@pytest.fixture
def revos(tmp_path):
    write_video_truth(tmp_path / "revos", VIDEOS)
    write_video_predictions(tmp_path / "predictions", tmp_path / "revos" / TABLE)
    return tmp_path


def arguments(folder, benchmark="revos", *more):
    named = [f"--root={folder / benchmark}", f"--predictions={folder / 'predictions'}"]
    return [benchmark, *named, f"--out={folder / 'out' / 'results.json'}", "--workers=1", *more]


def test_it_prints_a_table_and_writes_three_files(revos, capsys):
    (revos / "predictions" / VIDEOS[0] / "0" / "00005.png").unlink()
    assert main(arguments(revos)) == 0
    printed = capsys.readouterr().out
    assert "overall" in printed
    assert "1 expressions: a frame is missing" in printed
    assert f"{VIDEOS[0]}/0: " in printed
    result = json.loads((revos / "out" / "results.json").read_text())
    assert set(result["scores"]) == {"referring", "reasoning", "non-existent", "overall", "single", "multi"}
    assert {"J", "F", "JF", "R_official", "R_binary", "A_official", "A_binary"} == set(result["scores"]["overall"])
    assert result["counts"]["with_a_problem"] == 1
    assert result["problems"]["a frame is missing"][0].startswith(f"{VIDEOS[0]}/0: ")
    assert len(result["code"]["commit"].removesuffix("+changes")) == 40
    assert any("rounded to hundredths" in line for line in result["protocol"])
    text = (revos / "out" / "results.md").read_text()
    assert "| group | J&F | J | F | R official | R binary |" in text
    assert f"- {VIDEOS[0]}/0: " in text
    lines = [json.loads(line) for line in (revos / "out" / "results.jsonl").read_text().splitlines()]
    assert len(lines) == 10
    assert lines[0]["problem"] == "a frame is missing"
    assert 0 <= lines[1]["R_binary"] <= 1


def test_without_a_number_it_exits_with_1_and_says_what_to_do(tmp_path, capsys):
    write_mevis_truth(tmp_path / "mevis")
    table = tmp_path / "mevis" / "valid_u" / "meta_expressions.json"
    write_video_predictions(tmp_path / "predictions", table)
    (tmp_path / "predictions" / HEX[0] / "0" / "00001.png").unlink()
    assert main(arguments(tmp_path, "mevis")) == 1
    assert "1 of 8 expressions cannot be scored" in capsys.readouterr().err
    assert json.loads((tmp_path / "out" / "results.json").read_text())["scores"] == {}
    assert main(arguments(tmp_path, "mevis", "--invalid=worst")) == 0
    assert "NOT THE OFFICIAL NUMBER" in capsys.readouterr().out
    assert "NOT THE OFFICIAL NUMBER" in (tmp_path / "out" / "results.md").read_text()


def test_data_that_cannot_be_used_exit_with_1_and_write_nothing(revos, capsys):
    (revos / "revos" / "mask_dict.json").unlink()
    assert main(arguments(revos)) == 1
    assert "there is no mask_dict.json" in capsys.readouterr().err
    assert not (revos / "out").exists()


def test_a_split_without_expressions_says_so(capsys):
    show(Report("revos", ("valid",), {}, answers=(), remarks=(), unofficial=0, origin={}))
    assert capsys.readouterr().err == "error: valid of revos have no expressions to score.\n"


@pytest.mark.parametrize(
    ("more", "text"),
    [
        (["--splits", "test"], "--splits: revos has train, valid, found test"),
        (["--out", "results.txt"], "--out: expected a .json file, found results.txt"),
    ],
)
def test_wrong_arguments_exit_with_2(revos, capsys, more, text):
    with pytest.raises(SystemExit) as caught:
        main([*arguments(revos), *more])
    assert caught.value.code == 2
    assert text in capsys.readouterr().err


def test_it_runs_as_documented(revos):
    command = [sys.executable, "-m", "metrics.score", *arguments(revos)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "written to" in done.stdout


def test_tables_show_percent_but_s():
    header, rows = official_table({"test_s/J": 0.5, "test_s/F": 0.25, "test_n/S": 0.3711})
    assert header == ["group", "J", "F", "S"]
    assert rows == [["test_s", "50.00", "25.00", "-"], ["test_n", "-", "-", "0.3711"]]
    assert show_score("JF", None) == "-"


def test_long_lists_are_cut_for_people_and_whole_in_the_file(revos, capsys):
    for path in (revos / "predictions").rglob("00005.png"):
        path.unlink()
    table = json.loads((revos / "revos" / TABLE).read_text())
    question = table["videos"][VIDEOS[0]]["expressions"]["0"]
    table["videos"][VIDEOS[0]]["expressions"] |= {str(index): question for index in range(100, 130)}
    (revos / "revos" / TABLE).write_text(json.dumps(table))
    assert main(arguments(revos)) == 0
    assert "... and 10 more; the .json file names them all" in capsys.readouterr().out
    result = json.loads((revos / "out" / "results.json").read_text())
    assert [len(names) for names in result["problems"].values()] == [10, 30]
