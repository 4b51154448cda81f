import pickle

import numpy as np
import pytest
from refcocog_tree import LISTED, TAGGED, picture, row, rows, write_annotations, write_refcocog

from datamodules.errors import ConfigError, DataLayoutError, MediaError
from datamodules.layout import check_refcocog, main
from datamodules.lessons import lesson_from_labels
from datamodules.reader import WithoutTruth
from datamodules.records import FrameBudget, FrameGrounding, Grounding, Keyframe, ParseReport, Plan, Rollout
from datamodules.refcocog import RefCOCOg
from datamodules.refcocog_module import RefCOCOgDataModule
from datamodules.refcocog_table import parse_solution
from rewards.alignment import AlignmentReward
from rewards.consistency import ConsistencyReward
from rewards.saliency import SaliencyReward


@pytest.fixture
def root(tmp_path):
    return write_refcocog(tmp_path / "refcocog")


@pytest.mark.parametrize("saved", [False, True])
def test_a_row_is_a_clip_of_one_frame(tmp_path, saved):
    """Published as Parquet or saved as Arrow; three rows in two groups."""
    reader = RefCOCOg(write_refcocog(tmp_path / "t", saved=saved), fps=0.5, budget=FrameBudget(glance_max_pixels=100))
    clip = reader[0]

    assert [one.expression for one in reader] == ["the man in a hat", "both cups", "the corner"]
    assert [int(one.frames.read([0])[0, 400, 400, 0]) for one in reader] == [40, 80, 120]
    assert (clip.id, clip.task, clip.kind, clip.video) == (f"refcocog/train/0:{TAGGED}", "refcocog", "image", TAGGED)
    assert (clip.frames.count, clip.duration_s, clip.frames.size) == (1, 2.0, (840, 840))
    assert clip.glance.frames.shape == (1, 10, 10, 3)
    assert (clip.audio, clip.masks, clip.is_null, clip.has_truth) == (None, None, False, True)
    assert reader.nulls == (False,) * 3


@pytest.mark.parametrize("has_masks", [False, True])
def test_a_picture_may_stand_still_for_several_frames(root, has_masks):
    """Four equal frames at two per second, with the truth of the picture on each."""
    if has_masks:
        write_annotations(root)
    one, clip = RefCOCOg(root)[0], RefCOCOg(root, fps=2.0, still_frames=4, budget=FrameBudget(glance_frames=3))[0]

    assert (clip.frames.count, clip.duration_s, clip.frame_names) == (4, 2.0, ("0", "1", "2", "3"))
    assert all(np.array_equal(frame, one.frames.read([0])[0]) for frame in clip.frames.read([0, 3]))
    assert len(clip.glance.frames) == 3
    with pytest.raises(IndexError):
        clip.frames.read([4])
    if has_masks:
        assert clip.masks.frames == 4
        assert np.array_equal(clip.masks.dense(), np.repeat(one.masks.dense(), 4, axis=0))
    else:
        assert clip.boxes.frames == 4
        assert all(clip.boxes.boxes(frame).tolist() == one.boxes.boxes(0).tolist() for frame in range(4))


def test_a_picture_stands_still_for_at_least_a_frame(root):
    module = RefCOCOgDataModule(str(root), still_frames=3)
    module.setup("validate")
    assert next(iter(module.val_dataloader()))[0].frames.count == 3
    with pytest.raises(ConfigError, match=r"data\.val_size is 0.*\n.*data\.still_frames is 0; it must be at least 1"):
        RefCOCOgDataModule(str(root), still_frames=0, val_size=0)


def test_boxes_are_half_open_and_may_touch_the_edge(root):
    """(210, 420) to (629, 839), corners inclusive; two objects; (0, 0) to (9, 19)."""
    boxes = [clip.boxes.boxes(0).tolist() for clip in RefCOCOg(root)]

    assert boxes == [
        [[210, 420, 630, 840]],
        [[0, 10, 100, 110], [200, 10, 300, 110]],
        [[0, 0, 10, 20]],
    ]


