import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamodules.json_index import JsonIndex, open_index

MASK = {"size": [4, 6], "counts": "0123[]\\{}:,;o"}


def write(path, value, **style):
    path.write_text(json.dumps(value, **style))
    return path


@pytest.mark.parametrize("style", [{}, {"separators": (",", ":")}, {"indent": 2}])
def test_entries_are_found_in_any_style(tmp_path, style):
    """The counts hold every bracket of JSON and a backslash; "size" is followed by a list, like an entry."""
    table = {"3003019": [MASK, None, MASK], "7": [], "12": [None]}
    index = JsonIndex(write(tmp_path / "m.json", table, **style), shape="lists")

    assert list(index) == list(table)
    assert len(index) == 3
    assert {key: index.read(key) for key in index} == table
    assert "7" in index
    assert "size" not in index


@pytest.mark.parametrize("style", [{}, {"separators": (",", ":")}, {"indent": 2}])
def test_entries_that_are_objects_are_found(tmp_path, style):
    table = {
        "UVO/all/-f_b M": {"masks_rle": [MASK, MASK], "foreground_ratio": [0.5, 0.0]},
        'quote " and é': {"foreground_ratio": [], "masks_rle": []},
    }
    index = JsonIndex(write(tmp_path / "f.json", table, **style), shape="objects")

    assert {key: index.read(key) for key in index} == table


@given(
    st.dictionaries(
        st.integers(0, 10**7).map(str),
        st.lists(st.none() | st.binary(max_size=20).map(lambda raw: "".join(chr(48 + byte % 64) for byte in raw))),
    )
)
def test_what_is_indexed_is_what_was_written(tmp_path_factory, counts):
    table = {
        key: [None if text is None else {"size": [1, 2], "counts": text} for text in masks]
        for key, masks in counts.items()
    }
    index = JsonIndex(write(tmp_path_factory.mktemp("json") / "m.json", table), shape="lists")

    assert {key: index.read(key) for key in index} == table


@pytest.mark.parametrize("text", ["", "{}", "version https://git-lfs.github.com/spec/v1"])
def test_a_file_without_entries_is_empty(tmp_path, text):
    (tmp_path / "m.json").write_text(text)

    assert list(JsonIndex(tmp_path / "m.json", shape="lists")) == []


def test_an_unknown_entry_is_a_key_error(tmp_path):
    with pytest.raises(KeyError, match="9"):
        JsonIndex(write(tmp_path / "m.json", {"7": []}), shape="lists").read("9")


def test_a_cut_off_entry_is_a_value_error_and_the_others_are_read(tmp_path):
    path = write(tmp_path / "m.json", {"7": [MASK], "8": [MASK, MASK]})
    path.write_text(path.read_text()[:-20])
    index = JsonIndex(path, shape="lists")

    assert index.read("7") == [MASK]
    with pytest.raises(ValueError, match=r"Unterminated|Expecting"):
        index.read("8")


def test_a_file_is_scanned_once_until_it_changes(tmp_path):
    path = write(tmp_path / "m.json", {"7": []})
    first = open_index(path, shape="lists")

    assert open_index(path, shape="lists") is first
    write(path, {"7": [], "1234": []})
    assert list(open_index(path, shape="lists")) == ["7", "1234"]


def test_a_missing_file_is_reported(tmp_path):
    with pytest.raises(FileNotFoundError):
        open_index(tmp_path / "m.json", shape="lists")
