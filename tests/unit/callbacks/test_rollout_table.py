"""The table of completions."""

import pytest
from stage import Logger, Writer, group_of, rollout_of, trainer_like

from callbacks.rollout_table import RolloutTable


class Module:
    last_groups = (
        group_of([rollout_of(text="<think>x</think>|"), rollout_of()], format=[1.0, None], alignment=[0.25, 0.5]),
        group_of([rollout_of("refavs/val/1:other")], format=[0.0], alignment=[0.0]),
    )


def shown(step: int, **settings: object) -> str:
    writer = Writer()
    trainer = trainer_like([Logger(writer)])
    trainer.fit_loop.epoch_loop.total_batch_idx = step
    RolloutTable(**settings).on_train_batch_end(trainer, Module(), None, None, 0)
    return writer.texts["rollouts"][0] if writer.texts else ""


def test_every_term_the_total_and_the_advantage_are_shown() -> None:
    lines = shown(0).splitlines()
    assert lines[0] == "| prompt | completion | format | alignment | reward | advantage |"
    assert lines[2].endswith("| &lt;think>x&lt;/think>&#124; | 1.00 | 0.25 | 0.00 | +0.00 |")
    assert lines[2].startswith("| the red circle (seen, refavs/val/0:clip) |")
    assert lines[3].startswith("|  | &lt;think>a&lt;/think> | - | 0.50 | 1.00 | +1.00 |"), "a term may not apply"
    assert "refavs/val/1:other" in lines[4]


def test_tables_come_every_few_steps() -> None:
    assert shown(8, every_n_steps=8)
    assert not shown(9, every_n_steps=8)
    assert not shown(0, every_n_steps=0)


def test_sizes_are_limited() -> None:
    assert len(shown(0, prompts=1, completions=1).splitlines()) == 3
    assert "<th [...] nk>" in shown(0, max_characters=6).replace("&lt;", "<")


def test_a_cut_completion_says_so() -> None:
    from dataclasses import replace

    class Cut:
        last_groups = (group_of([replace(rollout_of(), is_truncated=True)], format=[0.0]),)

    writer = Writer()
    RolloutTable().on_train_batch_end(trainer_like([Logger(writer)]), Cut(), None, None, 0)
    assert "[cut off]" in writer.texts["rollouts"][0]


def test_a_module_without_rollouts_has_no_table() -> None:
    writer = Writer()
    RolloutTable().on_train_batch_end(trainer_like([Logger(writer)]), object(), None, None, 0)
    assert not writer.texts


def test_the_console_gets_model_text_literally(capsys: pytest.CaptureFixture[str]) -> None:
    class Module:
        last_groups = (group_of([rollout_of(text="a [bold]b")], format=[0.0]),)

    RolloutTable(console=True).on_train_batch_end(trainer_like(), Module(), None, None, 0)
    printed = capsys.readouterr().out
    assert "[bold]" in printed.replace("\n", "")
