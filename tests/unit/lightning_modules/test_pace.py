"""A schedule whose updates become larger or smaller on the way ends with the run, and goes on where it was."""

from types import SimpleNamespace

import pytest

from lightning_modules.optim import Schedule, planned_updates
from lightning_modules.pace import Pace

PROMPTS = 48


def trainer(processes: int, *, step: int = 0, max_steps: int = -1, updates: int = 1) -> SimpleNamespace:
    """One epoch of 48 prompts, two per step and process."""
    data = SimpleNamespace(prompts_per_step=2, rollouts_per_epoch=PROMPTS // (2 * processes))
    return SimpleNamespace(
        datamodule=data,
        world_size=processes,
        global_step=step,
        max_steps=max_steps,
        max_epochs=1,
        limit_train_batches=1.0,
        updates=updates,
    )


def resumed(before: SimpleNamespace, after: SimpleNamespace, pace: Pace | None = None) -> Pace:
    checkpoint = {"global_step": before.global_step}
    (pace or Pace()).save(checkpoint, before, before.updates)
    found = Pace()
    found.load(checkpoint, after, after.updates)
    return found


@pytest.mark.parametrize("updates", [1, 2])
@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2), (2, 4), (2, 2)])
def test_half_an_epoch_is_half_a_schedule_with_any_number_of_processes(before: int, after: int, updates: int) -> None:
    """From 1 down to 0.2 over the epoch: 0.6 at its half, where the run is resumed, and 0.2 at its end."""
    step = PROMPTS // (2 * before) * updates // 2
    now = trainer(after, updates=updates)
    pace = resumed(trainer(before, step=step, updates=updates), now)
    total = planned_updates(now, updates_per_batch=updates)
    schedule = Schedule(decay="linear", floor=0.2)
    assert schedule.factor(step + pace.ahead, total) == pytest.approx(0.6)
    left = PROMPTS // 2 // (2 * after) * updates
    assert schedule.factor(step + left + pace.ahead, total) == pytest.approx(0.2)
    assert schedule.factor(step + left - 1 + pace.ahead, total) > 0.2
    assert pace.ahead == 0 or before != after


def test_a_run_may_change_its_size_more_than_once() -> None:
    """12 of 48 prompts by 2 processes in 3 updates, 12 by one in 6, then 4 processes: 24 prompts are 3 updates of 8."""
    second = resumed(trainer(2, step=3), trainer(1))
    assert second.ahead == 6 - 3
    third = resumed(trainer(1, step=3 + 6), trainer(4), second)
    assert third.ahead == 3 - 9


def test_a_run_that_ends_after_some_updates_counts_them_as_they_were_made() -> None:
    assert resumed(trainer(2, step=6, max_steps=10), trainer(1, max_steps=10)).ahead == 0


def test_data_without_a_size_of_steps_leave_no_place() -> None:
    bare = SimpleNamespace(datamodule=None, world_size=2, global_step=3, max_steps=9, max_epochs=1, updates=1)
    checkpoint: dict[str, int] = {}
    Pace().save(checkpoint, bare, 1)
    assert checkpoint == {}
    found = Pace()
    found.load(checkpoint | {"global_step": 3}, trainer(1), 1)
    assert found.ahead == 0
