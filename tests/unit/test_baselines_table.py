"""The numbers of the table of baselines, from made-up runs."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from torch.utils.tensorboard import SummaryWriter

ROOT = Path(__file__).parents[2]


def outcome(script, clips, **metrics):
    return script("outcomes").Outcome(metrics, clips, {}, batches=3, prompts=12, seconds=4.5, curves={})


def test_rows_and_seeds_become_jobs(script):
    """Nine rows, one of which trains nothing; the first seed of every row comes first."""
    baselines = script("baselines")
    jobs = baselines.make_jobs(baselines.ROWS, [0, 1, 2], prompts=9, clips=5, extra=["--x=1"])

    assert len(jobs) == 8 * 3 + 1
    assert [job.name for job in jobs[:9]] == [f"{row.name}_seed0" for row in baselines.ROWS]
    assert [job.name for job in jobs if job.fit is None] == ["base_seed0"]
    assert len({job.name for job in jobs}) == len(jobs)
    grpo = next(job for job in jobs if job.name == "rk_seed2")
    assert {"--seed_everything=2", "--data.seed=2", "--model.sampling.seed=2", "--x=1"} <= set(grpo.fit)
    assert {"--data.test_size=5", "--data.sources.revos.test_size=12", "--x=1"} <= set(grpo.test)
    assert len({job.test for job in jobs}) == 1, "all rows are tested alike"
    sft = next(job for job in jobs if job.name == "sft_seed1")
    assert "--model.sampling.seed=1" not in sft.fit
    assert "--data.sources.revos.train_size=9" in sft.fit


def test_every_row_names_files_that_exist(script):
    baselines = script("baselines")
    assert all((ROOT / config).is_file() for row in baselines.ROWS for config in row.configs)


A, B, N = (
    "refavs/test_s/0:vid_a_1_2_circle_1",
    "refavs/test_s/9:vid_b_1_2_circle_1",
    "refavs/test_n/3:null_c-x_1_2_null_4",
)


def test_the_ways_of_training_see_and_value_the_same(script):
    """The base, what it is shown of a clip, and how an answer's reward is counted."""
    sft, grpo = (yaml.safe_load((ROOT / file).read_text()) for file in (script("rows").SFT, script("rows").GRPO))
    assert sft["rewards"] == grpo["rewards"]
    for part in ("reasoner", "grounder", "propagator"):
        assert sft["model"]["init_args"][part] == grpo["model"]["init_args"][part]
    ours, theirs = (config["data"]["init_args"] for config in (sft, grpo))
    assert ours | {"answers": None, "prompts_per_step": 0} == theirs | {"answers": None, "prompts_per_step": 0}


def test_differences_are_means_over_seeds_per_clip(script):
    """Two seeds of a row: clip a 0.2 and 0.4, clip b 0.6 and 0.6; the other row: 0.1 and 0.5. Mean change 0.15.

    The least that can be drawn is clip b, 0.1, or clip a with the first seed; the most clip a with the second, 0.3.
    """
    row = [
        outcome(script, {A: {"seen/jf": 0.2}, B: {"seen/jf": 0.6}, N: {"null/s": 0.1}}),
        outcome(script, {A: {"seen/jf": 0.4}, B: {"seen/jf": 0.6}, N: {"null/s": 0.1}}),
    ]
    other = [outcome(script, {A: {"seen/jf": 0.1}, B: {"seen/jf": 0.5}})]
    change, low, high = script("score_tables").interval(row, other, ["seen/jf"])

    assert change == pytest.approx(0.15)
    assert (low, high) == (pytest.approx(0.1), pytest.approx(0.3))
    assert np.isnan(script("score_tables").interval(row, other, ["unseen/jf"])).all()


