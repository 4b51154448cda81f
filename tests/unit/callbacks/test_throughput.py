"""Rates are tokens over seconds, and waiting is what lies between two steps."""

from types import SimpleNamespace

import pytest
import torch
from stage import trainer_like

import callbacks.throughput
from callbacks.throughput import Throughput, peak_memory_gb


@pytest.fixture
def clock(monkeypatch):
    """Seconds that are set by hand."""
    state = SimpleNamespace(now=0.0)
    monkeypatch.setattr(callbacks.throughput.time, "perf_counter", lambda: state.now)
    return state


class Module(SimpleNamespace):
    """A module that keeps what is logged; two groups of four answers each."""

    def __init__(self) -> None:
        groups = (SimpleNamespace(rollouts=(1, 2, 3, 4)),) * 2
        super().__init__(device=torch.device("cpu"), num_tokens=0, last_groups=groups, rows=[])

    def log_dict(self, values) -> None:
        self.rows.append(values)


def step(recorder, clock, model, *, wait: float, work: float, tokens: int = 0, metrics=None) -> None:
    trainer = trainer_like(callback_metrics={name: torch.tensor(v) for name, v in (metrics or {}).items()})
    clock.now += wait
    recorder.on_train_batch_start(trainer, model, None, 0)
    clock.now += work
    if tokens:
        model.num_tokens += tokens
    recorder.on_train_batch_end(trainer, model, None, None, 0)


def test_the_wait_for_a_batch_is_a_share_of_the_step(clock):
    recorder, model = Throughput(), Module()
    step(recorder, clock, model, wait=5.0, work=2.0)
    step(recorder, clock, model, wait=1.0, work=3.0)
    assert model.rows[0]["time/waiting_s"] == 0
    assert model.rows[1]["time/step_s"] == 3
    assert model.rows[1]["time/waiting_s"] == 1
    assert model.rows[1]["throughput/waiting_share"] == pytest.approx(0.25)


def test_a_validation_between_two_steps_is_no_waiting(clock):
    recorder, model = Throughput(), Module()
    step(recorder, clock, model, wait=0.0, work=1.0)
    clock.now += 60
    recorder.on_validation_end(None, model)
    step(recorder, clock, model, wait=1.0, work=1.0)
    assert model.rows[1]["time/waiting_s"] == 0


def test_tokens_are_divided_by_the_seconds_they_took(clock):
    """Two groups of four answers of 10 tokens each: 80; the other 320 of 400 are prompts."""
    recorder, model = Throughput(), Module()
    step(recorder, clock, model, wait=0.0, work=4.0, tokens=400,
         metrics={"completions/mean_length": 10.0, "time/rollout_s": 2.0})  # fmt: skip
    row = model.rows[0]
    assert row["throughput/completion_tokens_per_s"] == 20
    assert row["throughput/prompt_tokens_per_s"] == 80
    assert row["throughput/sampled_tokens_per_s"] == 40


def test_a_module_without_rollouts_has_no_token_rates(clock):
    recorder, model = Throughput(), Module()
    del model.num_tokens, model.last_groups
    step(recorder, clock, model, wait=0.0, work=1.0)
    assert not any(key.endswith("per_s") for key in model.rows[0])


def test_switched_off_it_logs_nothing(clock):
    model = Module()
    step(Throughput(enabled=False), clock, model, wait=0.0, work=1.0)
    assert model.rows == []


def test_memory_is_that_of_this_process():
    block = torch.zeros(30_000_000)
    assert peak_memory_gb(torch.device("cpu")) > block.numel() * 4 / 1e9
