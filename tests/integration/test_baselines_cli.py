"""The table of baselines and the value of keyframes, on random weights and a handful of clips: every path is taken.

The commands run in this process, which spares each of them its imports; `tests/unit/test_baselines_table.py` starts one
for real.
"""

import json
import shutil
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest

from lightning_modules import cli
from train import CALLBACKS

ROOT = Path(__file__).parents[2]
NAMES = ("side_by_side", "score_tables", "baselines", "compute", "other_frames", "keyframe_value")
SIZES = {
    "refavs": {"train": 2, "val": 1, "test_s": 1, "test_u": 1, "test_n": 1, "null_train": 1, "null_val": 1},
    "revos": {"train": 4, "valid": 1, "non_existent_every": 1},
}


@pytest.fixture(scope="module")
def scripts() -> Iterator[SimpleNamespace]:
    """The scripts as they see each other when one is started; `calls` lists the commands that they run."""
    calls: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        patch.chdir(ROOT)
        found = SimpleNamespace(calls=calls, **{name: import_module(name) for name in NAMES})

        def call(arguments: list[str], place: Path) -> None:
            calls.append(f"{place.name}: {arguments[0]}")
            patch.setattr("sys.argv", ["train.py"])
            assert cli.run([*arguments, "--trainer.enable_progress_bar=false"], callbacks=CALLBACKS) == 0

        patch.setattr(found.side_by_side, "_call", call)
        yield found
        for name in NAMES:
            sys.modules.pop(name)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("baselines")


@pytest.fixture(scope="module")
def common(weights: Path, place: Path) -> list[str]:
    return [
        "--quick",
        "--prompts=1",
        "--clips=2",
        "--processes=1",
        f"--weights={weights}",
        "--data.prompts_per_step=1",
        "--model.evaluation.max_new_tokens=8",
        "--trainer.max_steps=2",
        "--trainer.accelerator=cpu",
    ]


@pytest.fixture(scope="module")
def table(common: list[str], place: Path, benchmark_cache: Path) -> list[str]:
    sizes = [f"--data.sources.{name}.avshapes_sizes={json.dumps(sizes)}" for name, sizes in SIZES.items()]
    made = [f"--folder={place / 'runs'}", f"--page={place / 'docs' / 'results.md'}", f"--json={place / 'table.json'}"]
    picture = f"--picture={place / 'docs' / 'images' / 'results.png'}"
    rows = ["--rows", "base", "sft_oracle", "rk"]
    return [*rows, *common, *made, picture, f"--data.avshapes_cache={benchmark_cache}", *sizes]


@pytest.mark.filterwarnings("ignore")
def test_the_table_is_made_and_goes_on_where_it_was(
    scripts: SimpleNamespace, table: list[str], place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scripts.baselines.main(table)
    first = ["base_seed0: test", "sft_oracle_seed0: fit", "sft_oracle_seed0: test", "rk_seed0: fit", "rk_seed0: test"]
    assert scripts.calls == first
    page = (place / "docs" / "results.md").read_text()
    assert "| supervised, oracle descriptions | 1 |" in page
    assert "## Against no training" in page
    assert "](images/results.png)" in page
    assert (place / "docs" / "images" / "results.png").stat().st_size > 1000
    rows = json.loads((place / "table.json").read_text())["rows"]
    # Both trainings end after two optimizer steps; GRPO makes them of one rollout.
    assert [(row[0]["batches"], row[0]["prompts"]) for row in rows.values()] == [(0, 0), (2, 2), (1, 1)]
    assert rows["rk"][0]["seconds"] > 0
    assert {"seen/jf", "unseen/jf", "null/s", "refavs/jf", "revos/jf"} <= set(rows["rk"][0]["metrics"])

    shutil.rmtree(place / "runs" / "rk_seed0" / "test_0")
    scripts.calls.clear()
    capsys.readouterr()
    scripts.baselines.main(table)
    assert scripts.calls == ["rk_seed0: test"]
    assert "2 of 3 jobs are finished" in capsys.readouterr().out
    assert json.loads((place / "table.json").read_text())["rows"]["rk"][0]["metrics"] == rows["rk"][0]["metrics"]


@pytest.mark.filterwarnings("ignore")
def test_keyframes_are_replaced_and_compute_is_counted(
    scripts: SimpleNamespace, table: list[str], common: list[str], place: Path, benchmark_cache: Path
) -> None:
    scripts.baselines.main(table)
    scripts.calls.clear()
    answers = ["--answers", str(place / "runs" / "rk_seed0"), f"--avshapes-sizes={json.dumps(SIZES)}"]
    made = [f"--folder={place / 'kept'}", f"--page={place / 'keyframes.md'}", f"--json={place / 'keyframes.json'}"]
    variants = ["--variants", "two_sft", "one_frames", "--videos=4", f"--cache={benchmark_cache}"]
    scripts.keyframe_value.main([*variants, *answers, *common, *made])

    assert scripts.calls == [f"{name}_seed0: {verb}" for name in ("two_sft", "one_frames") for verb in ("fit", "test")]
    numbers = json.loads((place / "keyframes.json").read_text())
    values = numbers["frames"]["rk_seed0"]
    assert {clip.split("/")[1] for clip in values} == {"test_s", "test_u", "valid"}, "nothing absent is asked for"
    assert all(
        set(value) == {f"{a}/{b}" for a in ("own", "true") for b in scripts.other_frames.POLICIES}
        for value in values.values()
    )
    spent = {name: row["gflop"] for name, row in numbers["compute"].items()}
    assert spent["one_frames"]["grounder"] == 0 < spent["two_sft"]["grounder"]
    assert spent["one_frames"]["system_1"] > spent["two_sft"]["system_1"] > 0
    assert spent["one_frames"]["propagator"] == spent["two_sft"]["propagator"] > 0
    assert "| System 1 alone, all 20 frames | 20 | 112 |" in (place / "keyframes.md").read_text()