def test_seeds_are_drawn_with_the_videos(script):
    """Of 4 seeds one is off by 1 on all of 400 videos: the mean of 4 draws is 0.25 times a binomial of 4 and 1/4.

    Its 2.5 % and 97.5 % quantiles are 0 and 3. Runs of one seed are paired: what both share cancels out.
    """
    clips = [f"revos/valid/v{n}/0" for n in range(400)]
    runs = [outcome(script, {clip: {"seen/jf": float(seed == 2)} for clip in clips}) for seed in range(4)]
    zero = outcome(script, {clip: {"seen/jf": 0.0} for clip in clips})
    interval = script("score_tables").interval

    assert interval(runs, [zero], ["seen/jf"]) == (0.25, 0.0, 0.75)
    assert interval(runs, runs, ["seen/jf"]) == (0.0, 0.0, 0.0)
    with pytest.raises(ValueError, match="broadcast"):
        interval(runs, runs[:2], ["seen/jf"])


def test_a_seed_without_a_value_is_left_out(script):
    """Clip a with both seeds 0.2 and 0.4, clip b with the second alone 0.9: (0.3 + 0.9) / 2; at most 0.9."""
    changes = {"revos/valid/a/0": np.array([0.2, 0.4]), "revos/valid/b/0": np.array([np.nan, 0.9])}
    change, low, high = script("score_tables").interval_of([changes])

    assert change == pytest.approx(0.6)
    assert (low, high) == (pytest.approx(0.2), pytest.approx(0.9))


def test_the_mean_of_two_groups_weighs_them_alike(script):
    """One clip with a change of 1, three without, in one video: (1 + 0) / 2, whatever is drawn."""
    ours = {"revos/valid/v/0": {"referring/jf": 1.0}} | {f"revos/valid/v/{n}": {"reasoning/jf": 0.5} for n in "123"}
    theirs = {"revos/valid/v/0": {"referring/jf": 0.0}} | {f"revos/valid/v/{n}": {"reasoning/jf": 0.5} for n in "123"}
    found = script("score_tables").interval(
        [outcome(script, ours)], [outcome(script, theirs)], ["referring/jf", "reasoning/jf"]
    )

    assert found == (0.5, 0.5, 0.5)


