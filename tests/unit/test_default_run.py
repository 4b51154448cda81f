"""Which finished runs the benchmark of the default runs takes over."""

import json
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

ASKED = {"command": ["python", "train.py"], "commit": "abc", "weights": "123"}
RUN = {"config": "refavs", "seed": 0, "wall_s": 1.0, "peak_gb": 2.0, "changes": {}, "curves": {}, "part_s": {}}


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    yield import_module("default_run")
    for name in ("default_run", "side_by_side"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("changed", "is_taken"),
    [({}, True), ({"commit": "abd"}, False), ({"weights": "124"}, False), ({"command": ["python", "x.py"]}, False)],
)
def test_a_run_is_taken_over_if_it_would_be_the_same(
    script: ModuleType, tmp_path: Path, changed: dict, is_taken: bool
) -> None:
    file = tmp_path / "result.json"
    file.write_text(json.dumps({"asked": ASKED, "run": RUN}))
    found = script.finished(file, ASKED | changed)
    assert (found == script.Run(**RUN)) if is_taken else found is None


@pytest.mark.parametrize("commit", [None, "abc+changes"])
def test_code_that_no_commit_names_is_run_again(script: ModuleType, tmp_path: Path, commit: str | None) -> None:
    file = tmp_path / "result.json"
    file.write_text(json.dumps({"asked": ASKED | {"commit": commit}, "run": RUN}))
    assert script.finished(file, ASKED | {"commit": commit}) is None


def test_what_has_not_ended_is_run(script: ModuleType, tmp_path: Path) -> None:
    assert script.finished(tmp_path / "result.json", ASKED) is None
