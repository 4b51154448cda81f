"""Which finished runs the benchmark of the default runs takes over, and how a run is compared with its plain form."""

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from torch.utils.tensorboard import SummaryWriter

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


def test_the_newest_training_is_read(default_run: ModuleType, tmp_path: Path) -> None:
    """Two steps of 1 and 3 seconds take 2 in the mean; other numbers and changes are left out."""
    with pytest.raises(FileNotFoundError, match="has no training: expected a folder version_0"):
        default_run.read_run("refavs", 0, tmp_path, wall_s=5.0, peak_gb=0.5)
    (tmp_path / "version_9").mkdir()
    run = tmp_path / "version_10"
    writer = SummaryWriter(str(run))
    for step, seconds in ((1, 1.0), (2, 3.0)):
        for key, value in (("reward", 1 / 3), ("time/step_s", seconds), ("lr", 0.1)):
            writer.add_scalar(key, value, step)
    writer.close()
    jf = {"key": "val/jf", "first": 0.1, "last": 0.2}
    (run / "summary.json").write_text(json.dumps({"changes": [jf, {"key": "val/other"}]}))
    found = default_run.read_run("refavs", 0, tmp_path, wall_s=5.0, peak_gb=0.5)
    assert (found.wall_s, found.peak_gb, found.changes) == (5.0, 0.5, {"val/jf": jf})
    assert found.curves == {"reward": [(1, 0.333333), (2, 0.333333)]}
    assert found.part_s == {"time/step_s": 2.0}


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
