"""The table of baselines and the value of keyframes, on random weights and a handful of clips: every path is taken.

The commands run in this process, which spares each of them its imports; `tests/unit/test_side_by_side.py` starts some
for real.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import IO

import lightning as L
import pytest
import yaml
from lightning.pytorch.callbacks import Callback

from lightning_modules import cli
from metrics.version import commit
from models.reasoner import Reasoner
from train import CALLBACKS

Script = Callable[[str], ModuleType]
ROOT = Path(__file__).parents[2]
ADAPTER = Path("adapter") / "adapter_model.safetensors"
MOMENTS = (
    '<think>x</think><answer>{"start_time": "00:01.00", "end_time": "00:02.00", "description": "the square"}, '
    '{"start_time": "00:04.00", "end_time": "00:05.00", "description": "the square"}</answer>'
)
SIZES = {
    "refavs": {"train": 2, "val": 1, "test_s": 1, "test_u": 1, "test_n": 1, "null_train": 1, "null_val": 1},
    "revos": {"train": 4, "valid": 1, "non_existent_every": 1},
}


class Killed(BaseException):
    """In the place of a signal that no program can answer."""


class Killer(Callback):
    """Ends a training between two steps, once it is asked to."""

    before_batch: int | None = None

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: object, batch_idx: int
    ) -> None:
        if batch_idx == Killer.before_batch:
            raise Killed


@pytest.fixture(scope="module")
def calls(script: Script) -> Iterator[list[str]]:
    """The commands that the scripts run, as they come; they run here."""
    called: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)

        def call(crew: object, arguments: list[str], place: Path, lock: IO[str]) -> None:
            called.append(f"{place.name}: {arguments[0]}" + " --resume" * ("--resume" in arguments))
            patch.setattr("sys.argv", ["train.py"])
            known = CALLBACKS | {"killer": Killer}
            assert cli.run([*arguments, "--trainer.enable_progress_bar=false"], callbacks=known) == 0

        patch.setattr(script("side_by_side").Crew, "_call", call)
        yield called


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
    rows = ["--rows", "base", "sft_oracle", "rk"]
    return [*rows, *common, f"--folder={place / 'runs'}", f"--data.avshapes_cache={benchmark_cache}", *sizes]


@pytest.mark.filterwarnings("ignore")
def test_the_table_is_made_and_goes_on_where_it_was(
    script: Script, calls: list[str], table: list[str], place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script("baselines").main(table)
    first = ["base_seed0: test", "sft_oracle_seed0: fit", "sft_oracle_seed0: test", "rk_seed0: fit", "rk_seed0: test"]
    assert calls == first
    page = (place / "runs" / "results.md").read_text()
    assert "| supervised, oracle descriptions | 1 |" in page
    assert "## Against no training" in page
    assert "](results.png)" in page
    assert (place / "runs" / "results.png").stat().st_size > 1000
    numbers = json.loads((place / "runs" / "baselines.json").read_text())
    rows = numbers["rows"]
    made_by = script("outcomes").short(commit(ROOT) or "unknown")
    assert numbers["provenance"]["commit"] == made_by, "trained and tested by one code"
    # Both trainings end after two optimizer steps; GRPO makes them of one rollout.
    assert [(row[0]["batches"], row[0]["prompts"]) for row in rows.values()] == [(0, 0), (2, 2), (1, 1)]
    assert rows["rk"][0]["seconds"] > 0
    assert {"seen/jf", "unseen/jf", "null/s", "refavs/jf", "revos/jf"} <= set(rows["rk"][0]["metrics"])

    (place / "runs" / "rk_seed0" / "test_0" / "results.json").unlink()
    calls.clear()
    capsys.readouterr()
    script("baselines").main(table)
    assert calls == ["rk_seed0: test"]
    assert "2 of 3 jobs are finished" in capsys.readouterr().out
    again = json.loads((place / "runs" / "baselines.json").read_text())["rows"]
    assert again["rk"][0]["metrics"] == rows["rk"][0]["metrics"]


@pytest.mark.filterwarnings("ignore")
def test_a_training_that_was_killed_goes_on_to_the_same_adapter(
    script: Script, calls: list[str], table: list[str], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before the second of two steps; once more before there is a checkpoint, which begins a new run."""
    options = [*table, "--rows", "sft_oracle", "--checkpoint.every_n_train_steps=1"]
    runs = {name: place / name / "sft_oracle_seed0" for name in ("whole", "killed", "early")}

    def kill(name: str, before_batch: int) -> None:
        monkeypatch.setattr(Killer, "before_batch", before_batch)
        with pytest.raises(Killed):
            script("baselines").main([*options, f"--folder={place / name}"])
        monkeypatch.setattr(Killer, "before_batch", None)
        calls.clear()

    script("baselines").main([*options, f"--folder={place / 'whole'}"])
    kill("killed", 1)
    script("baselines").main([*options, f"--folder={place / 'killed'}"])
    assert calls == ["sft_oracle_seed0: fit --resume", "sft_oracle_seed0: test"]
    kill("early", 0)
    script("baselines").main([*options, f"--folder={place / 'early'}"])
    assert calls == ["sft_oracle_seed0: fit", "sft_oracle_seed0: test"]

    trained = {"whole": "version_0", "killed": "version_0", "early": "version_1"}
    adapters = [(runs[name] / version / ADAPTER).read_bytes() for name, version in trained.items()]
    assert adapters[0] == adapters[1] == adapters[2]
    assert not (runs["killed"] / "version_1").exists()
    outcomes = [script("outcomes").read_outcome(folder) for folder in runs.values()]
    assert outcomes[0].metrics == outcomes[1].metrics == outcomes[2].metrics
    assert [outcome.prompts for outcome in outcomes] == [2, 2, 2]