@pytest.mark.parametrize(
    ("text", "boxes", "points"),
    [
        ("<points>(1,2),(3,4)</points> x <box>(5,6),(7,8)</box>", ((5, 6, 7, 8),), ((1, 2), (3, 4))),
        ('[{"bbox_2d": [1, 2, 3, 4]}, {"point_2d": [5, 6]}]', ((1, 2, 3, 4),), ((5, 6),)),
        ('{"bbox_2d": [1, 2, 3, 4]}', (), ()),
        ('[{"bbox_2d": [1, 2, 3]}, {"bbox_2d": "1234"}, 7]', (), ()),
        ("<box>(1,2)</box>", (), ()),
        ("", (), ()),
    ],
)
def test_solutions_are_read_in_either_form(text, boxes, points):
    assert parse_solution(text) == (boxes, points)


def test_annotations_beside_the_table_give_masks(root):
    """A square of 100 of 420 pixels is one of 200 of 840, in two pieces; two objects; one column of 639."""
    write_annotations(root)
    one, two, strip = (clip.masks for clip in RefCOCOg(root))

    assert all(clip.boxes is None for clip in RefCOCOg(root))
    assert (one.objects, one.size, one.frames) == (1, (840, 840), 1)
    assert one.areas.sum() == pytest.approx(2 * 200 * 200, rel=0.03)
    assert one.boxes(0)[0].tolist() == pytest.approx([0, 0, 600, 200], abs=2)
    assert two.objects == 2
    assert two.dense()[0, 1, 100, 400]
    assert not two.dense()[0, 0, 100, 400]
    assert strip.dense()[0, 0, :, 0].all()
    assert strip.boxes(0)[0, 2] <= 2


def test_only_its_own_masks_travel_with_a_clip(root):
    write_annotations(root)
    clips = list(RefCOCOg(root))

    assert b"annotations" not in pickle.dumps(clips[0])
    assert len(pickle.dumps(clips[0])) < 4000
    assert pickle.loads(pickle.dumps(clips[1])).masks.objects == 2


def test_missing_annotations_are_named(root):
    (root / "instances.json").write_text('{"images": [{"id": 1, "height": 4, "width": 4}], "annotations": []}')

    with pytest.raises(DataLayoutError, match=r"4 of 4 annotations are not in .*; first: 17"):
        check_refcocog(root)
    with pytest.raises(MediaError, match=r"refcocog/train/0:refcocog_17: masks in .* an annotation is missing"):
        _ = RefCOCOg(root)[0].masks
    (root / "instances.json").write_text('{"images": []}')
    with pytest.raises(DataLayoutError, match=r"instances\.json is not of COCO's form \(KeyError: 'annotations'\)"):
        RefCOCOg(root)


@pytest.mark.parametrize(
    ("solution", "message"),
    [
        ("nothing", r"row 1 \(refcocog_5\): solution has no <box>"),
        ("<box>(0,0),(840,10)</box>", r"row 1 \(refcocog_5\): box \(0, 0, 840, 10\) is not within a picture"),
        ("<box>(20,0),(10,10)</box>", r"box \(20, 0, 10, 10\) is not within"),
    ],
)
def test_rows_without_a_usable_box_are_refused(tmp_path, solution, message):
    root = write_refcocog(tmp_path / "t", [*rows()[:1], row("refcocog_5", "it", solution, 9)])

    with pytest.raises(DataLayoutError, match=message):
        check_refcocog(root)


def test_what_is_no_table_is_said_so(tmp_path, root):
    with pytest.raises(DataLayoutError, match=r"there is no data/train-\*\.parquet or"):
        check_refcocog(tmp_path / "elsewhere")
    (root / "data" / "train-00000-of-00001.parquet").write_bytes(b"PAR1 cut off")
    with pytest.raises(DataLayoutError, match="a table cannot be read"):
        check_refcocog(root)


