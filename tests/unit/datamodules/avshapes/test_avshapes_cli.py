import pytest
from PIL import Image

from datamodules.avshapes.__main__ import main

SMALL = ["--workers", "1"]
for _name, _count in {
    "train": 2,
    "val": 0,
    "test_s": 1,
    "test_u": 0,
    "test_n": 1,
    "null_train": 0,
    "null_val": 0,
}.items():
    SMALL += ["--size", f"{_name}={_count}"]


def test_it_writes_a_tree_and_prints_its_counts(tmp_path, capsys):
    assert main(["--out", str(tmp_path / "tree"), *SMALL]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == str(tmp_path / "tree")
    assert [line.split()[:2] for line in lines[1:]] == [["train", "2"], ["test_s", "1"], ["test_n", "1"]]
    assert lines[3].endswith("4 expressions (4 null)")
    assert (tmp_path / "tree" / "metadata.csv").is_file()


def test_without_a_folder_it_writes_into_the_cache(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    arguments = ["write", "--benchmark", "revos", "--size", "train=2", "--size", "valid=0", "--workers", "1"]

    assert (
        main([*arguments, "--world", "max_things=2", "--world", "sounding=1.0", "--world", "distinct_shapes=true"]) == 0
    )

    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(str(tmp_path))
    assert lines[1].split()[:3] == ["train", "2", "clips"]
    assert lines[2].split()[:3] == ["valid", "0", "clips"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--size", "train"], "--size takes NAME=VALUE, found 'train'"),
        (["--size", "train=many"], "train takes a whole number, found 'many'"),
        (["--size", "tests=4"], "Unknown size 'tests'; refavs has train"),
        (["--world", "shared=0.5"], "Unknown dial --world shared; there are size, frames"),
        (["--world", "shared_color=often"], "shared_color takes a number, found 'often'"),
        (["--world", "overlapping_sounds=maybe"], "overlapping_sounds takes true or false, found 'maybe'"),
        (["--world", "frames=20"], "RefAVS clips have exactly 10 frames"),
        (["--seed", "-1"], "seed must be 0 or more, found -1"),
    ],
)
def test_wrong_arguments_give_one_line_and_write_nothing(tmp_path, capsys, arguments, text):
    assert main([*arguments, "--out", str(tmp_path / "tree")]) == 2

    error = capsys.readouterr().err
    assert text in error
    assert error.count("\n") == 1
    assert not (tmp_path / "tree").exists()


def test_an_existing_folder_is_refused(tmp_path, capsys):
    assert main(["--out", str(tmp_path)]) == 2
    assert f"--out must name a new folder, found {tmp_path}" in capsys.readouterr().err


def test_it_draws_a_picture(tmp_path, capsys):
    out = tmp_path / "pictures" / "avshapes.png"

    assert main(["picture", "--out", str(out)]) == 0

    width, height = Image.open(out).size
    assert width > 1000
    assert height > 600
    assert capsys.readouterr().out == f"{out}\n"