@pytest.fixture(scope="module")
def sighted(weights: Path, place: Path) -> Path:
    """Random weights of System 1, and the embedded System 2, whose masks depend on frames."""
    for part in ("grounder", "propagator"):
        shutil.copytree(ROOT / "weights" / "tiny" / part, place / "sighted" / part)
    return shutil.copytree(weights / "reasoner", place / "sighted" / "reasoner").parent


@pytest.fixture(scope="module")
def answered(script: Script, calls: list[str], table: list[str], place: Path, sighted: Path) -> Path:
    """A tested run: random weights name no moment, so seen clips are answered with `MOMENTS`, others with nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Reasoner, "decode", lambda *_: MOMENTS)
        script("baselines").main([*table, "--rows=base", f"--weights={sighted}", f"--folder={place / 'answered'}"])
    run = place / "answered" / "base_seed0"
    lines = [json.loads(line) for line in clips_of(script, run).read_text().splitlines()]
    said = [line | {"text": MOMENTS if line["kind"] == "seen" else "nothing"} for line in lines]
    clips_of(script, run).write_text("".join(json.dumps(line) + "\n" for line in said))
    return run


def clips_of(script: Script, run: Path) -> Path:
    """What a run's test has left of single clips."""
    return script("outcomes").results_of(run).with_name("clips.jsonl")


@pytest.fixture(scope="module")
def keyframes(common: list[str], sighted: Path, answered: Path, benchmark_cache: Path) -> list[str]:
    answers = ["--answers", str(answered), f"--avshapes-sizes={json.dumps(SIZES)}"]
    return [*answers, *common, f"--weights={sighted}", f"--cache={benchmark_cache}"]


@pytest.mark.filterwarnings("ignore")
def test_compute_is_counted(script: Script, calls: list[str], keyframes: list[str], place: Path) -> None:
    variants = ["--variants", "two", "two_oracle", "one_frames", "--videos=4"]
    calls.clear()
    script("keyframe_value").main([*keyframes, *variants, f"--folder={place / 'compute'}"])

    trained = [f"{name}_seed0: {verb}" for name in ("two_oracle", "one_frames") for verb in ("fit", "test")]
    assert calls == [*trained, "two_seed0: test"]
    for made in ("version_0", "test_0"):
        config = yaml.safe_load((place / "compute" / "one_frames_seed0" / made / "config.yaml").read_text())
        assert config["data"]["init_args"]["glance_frames"] == 20
    numbers = json.loads((place / "compute" / "keyframe_value.json").read_text())
    spent = {name: row["gflop"] for name, row in numbers["compute"].items()}
    assert spent["one_frames"]["grounder"] == 0 < spent["two_oracle"]["grounder"] == spent["two"]["grounder"]
    assert spent["one_frames"]["system_1"] > spent["two"]["system_1"] > 0
    assert spent["one_frames"]["propagator"] == spent["two"]["propagator"] > 0
    assert set(numbers["compute"]["one_frames"]["places"][0]) == {"training", "held_out", "chance", "measured_by"}
    code = script("outcomes").short(commit(ROOT) or "unknown")
    of_compute = dict.fromkeys(("commit of compute", "operations counted by", "places measured by"), code)
    of_frames = dict.fromkeys(("commit of answers", "frames measured by"), code)
    assert (of_compute | of_frames).items() <= numbers["provenance"].items()
    page = (place / "compute" / "results_keyframes.md").read_text()
    assert "| System 1 alone, all 20 frames | 20 | 112 |" in page
    assert "| minus two systems, supervised, oracle descriptions |" in page
    assert "### RefAVS\n\n| answers of | seeds |" in page


@pytest.mark.filterwarnings("ignore")
def test_keyframes_are_replaced(
    script: Script, keyframes: list[str], answered: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer's own frames give what was tested, but for rounding; others differ from them by more."""

    def found() -> dict[str, dict[str, float]]:
        script("keyframe_value").main([*keyframes, "--variants", f"--folder={place / 'frames'}"])
        return json.loads((place / "frames" / "keyframe_value.json").read_text())["frames"]["jf"]["base_seed0"]

    values = found()
    assert {clip.split("/")[1] for clip in values} == {"test_s", "test_u", "valid"}, "nothing absent is asked for"
    wanted = {f"{a}/{b}" for a in ("own", "true", "expression") for b in script("other_frames").POLICIES}
    assert all(not value or set(value) == wanted for value in values.values())
    lines = [json.loads(line) for line in clips_of(script, answered).read_text().splitlines()]
    tested = {line["clip"]: line["jf"] for line in lines if line["kind"] == "seen"}
    assert {clip: value["own/own"] for clip, value in values.items() if value} == pytest.approx(tested, abs=1e-4)
    for value in filter(None, values.values()):
        assert len({value[f"own/{policy}"] for policy in script("other_frames").POLICIES}) == 5
    page = (place / "frames" / "results_keyframes.md").read_text()
    assert "| no training | 1 | - |" in page.partition("### ReVOS")[2], "no moment was named there"

    monkeypatch.setattr(script("other_frames"), "frame_values", lambda *_: pytest.fail("measured twice"))
    assert found() == values
    monkeypatch.undo()
    kept = next((place / "frames").glob("frames_base_seed0_*.jsonl"))
    kept.write_text(kept.read_text()[:-5])
    assert found() == values
