"""What pages say in sentences is what was measured: figures in the prose, against the files of numbers."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"


@pytest.fixture(scope="module")
def baselines() -> dict[str, Any]:
    return json.loads((RESULTS / "baselines.json").read_text())


@pytest.fixture(scope="module")
def keyframes() -> dict[str, Any]:
    return json.loads((RESULTS / "keyframe_value.json").read_text())


@pytest.fixture(scope="module")
def page() -> Callable[[str], str]:
    """A page in one line, without emphasis."""
    return lambda name: " ".join((ROOT / name).read_text().replace("**", "").split())


def hundredths(values: Sequence[float]) -> list[str]:
    return [f"{100 * value:.1f}" for value in values]


def test_differences_of_the_table_are_quoted_right(baselines, page):
    found, text = baselines["differences"], page("docs/baselines.md")
    unseen, overall = (hundredths(found["minus sft"]["rk_ra_rg"][name]) for name in ("unseen", "overall"))
    absent, elsewhere = (
        hundredths(found["minus sft"]["rk_ra_rg"][name]) for name in ("null right", "non-existent right")
    )
    untrained, alone = (hundredths(found["minus base"][row]["unseen"]) for row in ("rk_ra_rg", "sft"))

    assert f"by {unseen[0]} points of J&F ({unseen[1]} to {unseen[2]})" in text
    assert f"ReVOS by {overall[0]} ({overall[1]} to {overall[2]})" in text
    assert f"on RefAVS ({absent[0]}, {absent[1]} to {absent[2]})" in text
    assert f"on ReVOS (+{elsewhere[0]}, {elsewhere[1]} to {elsewhere[2]})" in text
    assert f"on unseen pairs by {untrained[0]} ({untrained[1]} to {untrained[2]})" in text
    assert f"gains nothing here ({alone[0]}, {alone[1]} to {alone[2]})" in text


def test_scores_of_the_table_are_quoted_right(baselines, page):
    """Mean and spread of three seeds."""

    def shown(row: str, *keys: str) -> str:
        values = [np.mean([run["metrics"][key] for key in keys]) for run in baselines["rows"][row]]
        return f"{np.mean(values):.3f}" + (f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else "")

    unseen, overall = ("unseen/jf",), ("referring/jf", "reasoning/jf")
    readme = page("README.md")
    assert f"J&F of {shown('rk_ra_rg', *unseen)} on RefAVS-like clips with unseen pairs" in readme
    assert f"and {shown('rk_ra_rg', *overall)} on ReVOS-like ones" in readme
    assert f"same prompts {shown('sft', *unseen)} and {shown('sft', *overall)}, no training" in readme
    assert f"no training {shown('base', *unseen)} and {shown('base', *overall)}" in readme


def test_compute_is_quoted_right(keyframes, page):
    text, found = page("docs/baselines.md"), keyframes["compute"]
    jf = {name: f"{100 * np.mean(row['jf']):.1f}" for name, row in found.items()}
    spent = {name: f"{row['gflop']['system_1'] + row['gflop']['grounder']:.2f}" for name, row in found.items()}
    alone = ("one", "one_frames", "one_pixels", "one_both")
    last = ", ".join(jf[name] for name in alone[1:3]), ", ".join(spent[name] for name in alone[1:3])

    assert f"a J&F of {jf['two_grpo']} (GRPO) and {jf['two_oracle']} (supervised, true descriptions)" in text
    assert f"at {spent['two_grpo']} GFLOP; System 1 alone {jf['one']} at {spent['one']}, and" in text
    assert f"and {last[0]} and {jf['one_both']} at {last[1]} and {spent['one_both']}." in text
    ious = {part: [np.mean([one[part] for one in found[name]["places"]]) for name in alone] for part in PLACES}
    assert {f"{one:.2f}" for one in ious["held_out"]} == {"0.08"}
    assert f"(IoU 0.08, chance {min(ious['chance']):.2f} to {max(ious['chance']):.2f})" in text
    assert f"({min(ious['training']):.2f} to {max(ious['training']):.2f})" in text


PLACES = ("training", "held_out", "chance")


def test_frames_are_quoted_right(keyframes, page):
    """Means over clips of means over seeds, of answers that name a moment."""
    text, jf = page("docs/baselines.md"), keyframes["frames"]["jf"]
    trained = [jf[f"rk_ra_rg_seed{seed}"] for seed in range(3)]

    def mean(runs: Sequence[dict[str, Any]], key: str, task: str) -> float:
        clips = [clip for clip in runs[0] if clip.startswith(task) and any(run[clip] for run in runs)]
        return 100 * float(np.mean([np.mean([run[clip][key] for run in runs if run[clip]]) for clip in clips]))

    def both(runs: Sequence[dict[str, Any]], key: str) -> str:
        return " and ".join(f"{mean(runs, key, task):.1f}" for task in ("refavs", "revos"))

    assert f"GRPO's own frames reach {both(trained, 'true/own')};" in text
    assert f"with the fullest frames {both(trained, 'own/oracle')}." in text
    assert f"gives {both(trained, 'expression/own')} with its frames and" in text
    assert f"and {both(trained, 'expression/oracle')} with the fullest" in text
    gains = [mean(trained, "own/own", task) - mean([jf["base_seed0"]], "own/own", task) for task in ("refavs", "revos")]
    assert f"whose gain is {gains[0]:.1f} and {gains[1]:.1f}." in text


def test_named_frames_are_quoted_right(keyframes, page):
    text, found = page("docs/baselines.md"), keyframes["frames"]
    runs = [f"rk_ra_rg_seed{seed}" for seed in range(3)]
    shares = {
        name: [sum(list(sets.values())[:2]) / sum(sets.values()) for sets in by_task.values()]
        for name, by_task in found["choices"].items()
    }
    trained = [share for run in runs for share in shares[run]]
    saliency = [values for by_task in found["saliency"].values() for values in by_task.values()]
    own = [values["own"] for run in runs for values in found["saliency"][run].values()]

    assert f"make {100 * min(trained):.0f} to {100 * max(trained):.0f} % of a run's answers" in text
    assert f"without training it is {' and '.join(f'{100 * s:.0f}' for s in sorted(shares['base_seed0']))} %" in text
    for said, values in (
        ("the target has {} % of its largest area", own),
        ("as on random ones ({})", [one["random"] for one in saliency]),
        ("the fullest frame of every part has {}, and", [one["oracle"] for one in saliency]),
    ):
        assert said.format(f"{100 * min(values):.0f} to {100 * max(values):.0f}") in text
