import hashlib
import os
import time
from pathlib import Path

import pytest

from datamodules.avshapes import make
from datamodules.avshapes.make import default_cache_dir, ensure_avshapes, is_complete, write_tree
from datamodules.avshapes.scene import World
from datamodules.avshapes.settings import make_settings
from datamodules.avshapes.truth import read_truth
from datamodules.errors import ConfigError, DataLayoutError

SMALL = {"train": 2, "val": 1, "test_s": 0, "test_u": 1, "test_n": 1, "null_train": 1, "null_val": 0}


def digests(root: Path) -> dict[str, str]:
    files = (path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture
def cached(tmp_path: Path) -> Path:
    return ensure_avshapes("refavs", sizes=SMALL, cache_dir=tmp_path, workers=1)


@pytest.mark.parametrize(("benchmark", "sizes"), [("refavs", SMALL), ("revos", {"train": 2, "valid": 2})])
def test_the_same_settings_give_the_same_bytes_in_any_number_of_processes(tmp_path, benchmark, sizes):
    one = ensure_avshapes(benchmark, seed=2, sizes=sizes, cache_dir=tmp_path / "a", workers=1)
    two = ensure_avshapes(benchmark, seed=2, sizes=sizes, cache_dir=tmp_path / "b", workers=2)

    assert one.name == two.name
    assert digests(one) == digests(two)


@pytest.mark.parametrize(
    ("benchmark", "small", "large", "media"),
    [
        ("refavs", SMALL, {**SMALL, "train": 4, "val": 0}, "media"),
        ("revos", {"train": 2, "valid": 1}, {"train": 3, "valid": 1}, "JPEGImages"),
    ],
)
def test_a_clip_does_not_depend_on_how_many_there_are(tmp_path, benchmark, small, large, media):
    few = digests(ensure_avshapes(benchmark, sizes=small, cache_dir=tmp_path, workers=1))
    many = digests(ensure_avshapes(benchmark, sizes=large, cache_dir=tmp_path, workers=1))

    shared = {name for name in few if name in many and name.startswith(media)}
    assert len(shared) >= 20
    assert all(few[name] == many[name] for name in shared)


def test_seeds_and_dials_change_the_clips(tmp_path):
    sizes = {"train": 1, "valid": 0}
    trees = [
        ensure_avshapes("revos", seed=seed, sizes=sizes, world=world, cache_dir=tmp_path, workers=1)
        for seed, world in ((0, None), (1, None), (0, World(distinct_shapes=False, grain=1.0)))
    ]

    assert len({tree.name for tree in trees}) == 3
    assert len({tuple(sorted(set(digests(tree).values()))) for tree in trees}) == 3


def test_a_finished_tree_is_found_again(tmp_path, cached, monkeypatch):
    monkeypatch.setattr(make, "write_tree", lambda *_, **__: pytest.fail("written twice"))

    assert ensure_avshapes("refavs", sizes=SMALL, cache_dir=str(tmp_path)) == cached
    assert [path.name for path in tmp_path.iterdir()] == [cached.name]


def test_the_cache_follows_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    root = ensure_avshapes("revos", sizes={"train": 1, "valid": 0}, workers=1)
    assert root.parent == tmp_path / "omni-r1" / "avshapes"

    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_cache_dir() == Path.home() / ".cache" / "omni-r1" / "avshapes"


def test_a_failed_write_leaves_nothing_behind(tmp_path, monkeypatch):
    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(make, "finish_refavs", fail)

    with pytest.raises(OSError, match="disk full"):
        ensure_avshapes("refavs", sizes=SMALL, cache_dir=tmp_path, workers=1)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_run_left_is_not_taken_for_a_tree(tmp_path, cached):
    """A fresh leftover may belong to a living process and stays; one of yesterday is removed."""
    settings = make_settings("refavs", seed=1, sizes=SMALL)
    fresh, old = (tmp_path / f".partial-refavs-{settings.digest}-{name}" for name in ("fresh", "old"))
    for leftover in (fresh, old):
        (leftover / "media").mkdir(parents=True)
    yesterday = time.time() - 25 * 3600
    os.utime(old, (yesterday, yesterday))

    root = ensure_avshapes("refavs", seed=1, sizes=SMALL, cache_dir=tmp_path, workers=1)

    assert is_complete(root)
    assert fresh.exists()
    assert not old.exists()


def test_of_two_writers_the_first_wins(tmp_path, cached):
    """The second finds the first one's tree in its place, keeps it and drops its own."""
    before = {path: path.stat().st_mtime_ns for path in cached.rglob("*")}

    write_tree(make_settings("refavs", sizes=SMALL), cached, workers=1)

    assert {path: path.stat().st_mtime_ns for path in cached.rglob("*")} == before
    assert [path.name for path in tmp_path.iterdir()] == [cached.name]


def test_a_foreign_folder_is_not_overwritten(tmp_path):
    foreign = tmp_path / "mine"
    foreign.mkdir()
    (foreign / "notes.txt").write_text("keep", encoding="utf-8")

    with pytest.raises(FileExistsError, match=r"found something else there. Remove it, or choose another folder"):
        write_tree(make_settings("revos", sizes={"train": 1, "valid": 0}), foreign, workers=1)
    assert (foreign / "notes.txt").read_text(encoding="utf-8") == "keep"


def test_wrong_settings_are_named_together_before_anything_is_written(tmp_path):
    with pytest.raises(ConfigError, match="cannot be written") as caught:
        ensure_avshapes(
            "refavs", seed=-1, sizes={"trian": 3, "val": -2}, world=World(frames=20, fps=2.0), cache_dir=tmp_path
        )

    message = str(caught.value)
    for part in (
        "Unknown size 'trian'; refavs has train, val, test_s",
        "size val must be 0 or more, found -2",
        "seed must be 0 or more, found -1",
        "RefAVS clips have exactly 10 frames, one per second; found world.frames 20 and world.fps 2",
    ):
        assert part in message
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_benchmark_is_refused():
    with pytest.raises(ConfigError, match="benchmark must be one of refavs, revos, mevis, refcocog, found 'ytvos'"):
        make_settings("ytvos")


def test_an_empty_benchmark_is_refused():
    with pytest.raises(ConfigError, match="Every split is empty; set one of train, valid above 0"):
        make_settings("revos", sizes={"train": 0, "valid": 0})


def test_a_root_without_truth_says_so(tmp_path):
    with pytest.raises(DataLayoutError, match="Real downloads have no such file"):
        read_truth(tmp_path)


def test_longer_videos_are_allowed_in_revos(tmp_path):
    world = World(distinct_shapes=False, sounding=(1.0,), size=64, frames=20, fps=2.0)
    root = ensure_avshapes("revos", sizes={"train": 1, "valid": 0}, world=world, cache_dir=tmp_path, workers=1)

    assert len(list(root.rglob("*.jpg"))) == 20
