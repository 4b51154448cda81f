"""The catalog holds every shipped reward, and what the page about rewards shows can be run."""

import importlib
import inspect
import re
from pathlib import Path
from textwrap import dedent
from typing import Optional

import pytest
import yaml
from jsonargparse import ArgumentParser

from rewards import catalog
from rewards.base import Reward
from rewards.suite import RewardSuite

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "rewards.md").read_text(encoding="utf-8")


def blocks(language):
    return [dedent(block) for block in re.findall(rf"^ *```{language}\n(.*?)```", PAGE, re.DOTALL | re.MULTILINE)]


def parse(path, *flags):
    """The terms as the command line reads them: a file, then flags over it."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_argument("--rewards", type=dict[str, Optional[Reward]], default={})  # noqa: UP045 - the type to be read
    return parser.instantiate_classes(parser.parse_args([f"--config={path}", *flags])).rewards


def test_the_catalog_is_complete():
    modules = [importlib.import_module(f"rewards.{path.stem}") for path in (ROOT / "rewards").glob("[a-z]*.py")]
    classes = {value for module in modules for value in vars(module).values() if inspect.isclass(value)}
    shipped = {value.__name__ for value in classes if issubclass(value, Reward) and not inspect.isabstract(value)}
    assert shipped == set(catalog.__all__)


@pytest.mark.parametrize("name", catalog.__all__)
def test_every_reward_is_on_the_page(name):
    assert f"{name}`" in PAGE


@pytest.mark.parametrize("name", catalog.__all__)
def test_every_reward_has_a_weight_and_only_keywords(name):
    parameters = inspect.signature(getattr(catalog, name)).parameters
    assert parameters["weight"].default == 1.0
    assert all(parameter.kind is parameter.KEYWORD_ONLY for parameter in parameters.values())


@pytest.mark.parametrize("block", blocks("yaml"))
def test_the_reward_sets_on_the_page_load(block, tmp_path):
    path = tmp_path / "rewards.yaml"
    path.write_text(block, encoding="utf-8")
    suite = RewardSuite(parse(path))
    assert suite.names == tuple(yaml.safe_load(block)["rewards"])
    assert suite.needs == {"boxes", "masks"}


def test_terms_change_from_the_command_line(tmp_path):
    path = tmp_path / "rewards.yaml"
    path.write_text("rewards: {format: FormatReward, length: {class_path: rewards.length.LengthReward}}")
    flags = ["--rewards.format.weight=0.5", "--rewards.mine=rewards.count.CountReward", "--rewards.mine.target_count=2"]
    terms = parse(path, *flags, "--rewards.length=null")
    assert terms["format"].weight == 0.5
    assert terms["mine"].target_count == 2
    assert terms["length"] is None


def test_the_reward_on_the_page_works(make_clip, make_rollout):
    (code,) = blocks("python")
    names = {}
    exec(compile(code, "docs/rewards.md", "exec"), names)
    rollouts = [make_rollout(make_clip(), [0], tokens=tokens) for tokens in (200, 201)]
    (output,) = RewardSuite({"brief": names["BriefReward"](weight=2.0)}).score([rollouts])
    assert output.totals == [2.0, 0.0]
