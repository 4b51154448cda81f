"""The gates measure the runs that they are the gates of."""

import runpy
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("benchmark", ["refavs", "revos"])
def test_the_gates_measure_as_the_run_trains(benchmark: str) -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "gates.py"), run_name="gates")
    written = yaml.safe_load((ROOT / "configs" / f"{benchmark}.yaml").read_text())
    suite, sampling, shown = script["settings_of"](script["CONFIGS"] / f"{benchmark}.yaml")
    assert {name: (type(term).__name__, term.weight) for name, term in suite.terms.items()} == {
        name: (term["class_path"], term["init_args"]["weight"]) for name, term in written["rewards"].items()
    }
    assert suite.terms["length"].max_tokens == written["rewards"]["length"]["init_args"]["max_tokens"]
    assert sampling.top_p == written["model"]["init_args"]["sampling"]["top_p"] < 1
    data = written["data"]["init_args"]
    assert shown["glance_max_pixels"] == data["glance_max_pixels"]
    assert shown.get("clip_frames") == data.get("clip_frames")
