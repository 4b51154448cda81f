"""The gates measure the run that they are the gates of."""

import runpy
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[3]


def test_the_rewards_are_those_of_the_run():
    script = runpy.run_path(str(ROOT / "scripts" / "gates.py"), run_name="gates")
    terms = script["trained_rewards"](script["CONFIG"])
    written = yaml.safe_load((ROOT / "configs" / "refavs.yaml").read_text())["rewards"]
    assert {name: (type(term).__name__, term.weight) for name, term in terms.items()} == {
        name: (term["class_path"], term["init_args"]["weight"]) for name, term in written.items()
    }
    assert len(terms) > 5
    assert terms["length"].max_tokens == written["length"]["init_args"]["max_tokens"]


def test_completions_are_drawn_as_in_the_run():
    script = runpy.run_path(str(ROOT / "scripts" / "gates.py"), run_name="gates")
    sampling = script["trained_sampling"](script["CONFIG"])
    written = yaml.safe_load((ROOT / "configs" / "refavs.yaml").read_text())["model"]["init_args"]["sampling"]
    assert {name: getattr(sampling, name) for name in written} == written