def test_clips_of_one_video_are_drawn_together(script):
    """Four questions about each of 100 videos with one change per video: twice as wide as for 400 videos."""
    changes = np.random.default_rng(0).standard_normal(100)
    widths = []
    for name in ("refavs/test_s/{row}:vid{video}_1_2_circle_{n}", "refavs/test_s/{row}:vid{row}_1_2_circle_{n}"):
        clips = [name.format(row=row, video=row // 4, n=row % 4) for row in range(400)]
        ours = {clip: {"seen/jf": float(changes[row // 4])} for row, clip in enumerate(clips)}
        theirs = {clip: {"seen/jf": 0.0} for clip in clips}
        _, low, high = script("score_tables").interval([outcome(script, ours)], [outcome(script, theirs)], ["seen/jf"])
        widths.append(high - low)
    assert widths[0] == pytest.approx(2 * widths[1], rel=0.1)


def test_videos_are_read_from_clip_ids(script):
    video_of = script("score_tables").video_of
    assert video_of(A) == "refavs/test_s/vid_a_1_2"
    assert video_of(N) == "refavs/test_n/null_c-x_1_2"
    assert video_of("revos/valid/arena/day/01uO/12") == "revos/valid/arena/day/01uO"
    assert video_of("mevis/valid_u/1bcd/0") == "mevis/valid_u/1bcd"


def test_the_table_has_means_and_spreads(script):
    """Seen 0.2 and 0.4: mean 30, standard deviation 14.1."""
    runs = [outcome(script, {}, **{"seen/jf": value, "null/s": 0.25, "parse_failures": 0.5}) for value in (0.2, 0.4)]
    table = script("score_tables").score_table({"sft": runs}, {"sft": "supervised"})
    cells = [cell.strip() for cell in table.splitlines()[-1].split("|")[1:-1]]

    assert cells[:3] == ["supervised", "2", "30.0 ± 14.1"]
    assert cells[-2:] == ["12", "4 (4 .. 4)"]
    assert cells[3] == "-", "no unseen clip was tested"
    assert script("score_tables").timed([3.0, 9.0, 4.0]) == "4 (3 .. 9)"
    bare = script("score_tables").score_table({"sft": [outcome(script, {})]}, {"sft": "supervised"})
    assert "nan" not in bare
    assert script("score_tables").shown((0.1, -0.05, 0.25)) == "+10.0 (-5.0 .. +25.0)"
    assert script("score_tables").shown((float("nan"),) * 3) == "-"


def test_what_is_handled_right_and_what_is_said_are_two_things(script):
    """Two null clips: one answer says absent, the other describes something that is not found. One target is denied."""
    absent, moment = '<answer>{"absent": true}</answer>', '<answer>{"start_time": "00:00.00"}</answer>'
    right, other = {"null/null_accuracy": 1.0, "null/s": 0.0}, N.replace("/3:", "/4:")
    run = replace(
        outcome(script, {N: right, other: right, A: {"seen/jf": 0.0}}, **{"null/null_accuracy": 1.0, "null/s": 0.25}),
        texts={N: absent, other: moment, A: absent},
    )
    run.metrics.update({"false_absent": 1.0, "parse_failures": 0.0})
    table = script("score_tables").absent_table({"sft": [run]}, {"sft": "supervised"})
    cells = [cell.strip() for cell in table.splitlines()[-1].split("|")[1:-1]]

    assert cells == ["supervised", "50.0", "100.0", "-", "-", "0.250", "100.0", "0.0"]


def test_rewards_are_shown_before_their_weights(script):
    """Saliency 0.5 and 0.7 with two seeds; a term that applied to no clip has a dash."""
    runs = [outcome(script, {}, **{"rewards/saliency": value, "rewards/diversity": 1.0}) for value in (0.5, 0.7)]
    header, _, row = script("score_tables").reward_table({"sft": runs}, {"sft": "supervised"}).splitlines()

    assert header == "| training | diversity | count | saliency | alignment | consistency |"
    assert row == "| supervised | 100.0 ± 0.0 | - | 60.0 ± 14.1 | - | - |"


def test_every_heading_says_what_it_rests_on(script):
    """Twenty questions about ten videos are enough; two are marked as few."""
    asked = {f"revos/valid/v{n // 2}/{n % 2}": {"referring/jf": 0.5} for n in range(20)}
    clips = asked | {A: {"seen/jf": 0.5}, B: {"seen/jf": 0.5}}
    table = {"sft": [outcome(script, clips)]}
    counts = script("score_tables").counts_of(table)

    assert counts["referring"] == counts["overall"] == "20 / 10"
    assert counts["seen"] == "2 / 2 (few)"
    for text in (
        script("score_tables").score_table(table, {"sft": "supervised"}),
        script("score_tables").difference_table(table | {"base": table["sft"]}, {"sft": "supervised"}, "base"),
    ):
        assert "| 20 / 10 |" in text.splitlines()[2]


def test_of_a_step_that_a_resume_repeats_the_second_time_counts(script, tmp_path):
    writer = SummaryWriter(str(tmp_path))
    for step, value in ((0, 1.0), (1, 2.0), (2, 3.0), (3, 4.0), (2, 5.0), (3, 7.0)):
        writer.add_scalar("reward", value, step)
    writer.close()
    assert script("outcomes").curves_of(tmp_path) == {"reward": [(0, 1.0), (1, 2.0), (2, 5.0), (3, 7.0)]}


def test_rows_made_by_different_code_say_so(script):
    commits_of, made = script("outcomes").commits_of, outcome(script, {})
    runs = {"a": [made], "b": [replace(made, tested_by="123")]}
    assert commits_of(runs) == "unknown (a); 123 (b)"
    assert commits_of({"b": runs["b"], "c": [replace(made, tested_by="123", trained_by=("123",))]}) == "123"
    resumed = [replace(made, tested_by="123", trained_by=("99", "100"))]
    assert commits_of({"b": resumed}) == "trained by 99 and 100, tested by 123"
    assert commits_of({"c": [*runs["b"], *runs["b"], made]}) == "123 (c, runs 0, 1); unknown (c, run 2)"
    assert commits_of({"c": [replace(made, tested_by="0123456789abcdef" * 2 + "01234567")]}) == "0123456789ab"


def differences(script, table, *flags):
    """What makes a table less than the whole one."""
    options, extra = script(table).parse(flags)
    return script("table_options").differences(options, script(table).parse([])[0], extra)


@pytest.mark.parametrize(
    ("flags", "less"),
    [
        (["--quick"], ["--seeds 0", "--prompts 96", "--clips 40"]),
        (["--rows", "sft", "rk"], ["--rows sft rk"]),
        (["--seeds", "1"], ["--seeds 1"]),
        (["--clips=3"], ["--clips 3"]),
        (["--prompts=4"], ["--prompts 4"]),
        (["--weights=/w"], ["--weights /w"]),
        (["--trainer.max_steps=2"], ["--trainer.max_steps=2"]),
    ],
)
def test_whatever_makes_a_table_less_than_the_whole_is_named(script, flags, less):
    assert sorted(differences(script, "baselines", *flags)) == sorted(less)


def test_the_whole_table_is_told_by_values_whatever_their_spelling(script, monkeypatch):
    monkeypatch.chdir(ROOT)
    names = [row.name for row in script("baselines").ROWS]
    for flags in (
        ["--processes=1", "--folder=x", "--page=y.md"],
        ["--seeds", "0", "1", "2"],
        ["--seeds", "2", "1", "0", "0"],
        ["--clips", "120", "--prompts=256"],
        ["--weights", "weights/tiny"],
        ["--rows", *reversed(names)],
        ["--quick", "--seeds", "0", "1", "2", "--clips=120", "--prompts=256"],
    ):
        assert differences(script, "baselines", *flags) == [], flags
    variants = [variant.name for variant in script("one_system").VARIANTS]
    answers = [
        f"runs/baselines/{name}" for name in ("rk_ra_rg_seed2", "base_seed0", "rk_ra_rg_seed0", "rk_ra_rg_seed1")
    ]
    spelled = ["--variants", *variants[::-1], "--answers", *answers, "--avshapes-sizes={ }", "--videos=300"]
    assert differences(script, "keyframe_value", *spelled) == []
    assert differences(script, "keyframe_value", "--answers", *answers[1:]) != []
    assert differences(script, "keyframe_value", "--variants") == ["--variants"]


def test_a_seed_is_run_once(script):
    baselines = script("baselines")
    assert list(baselines.parse(["--seeds", "3", "1", "3"])[0].seeds) == [3, 1]


def test_only_the_whole_table_takes_the_usual_places(script, capsys):
    place, root = script("table_options").usual_or_beside, script("side_by_side").ROOT
    assert place(None, "docs/results.md", Path("runs/x"), is_whole=False) == Path("runs/x/results.md")
    assert place(None, "docs/results.md", Path("runs/x"), is_whole=True) == root / "docs" / "results.md"
    assert place(Path("y.md"), "docs/results.md", Path("runs/x"), is_whole=True) == Path("y.md")
    script("table_options").say_if_less([])
    script("table_options").say_if_less(["--seeds 1", "rk_seed1 failed"])
    said = "This is not the whole table, which alone takes the usual places: --seeds 1, rk_seed1 failed\n"
    assert capsys.readouterr().out == said


def test_rows_that_are_not_finished_are_named(script, tmp_path):
    baselines = script("baselines")
    clips = {A: {"seen/jf": 0.5}, N: {"null/s": 0.0}}
    page = tmp_path / "results.md"
    baselines.write_page({"base": [outcome(script, clips)]}, ["rk"], {}, page, tmp_path / "results.png")
    assert "Not finished: GRPO, R_K.\n" in page.read_text()
    assert script("outcomes").finished(script("rows").places(baselines.ROWS, [0, 1], tmp_path)) == {}
