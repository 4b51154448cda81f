"""The numbers of the pages on keyframes and compute, from made-up answers."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

A, B, C = "refavs/test_s/0:vid_a_1_2_circle_1", "refavs/test_s/9:vid_b_1_2_circle_1", "revos/valid/v/0"


def values(script, own, uniform):
    """J&F of every policy; others than the two have 0.5."""
    found = {
        f"{words}/{policy}": 0.5 for words in script("other_frames").WORDS for policy in script("other_frames").POLICIES
    }
    return found | {"own/own": own, "own/uniform": uniform}


def test_frames_are_compared_per_benchmark_where_answers_have_some(script):
    """Clip a: 0.2 and 0.4 over seeds, uniform 0.1; b: one seed names no moment, the other 0.9 against 0.5.

    Own 0.3 and 0.9, uniform 0.1 and 0.5: differences 0.2 and 0.4; with the first seed alone 0.1, on clip a.
    """
    found = {
        "rk_seed0": {A: values(script, 0.2, 0.1), B: {}, C: values(script, 1.0, 0.0)},
        "rk_seed1": {A: values(script, 0.4, 0.1), B: values(script, 0.9, 0.5), C: values(script, 1.0, 0.0)},
        "base_seed0": {A: {}, B: {}, C: {}},
        "mine": {A: {}, B: {}, C: {}},
    }
    refavs, revos = script("frame_tables").frame_tables(found).split("### ReVOS")
    table = refavs.partition("| gain |")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if "R_K" in line]
    header = [cell.strip() for cell in refavs.splitlines()[2].split("|")[1:-1]]
    first = dict(zip(header, rows[0], strict=True))

    assert [row[2] for row in rows] == ["own", "true", "expression"]
    assert (first["seeds"], first["own"], first["uniform"]) == ("2", "60.0", "30.0")
    assert first["own - uniform"] == "+30.0 (+10.0 .. +40.0)"
    assert (first["clips / videos"], first["without a moment"]) == ("2 / 2 (few)", "25 %")
    assert "| no training | 1 | - |" in refavs
    assert "| mine | 1 | - |" in refavs, "a row of no table"
    assert "| GRPO, R_K | 2 | own | 100.0 |" in revos


def test_a_gain_is_taken_apart_into_moments_and_words(script):
    """Differences to the first row, whose seeds are averaged: own 0.8 - 0.3; own against uniform 0.8 - 0.6; 0.9 - 0.6.

    True words and the expression have 0.5 everywhere. A clip for which one of them names no moment is left out.
    """
    found = {
        "base_seed0": {A: values(script, 0.2, 0.5), B: {}},
        "base_seed1": {A: values(script, 0.4, 0.7), B: {}},
        "rk_seed0": {A: values(script, 0.8, 0.9), B: values(script, 0.0, 0.0)},
    }
    refavs, revos = script("frame_tables").frame_tables(found).split("### ReVOS")
    table = refavs[refavs.index("| gain |") :].splitlines()
    header, _, row = ([cell.strip() for cell in line.split("|")[1:-1]] for line in table if line)
    assert row[0] == "GRPO, R_K, minus no training"
    assert dict(zip(header[1:], row[1:], strict=True)) == {
        name: f"{change} ({change} .. {change})"
        for name, change in {
            "all": "+50.0",
            "all, against evenly spread": "+20.0",
            "moments, true words": "+0.0",
            "moments, the expression": "+0.0",
            "words, evenly spread": "+30.0",
            "words, oracle frames": "+0.0",
            "words, random frames": "+0.0",
        }.items()
    }
    assert f"| GRPO, R_K, minus no training | {' | '.join('-' * 7)} |" in revos, "no clip"


def answer(*starts):
    """A completion that names moments of a second each."""
    moments = [
        {"start_time": f"00:0{start}.00", "end_time": f"00:0{start + 1}.00", "description": "0 0 50 100"}
        for start in starts
    ]
    return f"<think>x</think><answer>{', '.join(map(json.dumps, moments))}</answer>"


def test_frequent_choices_of_frames_are_counted(script):
    """Answers without a moment have no choice."""
    tables, length = script("frame_tables"), SimpleNamespace(fps=1.0, count=10)
    clips = [SimpleNamespace(id=name, task="revos" if name == "d" else "refavs", frames=length) for name in "abcde"]
    texts = {"a": answer(0), "b": answer(0, 4), "c": answer(0, 4), "d": answer(1, 2, 3), "e": "nothing"}
    choices = tables.choices_of(texts, clips)

    assert choices == {"refavs": {"0, 4": 2, "0": 1}, "revos": {"1, 2, 3": 1}}
    assert list(choices["refavs"]) == ["0, 4", "0"]
    saliency = {"rk_seed0": dict.fromkeys(("refavs", "revos"), dict.fromkeys(script("other_frames").POLICIES, 0.5))}
    shares = " | ".join(["50"] * 5)
    assert tables.choice_table({"rk_seed0": choices, "mine": {}}, saliency).splitlines()[2:] == [
        f"| GRPO, R_K | rk_seed0 | RefAVS | 1.7 | 2 | 0, 4 (67 %); 0 (33 %) | {shares} |",
        f"| GRPO, R_K | rk_seed0 | ReVOS | 3.0 | 1 | 1, 2, 3 (100 %) | {shares} |",
    ]


def test_saliency_is_the_area_of_the_target_on_the_frames(script):
    """Areas 0, 1, 2, 3, 4 of two objects together: frames 0 and 3 have (0 + 3/4) / 2, 2 and 4 are the fullest of parts.

    The middles of two parts of five are frames 1 and 3; drawn frames have the mean of all.
    """
    masks = SimpleNamespace(areas=np.array([[0, 0], [1, 0], [1, 1], [1, 2], [0, 4]]))
    clip = SimpleNamespace(id="a", task="revos", frames=SimpleNamespace(fps=1.0, count=5), masks=masks)
    other = SimpleNamespace(id="b", task="revos", frames=clip.frames, masks=masks)
    found = script("frame_tables").saliency_of({"a": answer(0, 3), "b": "nothing"}, [clip, other])

    assert found == {"revos": {"own": 0.375, "oracle": 0.75, "uniform": 0.5, "random": 0.5, "first": 0.0}}


def test_rows_are_called_by_their_titles(script):
    """Where the page talks about some of them, and where it compares with them."""
    one_system = script("one_system")
    titles = {one.name: one.title for one in one_system.VARIANTS}
    said = " ".join(one_system.EXPLAINED.split())
    assert all(f"*{titles[name]}*" in said for name in (*one_system.AGAINST, "two_sft", "one"))
    assert not [name for name in titles if "_" in name and name in said]


def test_places_are_compared_with_the_true_ones(script, monkeypatch):
    """The left half against the whole frame is 1/2, a frame without the target 0; no keyframe is 0."""
    module = script("learned_places")
    clip = SimpleNamespace(frames=SimpleNamespace(fps=1.0, count=10))
    monkeypatch.setattr(module, "place", lambda _, frame: "0 0 100 100" if frame < 5 else "")

    assert module.place_iou(clip, answer(1)) == pytest.approx(0.5)
    assert module.place_iou(clip, answer(1, 7)) == pytest.approx(0.25)
    assert module.place_iou(clip, "nothing") == 0.0


def test_chance_compares_places_with_another_clip(script):
    pairs = [(1, "a"), (2, "b"), (3, "c"), (4, "d"), (5, "e")]
    assert list(script("learned_places").swapped(pairs)) == [(1, "c"), (2, "d"), (3, "e"), (4, "a"), (5, "b")]


def test_places_are_measured_once_for_an_adapter_and_its_answers(script, monkeypatch, tmp_path):
    """What other code has measured is kept, and named."""
    module, texts = script("learned_places"), {"a": "x"}
    (tmp_path / "version_0" / "adapter").mkdir(parents=True)
    adapter = tmp_path / "version_0" / "adapter" / "adapter_model.safetensors"
    adapter.write_text("first")
    monkeypatch.setattr(module, "read_outcome", lambda job: SimpleNamespace(texts=texts))
    monkeypatch.setattr(module, "ReVOS", lambda *_, **__: [])
    monkeypatch.setattr(module, "training_answers", lambda run: ["training"])
    monkeypatch.setattr(module, "swapped", lambda answers: ["one", "two"])
    monkeypatch.setattr(module, "_mean_iou", lambda answers: float(len(list(answers))))

    def measured_by(code):
        monkeypatch.setattr(module, "this_code", lambda: code)
        found = module.learned(tmp_path, tmp_path, fps=1.0)
        assert (found.training, found.held_out, found.chance) == (1.0, 0.0, 2.0)
        return found.measured_by

    assert [measured_by("1"), measured_by("2")] == ["1", "1"]
    adapter.write_text("second")
    assert [measured_by("3"), measured_by("4")] == ["3", "3"]
    texts["a"] = "y"
    assert measured_by("5") == "5"
    with pytest.raises(FileNotFoundError, match="only trained jobs have learned places"):
        module.learned(tmp_path / "nothing", tmp_path, fps=1.0)


def test_the_code_of_every_number_is_named(script, monkeypatch):
    """Runs, counted operations, and places, by the titles of rows."""
    one_system, made = script("one_system"), script("outcomes").Outcome({}, {}, {}, 0, 0, 0.0, {}, tested_by="1")
    monkeypatch.setattr(one_system, "this_code", lambda: "9")
    table = {"two": [made], "one": [made, replace(made, tested_by="2")], "one_both": [made]}
    numbers = {"two": {"places": []}, "one": {"places": [{"measured_by": "1"}] * 2}, "one_both": {"places": []}}

    assert one_system.compute_codes(table, numbers) == {
        "commit of compute": "1 (System 1 alone, run 0; System 1 alone, both; two systems, no training);"
        " 2 (System 1 alone, run 1)",
        "operations counted by": "9",
        "places measured by": "1",
    }
    assert set(one_system.compute_codes({"two": [made]}, numbers)) == {"commit of compute", "operations counted by"}


GRPO, SFT = "configs/baselines/grpo.yaml", "configs/baselines/sft.yaml"
ORACLE, PLACES = "configs/baselines/sft_oracle.yaml", "configs/baselines/sft_places.yaml"

LOOKS = {
    "two_grpo": ((GRPO,), 10, 12544),
    "two_oracle": ((SFT, ORACLE), 10, 12544),
    "one": ((SFT, PLACES), 10, 12544),
    "one_frames": ((SFT, PLACES), 20, 12544),
    "one_pixels": ((SFT, PLACES), 10, 50176),
    "one_both": ((SFT, PLACES), 20, 50176),
    "two": ((GRPO,), 10, 12544),
    "two_sft": ((SFT,), 10, 12544),
}
"""Configuration files, frames and pixels per frame of every variant: sides of 112 and 224."""


@pytest.fixture(scope="module")
def jobs(script):
    one_system = script("one_system")
    extra = ["--model.grounder.path=g", "--x=1"]
    made = one_system.make_jobs(one_system.VARIANTS, [0, 1, 2], Path("root"), prompts=8, clips=6, extra=extra)
    return {job.name: job for job in made}


def test_variants_become_jobs(script, jobs):
    """All but one are trained with every seed."""
    one_system = script("one_system")
    assert len(jobs) == 7 * 3 + 1
    assert {name for name, job in jobs.items() if job.fit is None} == {"two_seed0"}
    assert set(one_system.AGAINST) <= {variant.name for variant in one_system.VARIANTS}
    root = script("side_by_side").ROOT
    assert all((root / config).is_file() for variant in one_system.VARIANTS for config in variant.configs)


@pytest.mark.parametrize("name", LOOKS)
def test_every_variant_has_its_flags(script, jobs, name):
    """Trained with its frames and pixels; a test of a trained run has them from its configuration.

    System 1 alone is given no grounder, and supervised training no noise of sampling.
    """
    job = jobs["two_seed0" if name == "two" else f"{name}_seed1"]
    configs, frames, pixels = LOOKS[name]
    seen = [
        "--data.sources.revos.root=root",
        "--data.sources.revos.fps=2.0",
        "--data.sources.revos.clip_frames=20",
        "--data.sources.refavs.weight=0",
        f"--data.glance_frames={frames}",
        f"--data.glance_max_pixels={pixels}",
    ]
    drawn = ["--seed_everything=1", "--data.seed=1", "--data.sources.revos.train_size=8"]
    drawn += ["--model.sampling.seed=1"] if name == "two_grpo" else []
    asked = ["--x=1"] if name.startswith("one") else ["--model.grounder.path=g", "--x=1"]
    tested = ["--data.test_size=6", "--data.sources.revos.test_null_fraction=0", *script("rows").TESTED]

    assert job.configs == configs
    if name == "two":
        assert sorted(job.test) == sorted([*seen, *tested, *asked])
    else:
        assert sorted(job.fit) == sorted([*seen, *drawn, *script("rows").QUIET, *asked])
        assert sorted(job.test) == sorted(tested)


def test_every_variant_is_looked_at(script):
    found = {one.name: (one.frames, one.side**2) for one in script("one_system").VARIANTS}
    assert found == {name: (frames, pixels) for name, (_, frames, pixels) in LOOKS.items()}


def test_answers_of_one_name_are_refused_before_anything_runs(script, tmp_path):
    answers = ["--answers", str(tmp_path / "a" / "rk_seed0"), str(tmp_path / "b" / "rk_seed0"), "base_seed0"]
    said = r"these share one: \S+/a/rk_seed0 and \S+/b/rk_seed0\. Name one of them"
    with pytest.raises(SystemExit, match=said):
        script("keyframe_value").main([*answers, f"--folder={tmp_path}"])
    assert list(tmp_path.iterdir()) == []


def test_answers_about_other_clips_are_refused_before_anything_runs(script, monkeypatch, tmp_path):
    (tmp_path / "rk_seed0" / "test_0").mkdir(parents=True)
    (tmp_path / "rk_seed0" / "test_0" / "clips.jsonl").write_text(json.dumps({"clip": A, "text": "x", "jf": 0.5}))
    results = {"metrics": {}, "provenance": {"commit": None}}
    (tmp_path / "rk_seed0" / "test_0" / "results.json").write_text(json.dumps(results))
    monkeypatch.setattr(script("other_frames").Drawn, "data", lambda drawn: None)
    monkeypatch.setattr(script("other_frames"), "measured_clips", lambda data: [(SimpleNamespace(id=B), "the truth")])
    with pytest.raises(SystemExit, match=r"rk_seed0 answered 1 .*, 0 of them drawn here"):
        script("keyframe_value").main(["--answers", str(tmp_path / "rk_seed0"), f"--folder={tmp_path / 'kept'}"])
    assert not (tmp_path / "kept").exists()


def test_all_seeds_of_the_method_are_looked_at(script):
    def names(*seeds):
        return [folder.name for folder in script("keyframe_value").usual_answers(False, seeds)]

    assert names(0, 1, 2) == ["base_seed0", "rk_ra_rg_seed0", "rk_ra_rg_seed1", "rk_ra_rg_seed2"]
    assert names(1, 2) == ["base_seed1", "rk_ra_rg_seed1", "rk_ra_rg_seed2"], "the first of them says all of the base"
