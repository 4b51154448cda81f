"""The numbers of the table of baselines, from made-up runs."""

import subprocess
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from threading import Barrier
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def scripts():
    """The scripts as they see each other when one of them is started."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        names = ("baselines", "score_tables", "side_by_side")
        yield SimpleNamespace(**{name: import_module(name) for name in names})
        for name in names:
            sys.modules.pop(name)


def outcome(scripts, clips, **metrics):
    return scripts.side_by_side.Outcome(metrics, clips, {}, batches=3, prompts=12, seconds=4.5, curves={})


def test_rows_and_seeds_become_jobs(scripts):
    """Nine rows, one of which trains nothing; the first seed of every row comes first."""
    baselines = scripts.baselines
    jobs = baselines.make_jobs(baselines.ROWS, [0, 1, 2], prompts=9, clips=5, extra=["--x=1"])

    assert len(jobs) == 8 * 3 + 1
    assert [job.name for job in jobs[:9]] == [f"{row.name}_seed0" for row in baselines.ROWS]
    assert [job.name for job in jobs if job.fit is None] == ["base_seed0"]
    assert len({job.name for job in jobs}) == len(jobs)
    grpo = next(job for job in jobs if job.name == "rk_seed2")
    assert {"--seed_everything=2", "--data.seed=2", "--model.sampling.seed=2", "--x=1"} <= set(grpo.fit)
    assert {"--data.seed=0", "--data.test_size=5", "--x=1"} <= set(grpo.test)
    sft = next(job for job in jobs if job.name == "sft_seed1")
    assert "--model.sampling.seed=1" not in sft.fit
    assert "--data.sources.revos.train_size=9" in sft.fit


def test_every_row_names_files_that_exist(scripts):
    baselines = scripts.baselines
    assert all((BENCHMARKS.parent / config).is_file() for row in baselines.ROWS for config in row.configs)


A, B, N = (
    "refavs/test_s/0:vid_a_1_2_circle_1",
    "refavs/test_s/9:vid_b_1_2_circle_1",
    "refavs/test_n/3:null_c-x_1_2_null_4",
)


def test_the_ways_of_training_see_and_value_the_same(scripts):
    """The base, what it is shown of a clip, and how an answer's reward is counted."""
    sft, grpo = (
        yaml.safe_load((BENCHMARKS.parent / file).read_text())
        for file in (scripts.baselines.SFT, scripts.baselines.GRPO)
    )
    assert sft["rewards"] == grpo["rewards"]
    for part in ("reasoner", "grounder", "propagator"):
        assert sft["model"]["init_args"][part] == grpo["model"]["init_args"][part]
    ours, theirs = (config["data"]["init_args"] for config in (sft, grpo))
    assert ours | {"answers": None, "prompts_per_step": 0} == theirs | {"answers": None, "prompts_per_step": 0}


def test_differences_are_means_over_seeds_per_clip(scripts):
    """Two seeds of a row: clip a 0.2 and 0.4, clip b 0.6 and 0.6; the other row: 0.1 and 0.5. Mean change 0.15."""
    row = [
        outcome(scripts, {A: {"seen/jf": 0.2}, B: {"seen/jf": 0.6}, N: {"null/s": 0.1}}),
        outcome(scripts, {A: {"seen/jf": 0.4}, B: {"seen/jf": 0.6}, N: {"null/s": 0.1}}),
    ]
    other = [outcome(scripts, {A: {"seen/jf": 0.1}, B: {"seen/jf": 0.5}})]
    change, low, high = scripts.score_tables.interval(row, other, ["seen/jf"])

    assert change == pytest.approx(0.15)
    assert (low, high) == (pytest.approx(0.1), pytest.approx(0.2))
    assert np.isnan(scripts.score_tables.interval(row, other, ["unseen/jf"])).all()


def test_the_mean_of_two_groups_weighs_them_alike(scripts):
    """One clip with a change of 1, three without, in one video: (1 + 0) / 2, whatever is drawn."""
    ours = {"revos/valid/v/0": {"referring/jf": 1.0}} | {f"revos/valid/v/{n}": {"reasoning/jf": 0.5} for n in "123"}
    theirs = {"revos/valid/v/0": {"referring/jf": 0.0}} | {f"revos/valid/v/{n}": {"reasoning/jf": 0.5} for n in "123"}
    found = scripts.score_tables.interval(
        [outcome(scripts, ours)], [outcome(scripts, theirs)], ["referring/jf", "reasoning/jf"]
    )

    assert found == (0.5, 0.5, 0.5)


