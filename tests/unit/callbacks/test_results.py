"""Tables of a test, and where their numbers come from."""

import hashlib
import json
import subprocess
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch.distributed as dist
from stage import Logger, Writer, evaluation_of, result_of, trainer_like

from callbacks import provenance
from callbacks.provenance import commit, file_hash, weights_of
from callbacks.results import ResultsWriter, remarks, score_table

RESULTS = [result_of("a", j=0.25), result_of("b", kind="unseen", j=0.75), result_of("n", kind="null", j=None)]
TEST = evaluation_of(RESULTS, prefix="test/")


class Module:
    last_test = TEST
    last_validation = evaluation_of(RESULTS)


def test_there_is_a_row_per_kind_and_one_for_all() -> None:
    """J of 0.25 and 0.75 give 50 over both; null clips have no J, and clips with a target no null answer."""
    header, rows = score_table(TEST, "test/")
    assert header == ["clips", "n", "J&F", "J", "F", "null right", "wrongly absent"]
    assert rows == [
        ["null", "1", "-", "-", "-", "100.0", "-"],
        ["seen", "1", "25.0", "25.0", "25.0", "-", "0.0"],
        ["unseen", "1", "75.0", "75.0", "75.0", "-", "0.0"],
        ["all", "3", "50.0", "50.0", "50.0", "100.0", "0.0"],
    ]


def test_a_test_is_printed_and_written_with_its_origin(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.yaml").write_text("seed_everything: 0\n")
    checkpoint = tmp_path / "last.ckpt"
    checkpoint.write_bytes(b"weights")
    trainer = trainer_like(
        [Logger(Writer())], folder=tmp_path, ckpt_path=str(checkpoint), datamodule=SimpleNamespace(root="here")
    )
    ResultsWriter().on_test_end(trainer, Module())
    assert "unseen" in capsys.readouterr().out
    written = json.loads((tmp_path / "results.json").read_text())
    assert written["metrics"]["test/jf"] == pytest.approx(0.5)
    origin = written["provenance"]
    assert origin["checkpoint_sha256"] == hashlib.sha256(b"weights").hexdigest()
    assert origin["config_sha256"] == hashlib.sha256(b"seed_everything: 0\n").hexdigest()
    assert origin["data_root"] == "here"
    assert origin["weights"] == {}
    assert "| unseen | 1 | 75.0 |" in (tmp_path / "results.md").read_text()
    clips = [json.loads(line) for line in (tmp_path / "clips.jsonl").read_text().splitlines()]
    assert [clip["clip"] for clip in clips] == ["a", "b", "n"]
    assert clips[0]["j"] == 0.25


def test_the_weights_of_every_part_are_identified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Retrained weights under the same path make another origin; a part that shares weights has no path."""
    file = tmp_path / "reasoner" / "model.safetensors"
    file.parent.mkdir()
    file.write_bytes(b"first")
    cached = tmp_path / "models--owner--name" / "refs" / "main"
    cached.parent.mkdir(parents=True)
    cached.write_text("abc123")
    monkeypatch.setattr(provenance, "HF_HUB_CACHE", str(tmp_path))
    parts = {"reasoner": SimpleNamespace(path=str(file.parent), adapter="owner/tuned"), "grounder": SimpleNamespace()}
    module = SimpleNamespace(**parts, propagator=SimpleNamespace(path="owner/name"))
    first = weights_of(module)
    assert first == {
        "reasoner": {
            "path": str(file.parent),
            "files": {"model.safetensors": {"bytes": 5, "sha256": hashlib.sha256(b"first").hexdigest()}},
        },
        "propagator": {"path": "owner/name", "revision": "abc123"},
        "adapter": {"path": "owner/tuned", "revision": None},
    }
    file.write_bytes(b"other")
    assert weights_of(module) != first
    monkeypatch.setattr(provenance, "MAX_HASHED", 4)
    assert set(weights_of(module)["reasoner"]["files"]["model.safetensors"]) == {"bytes", "changed"}
    assert weights_of(SimpleNamespace(reasoner=SimpleNamespace(path="owner/none"))) == {
        "reasoner": {"path": "owner/none", "revision": None}
    }


def test_only_a_validation_of_its_own_is_reported(tmp_path: Path) -> None:
    trainer = trainer_like([Logger(Writer())], folder=tmp_path)
    ResultsWriter().on_validation_end(trainer, Module())
    assert not list(tmp_path.iterdir())
    trainer.state.fn = "validate"
    ResultsWriter().on_validation_end(trainer, Module())
    assert (tmp_path / "results.md").exists()


def test_results_come_last_and_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who finds `results.json` reads the lines of the clips, which a kill must not leave out."""
    seen = []

    def replace(path: Path, target: Path) -> None:
        seen.append((target.name, sorted(file.name for file in tmp_path.iterdir()), json.loads(path.read_text())))
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(KeyboardInterrupt):
        ResultsWriter().on_test_end(trainer_like([Logger(Writer())], folder=tmp_path), Module())
    ((name, files, content),) = seen
    assert name == "results.json"
    assert {"clips.jsonl", "results.md"} <= set(files)
    assert content["clips"] == 3
    assert not (tmp_path / "results.json").exists()
    assert len((tmp_path / "clips.jsonl").read_text().splitlines()) == 3


def test_clips_that_another_process_left_out_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """This process left out nothing, the other one two clips, which the means lack all the same."""

    def gather(shares: list[object], own: object) -> None:
        shares[:] = [own, ["x", "y"]]

    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(dist, "all_gather_object", gather)
    data = SimpleNamespace(root="here", skipped=Counter())
    ResultsWriter().on_test_end(trainer_like([Logger(Writer())], folder=tmp_path, datamodule=data), Module())
    remark = "2 clips could not be read and were left out"
    assert f"not comparable with published numbers: {remark}" in capsys.readouterr().out
    assert json.loads((tmp_path / "results.json").read_text())["not_comparable"] == [remark]


def test_nothing_is_written_when_off_or_without_results(tmp_path: Path) -> None:
    trainer = trainer_like([Logger(Writer())], folder=tmp_path)
    ResultsWriter(enabled=False).on_test_end(trainer, Module())
    ResultsWriter().on_test_end(trainer, object())
    assert not list(tmp_path.iterdir())


def test_the_commit_says_when_files_differ(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", "-C", str(tmp_path), *identity, *arguments], check=True, capture_output=True)

    assert commit(tmp_path) is None
    git("init")
    (tmp_path / "file").write_text("1")
    git("add", "file")
    git("commit", "-m", "first")
    clean = commit(tmp_path)
    assert clean is not None
    assert len(clean) == 40
    (tmp_path / "file").write_text("2")
    assert commit(tmp_path) == f"{clean}+changes"


def test_a_missing_file_has_no_hash(tmp_path: Path) -> None:
    assert file_hash(tmp_path / "nothing") is None


def test_a_part_of_a_split_is_named_with_the_source_that_drew_another(tmp_path: Path) -> None:
    parts = {"refavs": SimpleNamespace(test_size=2), "revos": SimpleNamespace(test_size=5)}
    trainer = trainer_like([], folder=tmp_path, datamodule=SimpleNamespace(test_size=2, parts=parts))
    assert remarks(trainer, "test/") == [
        "data.test_size is 2: a part of each split was drawn",
        "data.sources.revos.test_size is 5: a part of each split was drawn",
    ]
    assert remarks(trainer, "val/") == []
