"""Which finished runs the benchmark of the default runs takes over, and how a run is compared with its plain form."""

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

ASKED = {"command": ["python", "train.py"], "commit": "abc", "weights": "123"}
RUN = {"config": "refavs", "seed": 0, "wall_s": 1.0, "peak_gb": 2.0, "changes": {}, "curves": {}, "part_s": {}}


@pytest.fixture
def default_run(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("default_run")


@pytest.mark.parametrize(
    ("changed", "is_taken"),
    [({}, True), ({"commit": "abd"}, False), ({"weights": "124"}, False), ({"command": ["python", "x.py"]}, False)],
)
def test_a_run_is_taken_over_if_it_would_be_the_same(
    default_run: ModuleType, tmp_path: Path, changed: dict, is_taken: bool
) -> None:
    file = tmp_path / "result.json"
    file.write_text(json.dumps({"asked": ASKED, "run": RUN}))
    found = default_run.finished(file, ASKED | changed)
    assert (found == default_run.Run(**RUN)) if is_taken else found is None


@pytest.mark.parametrize("commit", [None, "abc+changes"])
def test_code_that_no_commit_names_is_run_again(default_run: ModuleType, tmp_path: Path, commit: str | None) -> None:
    file = tmp_path / "result.json"
    file.write_text(json.dumps({"asked": ASKED | {"commit": commit}, "run": RUN}))
    assert default_run.finished(file, ASKED | {"commit": commit}) is None


def test_what_has_not_ended_is_run(default_run: ModuleType, tmp_path: Path) -> None:
    assert default_run.finished(tmp_path / "result.json", ASKED) is None


def test_shared_and_plain_part_where_another_token_is_drawn(script: Callable[[str], ModuleType]) -> None:
    """Rewards 1, 2, 3 and 1, 2, 5: equal in two of three steps. Plain takes 6 s where shared takes 4."""
    default_run, whole_run = script("default_run"), script("whole_run")
    seconds = {f"time/{part}": 2.0 for part in whole_run.PARTS}
    runs = {
        side: default_run.Run(
            **RUN | {"curves": {"reward": list(enumerate(rewards))}, "part_s": seconds | {"time/step_s": step}}
        )
        for side, rewards, step in (("shared", (1.0, 2.0, 3.0), 4.0), ("plain", (1.0, 2.0, 5.0), 6.0))
    }
    assert "in the first 2 of 3 steps, within 1e-4; over the others it is 3.00 and 5.00" in whole_run.differ(runs)
    assert "| step | 4.00 | 6.00 | 1.50 |" in whole_run.table(runs)
    runs["plain"] = runs["shared"]
    assert "the same in all 3 steps" in whole_run.differ(runs)