def test_clips_of_one_video_are_drawn_together(scripts):
    """Four questions about each of 100 videos with one change per video: twice as wide as for 400 videos."""
    changes = np.random.default_rng(0).standard_normal(100)
    widths = []
    for name in ("refavs/test_s/{row}:vid{video}_1_2_circle_{n}", "refavs/test_s/{row}:vid{row}_1_2_circle_{n}"):
        clips = [name.format(row=row, video=row // 4, n=row % 4) for row in range(400)]
        ours = {clip: {"seen/jf": float(changes[row // 4])} for row, clip in enumerate(clips)}
        theirs = {clip: {"seen/jf": 0.0} for clip in clips}
        _, low, high = scripts.score_tables.interval([outcome(scripts, ours)], [outcome(scripts, theirs)], ["seen/jf"])
        widths.append(high - low)
    assert widths[0] == pytest.approx(2 * widths[1], rel=0.1)


def test_videos_are_read_from_clip_ids(scripts):
    video_of = scripts.score_tables.video_of
    assert video_of(A) == "refavs/test_s/vid_a_1_2"
    assert video_of(N) == "refavs/test_n/null_c-x_1_2"
    assert video_of("revos/valid/arena/day/01uO/12") == "revos/valid/arena/day/01uO"
    assert video_of("mevis/valid_u/1bcd/0") == "mevis/valid_u/1bcd"


def test_the_table_has_means_and_spreads(scripts):
    """Seen 0.2 and 0.4: mean 30, standard deviation 14.1."""
    runs = [outcome(scripts, {}, **{"seen/jf": value, "null/s": 0.25, "parse_failures": 0.5}) for value in (0.2, 0.4)]
    table = scripts.score_tables.score_table({"sft": runs}, {"sft": "supervised"}, {"sft": 12})
    cells = [cell.strip() for cell in table.splitlines()[-1].split("|")[1:-1]]

    assert cells[:3] == ["supervised", "2", "30.0 ± 14.1"]
    assert cells[-4:] == ["0.250", "50.0 ± 0.0", "12", "4"]
    assert cells[3] == "-", "no unseen clip was tested"
    bare = scripts.score_tables.score_table({"sft": [outcome(scripts, {})]}, {"sft": "supervised"}, {"sft": 12})
    assert "nan" not in bare
    assert scripts.score_tables.shown((0.1, -0.05, 0.25)) == "+10.0 (-5.0 .. +25.0)"
    assert scripts.score_tables.shown((float("nan"),) * 3) == "-"


def test_a_folder_keeps_to_its_settings(scripts, tmp_path):
    side = scripts.side_by_side
    side.remember(tmp_path / "runs", {"prompts": 4, "weights": "abc"})
    side.remember(tmp_path / "runs", {"prompts": 4, "weights": "abc"})
    with pytest.raises(SystemExit, match=r"other settings \(weights: abc -> def\)\. Remove it, or name another"):
        side.remember(tmp_path / "runs", {"prompts": 4, "weights": "def"})
    side.remember(tmp_path / "runs", {"prompts": 4, "configs/rk.yaml": "123"})
    with pytest.raises(SystemExit, match=r"other settings \(configs/rk.yaml: 123 -> 456\)"):
        side.remember(tmp_path / "runs", {"prompts": 4, "configs/rk.yaml": "456"})
    side.remember(tmp_path / "runs", {"weights": "abc"})


def test_the_content_of_every_configuration_file_is_kept(scripts, tmp_path, monkeypatch):
    side = scripts.side_by_side
    monkeypatch.setattr(side, "ROOT", tmp_path)
    (tmp_path / "a.yaml").write_text("beta: 0")
    (tmp_path / "b.yaml").write_text("beta: 0")
    jobs = [side.Job("one", ("a.yaml",), None, ()), side.Job("two", ("a.yaml", "b.yaml"), None, ())]
    before = side.config_digests(jobs)
    assert list(before) == ["a.yaml", "b.yaml"]
    (tmp_path / "b.yaml").write_text("beta: 1")
    after = side.config_digests(jobs)
    assert after["a.yaml"] == before["a.yaml"]
    assert after["b.yaml"] != before["b.yaml"]


def test_rows_made_by_different_code_say_so(scripts):
    runs = {"a": [outcome(scripts, {})], "b": [replace(outcome(scripts, {}), commit="123")]}
    assert scripts.side_by_side.commits_of(runs) == "unknown (a), 123 (b)"
    runs["a"] = runs["b"]
    assert scripts.side_by_side.commits_of(runs) == "123"


def test_a_job_without_results_is_not_finished(scripts, tmp_path):
    side = scripts.side_by_side
    (tmp_path / "test_0").mkdir()
    assert side.results_of(tmp_path) is None
    with pytest.raises(FileNotFoundError, match="the job is not finished"):
        side.read_outcome(tmp_path)


def test_a_failed_job_stops_the_table(scripts, tmp_path, capsys):
    """An unknown file: the first job ends with the command's own message, and the second is not begun."""
    side = scripts.side_by_side
    jobs = [side.Job(name, ("configs/nowhere.yaml",), None, ()) for name in ("one", "two")]
    with pytest.raises(subprocess.CalledProcessError):
        side.run_jobs(jobs, tmp_path, processes=1)
    printed = capsys.readouterr().out
    assert "0 of 2 jobs are finished" in printed
    assert "one failed; the end of" in printed
    assert "nowhere.yaml" in printed
    assert not (tmp_path / "two").exists()


def test_jobs_run_side_by_side_and_a_failure_is_passed_on(scripts, tmp_path, monkeypatch):
    """Both threads are needed to get past the barrier."""
    side, barrier, done = scripts.side_by_side, Barrier(2, timeout=60), []

    def run(job, folder):
        barrier.wait()
        done.append(job.name)
        if job.name == "bad":
            raise subprocess.CalledProcessError(1, ["train.py"])

    monkeypatch.setattr(side, "_run", run)
    jobs = [side.Job(name, (), None, ()) for name in ("one", "two", "three", "four")]
    side.run_jobs(jobs, tmp_path, processes=2)
    assert sorted(done) == ["four", "one", "three", "two"]
    with pytest.raises(subprocess.CalledProcessError):
        side.run_jobs([side.Job(name, (), None, ()) for name in ("good", "bad")], tmp_path, processes=2)
