import itertools
import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from datamodules.errors import ConfigError, RunError
from lightning_modules.optim import Schedule, clip_gradients, gradient_sync, planned_updates, scheduled


def test_linear_schedule_by_hand():
    """Warm-up 1/2, 1; then from 1 down to 0.2 over eight updates, 0.1 each; past the end it stays."""
    schedule = Schedule(warmup_steps=2, decay="linear", floor=0.2)
    factors = [schedule.factor(step, 10) for step in (0, 1, 2, 3, 6, 10, 99)]
    assert factors == pytest.approx([0.5, 1.0, 1.0, 0.9, 0.6, 0.2, 0.2])


def test_cosine_schedule_by_hand():
    """Half-way the cosine is half-way down: 1 - 0.9 / 2."""
    schedule = Schedule(decay="cosine", floor=0.1)
    assert [schedule.factor(step, 8) for step in (0, 4, 8)] == pytest.approx([1.0, 0.55, 0.1])


def test_constant_schedule_stays_after_the_warm_up():
    schedule = Schedule(warmup_steps=1, decay="constant")
    assert [schedule.factor(step, 4) for step in (0, 1, 4, 100)] == [1.0] * 4


@given(
    st.integers(0, 20),
    st.sampled_from(["linear", "cosine", "constant"]),
    st.floats(0, 1),
    st.integers(1, 60),
)
def test_a_schedule_never_rises_after_the_warm_up_and_stays_in_range(warmup, decay, floor, total):
    schedule = Schedule(warmup_steps=warmup, decay=decay, floor=floor)
    factors = [schedule.factor(step, total) for step in range(80)]
    assert all(0 < factor <= 1 for factor in factors[:warmup])
    after = factors[warmup:]
    assert all(floor - 1e-9 <= factor <= 1 for factor in after)
    assert all(late <= early + 1e-9 for early, late in itertools.pairwise(after))


def test_impossible_schedules_are_refused_together():
    with pytest.raises(ConfigError, match=r"warmup_steps is -1.*floor is 2.*total_steps is 0.*--model\.schedule"):
        Schedule(warmup_steps=-1, floor=2, total_steps=0)


def test_a_schedule_survives_its_own_state():
    """The scheduler's state holds numbers only; the factor itself comes from the settings again."""
    weights = [nn.Parameter(torch.zeros(1))]
    scheduler = scheduled(torch.optim.SGD(weights, lr=2.0), Schedule(floor=0.5), 4)
    assert scheduler.get_last_lr() == [2.0]
    scheduler.step()
    assert scheduler.get_last_lr() == [1.75]
    assert all(not callable(value) for value in scheduler.state_dict().values())


def trainer(max_steps: int = -1, max_epochs: int | None = None, limit: float = 1.0, rollouts: int | None = None):
    data = None if rollouts is None else SimpleNamespace(rollouts_per_epoch=rollouts)
    return SimpleNamespace(max_steps=max_steps, max_epochs=max_epochs, limit_train_batches=limit, datamodule=data)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (trainer(max_steps=7), 7),
        (trainer(max_epochs=2, rollouts=10), 40),
        (trainer(max_epochs=2, rollouts=10, limit=3), 12),
        (trainer(max_epochs=2, rollouts=10, limit=0.25), 8),
        (trainer(max_steps=5, max_epochs=2, rollouts=10), 5),
        (trainer(max_epochs=-1, rollouts=10), None),
        (trainer(max_epochs=2), None),
        (trainer(), None),
    ],
)
def test_planned_updates(found, expected):
    """Two updates per batch; the smallest known limit counts, in optimizer steps."""
    assert planned_updates(found, updates_per_batch=2) == expected


def weights_with_gradient(*values: float) -> list[nn.Parameter]:
    weights = [nn.Parameter(torch.zeros(1)) for _ in values]
    for weight, value in zip(weights, values, strict=True):
        weight.grad = torch.tensor([value])
    return weights


def test_clipping_by_hand():
    """Gradients 3 and 4 have norm 5; clipped to 1 they become 0.6 and 0.8."""
    weights = weights_with_gradient(3.0, 4.0)
    assert clip_gradients(weights, 1.0) == pytest.approx(5.0)
    assert [float(weight.grad) for weight in weights] == pytest.approx([0.6, 0.8], rel=1e-5)


@pytest.mark.parametrize("max_norm", [0.0, 10.0])
def test_no_clipping_leaves_gradients_alone(max_norm):
    weights = weights_with_gradient(3.0, 4.0)
    assert clip_gradients(weights, max_norm) == pytest.approx(5.0)
    assert [float(weight.grad) for weight in weights] == [3.0, 4.0]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_stops_the_run(value):
    with pytest.raises(RunError, match=r"expected a finite gradient norm, found .*--model\.optimizer\.lr"):
        clip_gradients(weights_with_gradient(1.0, value), 1.0)


@pytest.mark.parametrize("wrapped", [None, nn.Linear(1, 1)])
def test_gradient_sync_leaves_other_strategies_alone(wrapped):
    with gradient_sync(wrapped, enabled=False):
        pass