def test_a_missing_column_is_named(tmp_path):
    table = [{key: value for key, value in one.items() if key != "solution"} for one in rows()]

    with pytest.raises(DataLayoutError, match=r"train-00000-of-00001\.parquet has no column solution"):
        check_refcocog(write_refcocog(tmp_path / "t", table))


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ({"bytes": b"no picture", "path": None}, "cannot be decoded"),
        ({"bytes": None, "path": "gone.jpg"}, "cannot be decoded"),
        ({"bytes": picture(1, side=64), "path": None}, "is 64x64 pixels, expected 840x840"),
    ],
)
def test_a_broken_picture_names_its_clip(tmp_path, stored, message):
    root = write_refcocog(tmp_path / "t", [rows()[0] | {"image": stored}])
    clip = RefCOCOg(root)[0]

    with pytest.raises(MediaError, match=rf"refcocog/train/0:refcocog_17: picture in .*row 0 {message}"):
        _ = clip.glance


def test_the_check_says_what_there_is(root, capsys):
    assert check_refcocog(root.parent).facts == ("train: 3 pictures, boxes alone",)
    write_annotations(root)
    assert main(["refcocog", str(root)]) == 0
    assert "train: 3 pictures, masks of 4 annotations" in capsys.readouterr().out


def test_boxes_alone_are_enough_for_alignment_and_for_nothing_that_needs_masks(root):
    """A box over the left half of a box of the same height: IoU 1/2. Masks would be needed for the other two."""
    clip = RefCOCOg(root)[0]
    plan = Plan((Keyframe(0, "it", 0.0, 1.0),), False, ParseReport(True))
    found = FrameGrounding(0, np.array([[210, 420, 420, 840]], np.float32), np.ones(1, np.float32))
    rollout = Rollout(clip, 0, "", None, None, False, plan, Grounding((found,)))

    assert AlignmentReward()([rollout]) == [pytest.approx(0.5)]
    assert ConsistencyReward()([rollout]) == [None]
    assert SaliencyReward()([rollout]) == [None]
    (segment,) = lesson_from_labels(clip, keyframes=4).demonstrations[0].segments
    assert (segment.start_s, segment.end_s, segment.description) == (0.0, 1.0, "the man in a hat")


def test_every_tenth_picture_validates(tmp_path):
    table = [row(f"refcocog_{n}", f"thing {n}", rows()[0]["solution"], 10 * n) for n in range(12)]
    data = RefCOCOgDataModule(str(write_refcocog(tmp_path / "t", table)), val_size=None, prompts_per_step=11, fps=0.1)
    data.setup("fit")

    train = [clip.id for batch in data.train_dataloader() for clip in batch]
    val = [clip for batch in data.val_dataloader() for clip in batch]
    assert (len(train), len(val)) == (11, 1)
    assert val[0].id not in train
    assert val[0].duration_s == 10
    with pytest.raises(ConfigError, match="has no split to test on"):
        data.setup("test")


def test_held_out_pictures_are_the_same_for_every_seed(tmp_path):
    table = [row(f"refcocog_{n}", f"thing {n}", rows()[0]["solution"], 5 * n) for n in range(40)]
    root = str(write_refcocog(tmp_path / "t", table))
    held_out = []
    for seed in (0, 1, 2):
        data = RefCOCOgDataModule(root, val_size=None, seed=seed)
        data.setup("fit")
        held_out.append([clip.id for batch in data.val_dataloader() for clip in batch])

    assert len(held_out[0]) == 4
    assert held_out[0] == held_out[1] == held_out[2]


def test_a_name_with_several_annotations(root):
    assert RefCOCOg(root).rows[1].id == LISTED
    assert [one.annotations for one in RefCOCOg(root).rows] == [(17,), (21, 35), (44,)]


def test_without_ground_truth_there_are_no_boxes_either(root):
    clip = WithoutTruth(RefCOCOg(root))[0]
    assert (clip.boxes, clip.masks, clip.has_truth) == (None, None, False)
