"""Lines and bars of a run."""

import io
from types import SimpleNamespace

import pytest
import rich
import torch
from rich.console import Console
from stage import trainer_like

from callbacks.progress import RunProgress, planned_batches, shown_metrics
from lightning_modules.phases import PhaseClock

METRICS = {"reward": torch.tensor(0.4111), "kl": torch.tensor(0.0031), "completions/mean_length": torch.tensor(38.0)}


class Module:
    updates_per_batch = 2

    def __init__(self) -> None:
        self.clock = PhaseClock()


def test_the_few_numbers_that_matter_are_shown() -> None:
    trainer = trainer_like(callback_metrics=METRICS | {"loss": torch.tensor(0.0)})
    assert shown_metrics(trainer) == "reward 0.411  kl 0.0031  len 38"


def test_recipes_show_their_loss() -> None:
    assert shown_metrics(trainer_like(callback_metrics={"loss": torch.tensor(1.5)})) == "loss 1.5"


@pytest.mark.parametrize(
    ("limits", "batches"),
    [
        ({"max_steps": 7}, 4),
        ({"max_steps": -1, "max_epochs": 3}, 30),
        ({"max_steps": 100, "max_epochs": 3}, 30),
        ({"max_steps": -1, "max_epochs": -1}, None),
    ],
)
def test_the_end_is_the_nearer_limit(limits: dict[str, int], batches: int | None) -> None:
    """10 batches per epoch, 2 optimizer steps per batch: 7 steps end within the fourth batch."""
    assert planned_batches(trainer_like(**limits), Module()) == batches


def test_without_a_terminal_there_is_a_line_per_step(capsys: pytest.CaptureFixture[str]) -> None:
    progress, module = RunProgress(every_n_steps=2), Module()
    trainer = trainer_like(callback_metrics=METRICS, max_steps=8)
    progress.setup(trainer, module, "fit")
    progress.on_train_start(trainer, module)
    for step in range(4):
        trainer.fit_loop.epoch_loop.total_batch_idx = step
        progress.on_train_batch_end(trainer, module, None, None, step)
    progress.teardown(trainer, module, "fit")
    lines = [line for line in capsys.readouterr().out.splitlines() if line]
    assert [line.split("  ")[0] for line in lines] == ["step 2/4", "step 4/4"]
    assert "reward 0.411" in lines[0]


def test_a_terminal_gets_a_bar_that_names_the_phase(monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(force_terminal=True, width=150, file=io.StringIO())
    monkeypatch.setattr(rich, "get_console", lambda: console)
    progress, module = RunProgress(), Module()
    trainer = trainer_like(callback_metrics=METRICS, max_steps=8, num_val_batches=[3], num_sanity_val_batches=[1])
    progress.setup(trainer, module, "fit")
    progress.on_train_start(trainer, module)
    bars = progress._bars
    assert bars is not None
    with module.clock.phase("System 2"):
        assert bars.tasks[0].description.strip() == "System 2"
    progress.on_train_batch_end(trainer, module, None, None, 0)
    assert (bars.tasks[0].completed, bars.tasks[0].total) == (1, 4)
    assert bars.tasks[0].fields["numbers"].startswith("reward 0.411")
    progress.on_validation_start(trainer, module)
    progress.on_validation_batch_end()
    assert (bars.tasks[1].completed, bars.tasks[1].total) == (1, 3)
    progress.on_validation_end(trainer, module)
    assert len(bars.tasks) == 1
    progress.on_exception(trainer, module, KeyboardInterrupt())
    assert progress._bars is None


@pytest.mark.parametrize("verb", ["test", "predict"])
def test_other_commands_have_a_bar_too(verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(force_terminal=True, file=io.StringIO())
    monkeypatch.setattr(rich, "get_console", lambda: console)
    progress = RunProgress()
    trainer = trainer_like(num_test_batches=[2, float("inf")], num_predict_batches=[4])
    getattr(progress, f"on_{verb}_start")(trainer, None)
    getattr(progress, f"on_{verb}_batch_end")()
    assert progress._bars is not None
    assert progress._bars.tasks[0].completed == 1
    assert progress._bars.tasks[0].total == (None if verb == "test" else 4)
    progress.teardown(trainer, None, verb)


def test_other_processes_are_silent(capsys: pytest.CaptureFixture[str]) -> None:
    progress = RunProgress()
    trainer = trainer_like(is_global_zero=False, callback_metrics=METRICS)
    progress.setup(trainer, SimpleNamespace(), "fit")
    progress.on_train_start(trainer, SimpleNamespace())
    progress.on_train_batch_end(trainer, SimpleNamespace(), None, None, 0)
    assert not capsys.readouterr().out
