"""Reward flags may change, add or remove a term, and nothing else."""

import pytest

from lightning_modules.cli_rewards import RewardFlag, problem, reward_flags, without_reward_flags

LINE = [
    "fit",
    "--config",
    "a.yaml",
    "--rewards.format.weight",
    "0.5",
    "--rewards.mine=pkg.Mine",
    "--trainer.devices",
    "1",
]


def test_flags_are_read_in_both_forms() -> None:
    assert reward_flags(LINE) == [RewardFlag("format", "weight", "0.5"), RewardFlag("mine", "", "pkg.Mine")]


def test_the_rest_of_the_line_describes_the_run_without_them() -> None:
    assert without_reward_flags([*LINE, "--print_config"]) == [
        "fit", "--config", "a.yaml", "--trainer.devices", "1",
    ]  # fmt: skip


def test_a_whole_set_and_a_wish_for_help_are_no_reward_flags() -> None:
    line = ["fit", "--rewards", "set.yaml", "--rewards.help", "FormatReward"]
    assert reward_flags(line) == []
    assert without_reward_flags(line) == line


@pytest.mark.parametrize(
    "flags",
    [
        ["--rewards.format.weight", "0.5"],
        ["--rewards.format.init_args.weight", "0.5"],
        ["--rewards.length", "null"],
        ["--rewards.mine", "pkg.Mine", "--rewards.mine.weight", "2"],
        ["--rewards.mine.class_path", "pkg.Mine"],
    ],
)
def test_changing_removing_and_adding_is_fine(flags: list[str]) -> None:
    assert problem(reward_flags(flags), ["format", "length"]) == ""


@pytest.mark.parametrize("flags", [["--rewards.lenght", "null"], ["--rewards.lenght.weight", "0.5"]])
def test_an_unknown_term_is_refused_with_the_terms_and_the_nearest(flags: list[str]) -> None:
    line = problem(reward_flags(flags), ["format", "length"])
    assert line == "rewards.lenght: this run has no such reward; it has format, length. Did you mean `length`?"


def test_a_term_can_be_set_only_after_it_was_added() -> None:
    flags = reward_flags(["--rewards.mine.weight", "2", "--rewards.mine", "pkg.Mine"])
    assert "To add one, give its class first: --rewards.mine my_pkg.MyReward." in problem(flags, ["format"])
