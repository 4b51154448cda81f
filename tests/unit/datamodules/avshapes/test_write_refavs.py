import csv
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from datamodules.avshapes.make import write_tree
from datamodules.avshapes.render import render_frames, visible_areas
from datamodules.avshapes.scene import SHAPES, UNSEEN_LOOKS, UNSEEN_TONES, Scene, sample_scene
from datamodules.avshapes.settings import make_settings
from datamodules.avshapes.sound import render_audio
from datamodules.avshapes.truth import Truth, read_truth
from datamodules.avshapes.world import Stream, generator
from datamodules.avshapes.write_refavs import _sample_vid

Row = dict[str, str]

SIZES = {"train": 6, "val": 2, "test_s": 4, "test_u": 4, "test_n": 5, "null_train": 3, "null_val": 1}


def read_table(root: Path) -> list[Row]:
    with (root / "metadata.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def folder_of(row: Row) -> str:
    return row["uid"].rsplit("_", 2)[0]


def category_of(row: Row) -> str:
    return row["uid"].rsplit("_", 2)[1]


@pytest.fixture(scope="module")
def refavs_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("trees") / "refavs"
    write_tree(make_settings("refavs", seed=3, sizes=SIZES), root, workers=1)
    return root


@pytest.fixture(scope="module")
def rows(refavs_tree: Path) -> list[Row]:
    return read_table(refavs_tree)


@pytest.fixture(scope="module")
def truths(refavs_tree: Path) -> list[Truth]:
    return read_truth(refavs_tree)


def test_the_table_has_the_real_header_and_line_ends(refavs_tree):
    content = (refavs_tree / "metadata.csv").read_bytes()

    assert content.startswith(b"vid,uid,split,fid,exp\r\n")
    assert content.endswith(b"\r\n")
    assert content.count(b"\n") == content.count(b"\r\n")


def test_splits_hold_as_many_folders_as_asked(rows):
    folders = defaultdict(set)
    for row in rows:
        folders[row["split"]].add(folder_of(row))

    assert {split: len(names) for split, names in folders.items()} == {
        "train": SIZES["train"] + SIZES["null_train"],
        "val": SIZES["val"] + SIZES["null_val"],
        "test_s": SIZES["test_s"],
        "test_u": SIZES["test_u"],
        "test_n": SIZES["test_n"],
    }
    every = [name for names in folders.values() for name in names]
    assert len(every) == len(set(every))


def test_names_follow_the_real_table(rows):
    """vid: eleven characters, start and end ten seconds apart; uid: folder, category, running number per category."""
    counts: Counter[tuple[str, str]] = Counter()
    for row in rows:
        start, end = (int(part) for part in row["vid"][12:].split("_"))
        assert row["vid"][11] == "_"
        assert end - start == 10_000
        folder, category, number = row["uid"].rsplit("_", 2)
        counts[folder, category] += 1
        assert int(number) == counts[folder, category]
        assert category in (*SHAPES, "null")
        assert folder == row["vid"] or (
            category == "null" and folder in (f"null_c-{row['vid']}", f"null_m-{row['vid']}")
        )
        assert 0 <= int(row["fid"]) <= 32


def test_some_ids_begin_with_a_dash_and_some_hold_underscores():
    """About 4 % of 2000 begin with `-`; a path that begins so is an option to careless tools."""
    vids = [_sample_vid(generator((index,), Stream.NAMES)) for index in range(2000)]

    assert 40 < sum(vid.startswith("-") for vid in vids) < 140
    assert sum("_" in vid[:11] for vid in vids) > 100
    assert len(set(vids)) == len(vids)


def test_each_folder_has_ten_frames_and_ten_seconds_of_sound(refavs_tree, rows):
    assert {path.name for path in (refavs_tree / "media").iterdir()} == {folder_of(row) for row in rows}
    for folder in (refavs_tree / "media").iterdir():
        assert {path.name for path in (folder / "frames").iterdir()} == {f"{index}.jpg" for index in range(10)}
        assert Image.open(folder / "frames" / "0.jpg").size == (224, 224)
        sound = soundfile.info(folder / "audio.wav")
        assert (sound.samplerate, sound.channels, sound.frames, sound.subtype) == (16_000, 1, 160_000, "PCM_16")


def by_folder(rows: list[Row], truths: list[Truth]) -> dict[str, list[tuple[Row, Truth]]]:
    groups = defaultdict(list)
    for row, truth in zip(rows, truths, strict=True):
        groups[folder_of(row)].append((row, truth))
    return groups


def scene_of(truth: Truth) -> Scene:
    return sample_scene(truth.scene_key, unseen=truth.split == "test_u")


def test_masks_and_media_show_the_scene(refavs_tree, rows, truths):
    """Masks are 0 or 255 and equal the rendered ones; frames and sound differ only by coding."""
    for name, group in by_folder(rows, truths).items():
        scene = scene_of(group[0][1])
        frames, masks = render_frames(scene)
        for row, truth in group:
            folder = refavs_tree / "gt_mask" / name / f"fid_{row['fid']}"
            assert sorted(path.name for path in folder.iterdir()) == [f"{index:05d}.png" for index in range(10)]
            stored = np.stack([np.asarray(Image.open(folder / f"{index:05d}.png")) for index in range(10)])
            assert ((stored == 0) | (stored == 255)).all()
            expected = masks[:, truth.targets[0]] if truth.targets else np.zeros_like(masks[:, 0])
            assert np.array_equal(stored > 0, expected)
        media = refavs_tree / "media" / name
        frame = np.asarray(Image.open(media / "frames" / "5.jpg")).astype(int)
        assert np.abs(frame - frames[5]).mean() < 3
        if group[0][1].audio == "own":
            samples, _ = soundfile.read(media / "audio.wav", dtype="float32")
            assert np.abs(samples - render_audio(scene)).max() < 1e-4


def test_categories_and_fids_belong_to_one_thing(rows, truths):
    for row, truth in zip(rows, truths, strict=True):
        if truth.targets:
            target = truth.things[truth.targets[0]]
            assert category_of(row) == target.shape
            assert int(row["fid"]) == target.object_id
        assert len({thing.object_id for thing in truth.things}) == len(truth.things)


def test_null_rows_follow_the_real_table(refavs_tree, rows):
    """Raw vid, category null, fid 0, black masks, four rows per folder; no full stop, unlike every ordinary row."""
    per_folder = Counter(folder_of(row) for row in rows if row["split"] == "test_n")
    assert set(per_folder.values()) == {4}
    ordinary = {row["vid"] for row in rows if row["split"] in ("train", "test_s") and category_of(row) != "null"}
    for row in rows:
        is_null = category_of(row) == "null"
        assert is_null == folder_of(row).startswith(("null_c-", "null_m-"))
        assert is_null != row["exp"].endswith(".")
        assert is_null or row["split"] != "test_n"
        if is_null:
            assert row["fid"] == "0"
            assert not (refavs_tree / "gt_mask" / folder_of(row) / "fid_1").exists()
    nulls = {row["vid"] for row in rows if row["split"] == "train" and category_of(row) == "null"}
    assert nulls <= ordinary


def test_rows_of_a_null_folder_are_adjacent(rows):
    """The official score of test_n pools batches of four rows in the order of the table."""
    folders = [folder_of(row) for row in rows if row["split"] == "test_n"]

    assert all(len(set(folders[start : start + 4])) == 1 for start in range(0, len(folders), 4))


def test_null_sounds_are_silence_or_of_shapes_that_are_not_there(refavs_tree, rows, truths):
    kinds = set()
    for row, truth in zip(rows, truths, strict=True):
        if truth.audio == "own":
            continue
        kinds.add(truth.audio)
        samples, _ = soundfile.read(refavs_tree / "media" / folder_of(row) / "audio.wav")
        present = {thing.shape for thing in truth.things}
        assert folder_of(row).startswith("null_m-" if truth.audio == "muted" else "null_c-")
        if truth.audio == "muted":
            assert truth.sounds == ()
            assert np.abs(samples).max() < 0.01
        else:
            assert truth.sounds
            assert not {sound.shape for sound in truth.sounds} & present
            for sound in truth.sounds:
                heard = samples[int(sound.start_s * 16_000) : int(sound.end_s * 16_000)]
                assert np.sqrt(np.mean(heard**2)) > 0.015
    assert kinds == {"muted", "exchanged"}


def test_held_out_pairs_are_in_test_u_alone_and_are_its_only_targets(truths):
    for truth in truths:
        looks = {(thing.color, thing.shape) for thing in truth.things}
        tones = {(sound.shape, sound.pitch) for sound in truth.sounds}
        if truth.split != "test_u":
            assert not looks & UNSEEN_LOOKS
            assert not tones & UNSEEN_TONES
            continue
        target = truth.things[truth.targets[0]]
        own_tones = {(sound.shape, sound.pitch) for sound in truth.sounds if sound.shape == target.shape}
        assert (target.color, target.shape) in UNSEEN_LOOKS or own_tones & UNSEEN_TONES
    assert any(truth.split == "test_u" for truth in truths)


def test_truth_describes_every_row(rows, truths):
    for number, (row, truth) in enumerate(zip(rows, truths, strict=True)):
        assert truth.expression_id == str(number)
        assert (truth.split, truth.clip, truth.text) == (row["split"], folder_of(row), row["exp"])


def test_truth_describes_the_things_and_sounds_of_every_folder(rows, truths):
    for group in by_folder(rows, truths).values():
        truth = group[0][1]
        scene = scene_of(truth)
        areas = visible_areas(scene)
        colors = [thing.color for thing in scene.things]
        for index, thing in enumerate(truth.things):
            assert thing.name == scene.things[index].name
            assert thing.areas == pytest.approx(areas[:, index], abs=1e-5)
            assert set(thing.same_color) == {i for i, color in enumerate(colors) if color == thing.color} - {index}
            assert thing.same_shape == ()
        starts = [sound.start_s for sound in truth.sounds]
        assert starts == sorted(starts)
        if truth.audio == "own":
            assert len(starts) == sum(thing.sound is not None for thing in scene.things)
