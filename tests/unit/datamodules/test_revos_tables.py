import pytest
from benchmark_trees import TAO, UVO, edit_json

from datamodules.errors import DataLayoutError
from datamodules.revos_meta import meta_path, read_videos


def test_a_split_without_a_table_is_refused(revos_root):
    (revos_root / "meta_expressions_valid_.json").unlink()

    with pytest.raises(
        DataLayoutError, match=r"neither meta_expressions_valid_\.json nor meta_expressions_valid\.json"
    ):
        meta_path(revos_root, "valid")


@pytest.mark.parametrize("text", ["{", "[]", '{"videos": []}'])
def test_a_table_that_is_none_is_refused(revos_root, text):
    (revos_root / "meta_expressions_valid_.json").write_text(text)

    with pytest.raises(DataLayoutError, match=r"is not valid JSON|has no mapping called videos"):
        read_videos(revos_root, "valid")


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("frames", [], r"frames is '\[\]', expected a list of file names"),
        ("frames", [1], "expected a list of file names"),
        ("expressions", None, "expressions is 'None', expected a mapping"),
        ("expressions", {"0": {}}, "expression 0: expected a mapping with a text called exp"),
        ("expressions", {"0": {"exp": "x", "anno_id": 3}}, "anno_id is '3', expected a list"),
        ("expressions", {"0": {"exp": "x", "type_id": 7}}, "type_id is 7, expected 0, 1 or 2"),
    ],
)
def test_bad_entries_are_named_all_at_once(revos_root, key, value, problem):
    def change(table):
        table["videos"][UVO][key] = value
        table["videos"][TAO] = "nothing"

    edit_json(revos_root / "meta_expressions_train_.json", change)

    with pytest.raises(DataLayoutError, match=problem) as caught:
        read_videos(revos_root, "train")
    assert f"video {UVO}" in str(caught.value)
    assert f"video {TAO}: expected a mapping, found str" in str(caught.value)
