"""`test` and `predict` on every benchmark, with real classes and random weights: one set of numbers, by two ways.

Masks written by `predict` and scored by `metrics.score` must give what `test` reports. Answers and masks are made up,
since random weights name no keyframe and mark nothing.
"""

import json
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from datamodules.avshapes.make import ensure_avshapes
from datamodules.masks import MaskTrack
from datamodules.records import Clip, Grounding
from metrics.score.__main__ import main as score
from models.propagator import SAM2Propagator
from models.reasoner import Reasoner

Command = Callable[[Sequence[str]], int]

PLAN = (
    "<think>there</think><answer>"
    '{"start_time": "00:02.00", "end_time": "00:03.00", "description": "the red circle"}</answer>'
)


def moving_square(clip: Clip, groundings: Sequence[Grounding]) -> list[MaskTrack]:
    """A square that depends on the clip's name, and moves."""
    left, top = divmod(zlib.crc32(clip.id.encode()) % 10_000, 100)
    masks = np.zeros((clip.frames.count, 1, *clip.frames.size), dtype=bool)
    for index in range(clip.frames.count):
        masks[index, 0, top : top + 90, left + index : left + index + 80] = True
    return [MaskTrack.from_dense(masks)] * len(groundings)


SIZES = {
    "refavs": "{train: 1, val: 1, test_s: 2, test_u: 2, test_n: 2, null_train: 0, null_val: 0}",
    "revos": "{train: 2, valid: 2, non_existent_every: 1}",
    "mevis": "{train: 2, valid_u: 2, valid: 1}",
}
SPLITS = {"refavs": ("test_s", "test_u", "test_n"), "revos": ("valid",), "mevis": ("valid_u",)}
GROUPS = {
    "refavs": {"test_s", "test_u", "test_n", "mix"},
    "revos": {"referring", "reasoning", "overall", "non-existent"},
    "mevis": {"valid_u"},
}


def line(verb: str, benchmark: str, weights: Path, cache: Path, runs: Path) -> list[str]:
    parts = [f"--model.{part}.path={weights / part}" for part in ("reasoner", "grounder", "propagator")]
    return [
        verb,
        f"--config=configs/{benchmark}.yaml",
        *parts,
        f"--trainer.logger.save_dir={runs}",
        f"--data.avshapes_cache={cache}",
        f"--data.avshapes_sizes={SIZES[benchmark]}",
        "--model.sampling.max_new_tokens=4",
    ]


@pytest.mark.parametrize("benchmark", SIZES)
def test_the_scorer_finds_in_the_files_what_test_reports(
    benchmark: str,
    command: Command,
    weights: Path,
    benchmark_cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(Reasoner, "decode", lambda self, ids: PLAN)
    monkeypatch.setattr(SAM2Propagator, "propagate", lambda self, *asked: moving_square(*asked))
    runs = tmp_path / "runs"
    assert command(line("test", benchmark, weights, benchmark_cache, runs)) == 0
    assert command(line("predict", benchmark, weights, benchmark_cache, runs)) == 0
    printed = capsys.readouterr().out
    assert f"{benchmark}: official" in printed
    predictions = runs / benchmark / "predict_0" / "masks"
    assert {path.name for path in predictions.iterdir()} == set(SPLITS[benchmark])
    assert any(np.asarray(Image.open(path)).any() for path in predictions.rglob("*.png")), "something was marked"

    root = ensure_avshapes(benchmark, sizes=yaml.safe_load(SIZES[benchmark]), cache_dir=benchmark_cache)
    arguments = [f"--root={root}", f"--predictions={predictions}", f"--out={tmp_path / 'scores.json'}", "--workers=1"]
    assert score([benchmark, *arguments]) == 0
    scored = json.loads((tmp_path / "scores.json").read_text())["scores"]
    tested = json.loads((runs / benchmark / "test_0" / "results.json").read_text())
    assert set(scored) >= GROUPS[benchmark]
    reported = tested["official"][benchmark]
    assert set(scored) == set(reported)
    for group, values in scored.items():
        assert values == pytest.approx(reported[group], abs=1e-12), group
        assert {f"test/official/{benchmark}/{group}/{name}" for name in values} <= set(tested["metrics"])
    assert tested["not_comparable"] == []


def test_limits_are_named_beside_the_numbers(
    command: Command, weights: Path, benchmark_cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = line("validate", "mevis", weights, benchmark_cache, tmp_path)
    assert command([*arguments, "--data.val_split=valid_u", "--data.val_size=1", "--data.eval_clip_frames=4"]) == 0
    printed = capsys.readouterr().out
    assert "not comparable with published numbers: data.val_size is 1" in printed
    results = json.loads((tmp_path / "mevis" / "validate_0" / "results.json").read_text())
    assert [limit.partition(":")[0] for limit in results["not_comparable"]] == [
        "data.val_size is 1",
        "data.eval_clip_frames is 4",
    ]
    assert set(results["official"]["mevis"]) == {"valid_u"}


def test_answers_for_the_server_are_written_without_ground_truth(
    command: Command, weights: Path, benchmark_cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = line("predict", "mevis", weights, benchmark_cache, tmp_path)
    assert command([*arguments, "--data.test_splits=[valid]"]) == 0
    written = sorted((tmp_path / "mevis" / "predict_0" / "masks" / "valid").glob("*/*/*.png"))
    assert len(written) % 10 == 0
    assert written[0].name == "00000.png"
    assert command([*line("test", "mevis", weights, benchmark_cache, tmp_path), "--data.test_splits=[valid]"]) == 2
    assert "whose ground truth is not public" in capsys.readouterr().err
