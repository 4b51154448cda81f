import json

import pytest
from pyarrow import parquet

from datamodules.avshapes.__main__ import main
from datamodules.avshapes.descriptions import described_things
from datamodules.avshapes.make import write_tree
from datamodules.avshapes.settings import make_settings
from datamodules.avshapes.truth import read_truth
from datamodules.layout import check_refcocog
from datamodules.refcocog import RefCOCOg

SIZES = {"train": 8, "annotations": 1}


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    root = tmp_path_factory.mktemp("trees") / "refcocog"
    write_tree(make_settings("refcocog", seed=3, sizes=SIZES), root, workers=1)
    return root


def test_the_tree_is_what_the_check_and_the_reader_of_the_real_one_take(tree):
    assert check_refcocog(tree).facts == ("train: 8 pictures, masks of 8 annotations",)
    reader = RefCOCOg(tree)
    assert reader[0].frames.read([0]).shape == (1, 840, 840, 3)
    assert {row.original_size for row in reader.rows} == {(224, 224)}


def test_boxes_and_points_are_those_of_the_masks(tree):
    """Stored corners are inclusive and in pixels of the enlarged picture: 840 / 224 = 3.75 to one."""
    for row, clip in zip(RefCOCOg(tree).rows, RefCOCOg(tree), strict=True):
        ((x1, y1, x2, y2),) = row.boxes
        assert clip.masks.boxes(0)[0].tolist() == pytest.approx([x1, y1, x2 + 1, y2 + 1], abs=2)
        assert len(row.points) == 2
        mask = clip.masks.union()[0]
        assert all(mask[y, x] for x, y in row.points)
        assert row.points[0] != row.points[1]


def test_the_expression_names_one_visible_thing(tree):
    truths = {truth.clip: truth for truth in read_truth(tree)}
    for clip in RefCOCOg(tree):
        truth = truths[clip.video]
        assert described_things(clip.expression, truth.things) == set(truth.targets)
        assert truth.things[truth.targets[0]].areas[0] * 840**2 == pytest.approx(clip.masks.areas.sum(), rel=0.02)
        assert truth.evidence == "looks"


def test_annotations_are_left_out_unless_asked_for_and_the_table_says_what_its_columns_are(tmp_path):
    for name in ("first", "second"):
        write_tree(make_settings("refcocog", seed=1, sizes={"train": 2}), tmp_path / name, workers=1)
    paths = [tmp_path / name / "data" / "train-00000-of-00001.parquet" for name in ("first", "second")]

    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert not (tmp_path / "first" / "instances.json").exists()
    features = json.loads(parquet.read_schema(paths[0]).metadata[b"huggingface"])["info"]["features"]
    assert features["image"] == {"_type": "Image"}
    assert features["img_width"] == {"dtype": "int64", "_type": "Value"}


def test_it_is_made_from_the_command_line(tmp_path, capsys):
    arguments = ["--benchmark", "refcocog", "--workers", "1", "--out", str(tmp_path / "tree"), "--size", "train=2"]
    assert main(arguments) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[:3] == ["train", "2", "clips"]
