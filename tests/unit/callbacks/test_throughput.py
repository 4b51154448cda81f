"""Rates are tokens over seconds, and waiting is what the loader says."""

from types import SimpleNamespace

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from small_models import noisy_clip
from stage import trainer_like

import callbacks.throughput
from callbacks.throughput import Throughput, peak_memory_gb
from datamodules.order import ClipLoader, EvalOrder
from datamodules.records import Clip
from datamodules.serving import ClipSet
from datamodules.video import SingleClip


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
    trainer = trainer_like(
        callback_metrics={name: torch.tensor(v) for name, v in (metrics or {}).items()},
        train_dataloader=SimpleNamespace(waited_s=wait),
    )
    recorder.on_train_batch_start(trainer, model, None, 0)
    clock.now += work
    if tokens:
        model.num_tokens += tokens
    recorder.on_train_batch_end(trainer, model, None, None, 0)


def test_the_wait_for_a_batch_is_a_share_of_the_step(clock):
    recorder, model = Throughput(), Module()
    step(recorder, clock, model, wait=1.0, work=3.0)
    (row,) = model.rows
    assert row["time/step_s"] == 3
    assert row["time/waiting_s"] == 1
    assert row["throughput/waiting_share"] == pytest.approx(0.25)


class Slow(Callback):
    """Takes a minute after every step, as writing a checkpoint may, and two for every validation."""

    def __init__(self, clock: SimpleNamespace) -> None:
        self.clock = clock

    def on_train_batch_end(self, *_: object) -> None:
        self.clock.now += 60

    def on_validation_end(self, *_: object) -> None:
        self.clock.now += 120


class Steps(L.LightningModule):
    """Steps of three seconds that train nothing, and what is logged of them."""

    def __init__(self, clock: SimpleNamespace) -> None:
        super().__init__()
        self.clock, self.rows, self.automatic_optimization = clock, [], False

    def training_step(self, *_: object) -> None:
        self.clock.now += 3

    def validation_step(self, *_: object) -> None:
        pass

    def transfer_batch_to_device(self, batch: list[Clip], *_: object) -> list[Clip]:
        return batch

    def configure_optimizers(self) -> None:
        return None

    def log_dict(self, values: dict[str, float], **_: object) -> None:
        self.rows.append(values)


@pytest.mark.filterwarnings("ignore")
def test_what_other_callbacks_do_between_two_steps_is_no_waiting(clock):
    """Two clips per batch at five seconds each; a minute after every step, and two for the validation between them."""

    def read(_: Clip) -> None:
        clock.now += 5

    clips, model = ClipSet(SingleClip(noisy_clip()), chosen=[0] * 6, prefetch=read), Steps(clock)
    loader = ClipLoader(clips, EvalOrder(6, batch_size=2))
    trainer = L.Trainer(
        accelerator="cpu", devices=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, max_epochs=1, val_check_interval=1,
        callbacks=[Throughput(), Slow(clock)],
    )  # fmt: skip
    trainer.fit(model, loader, ClipLoader(clips, EvalOrder(2, batch_size=2)))
    assert [(row["time/waiting_s"], row["time/step_s"]) for row in model.rows] == [(10, 3)] * 3


def test_a_loader_that_does_not_time_the_wait_has_none(clock):
    model = Module()
    recorder, trainer = Throughput(), trainer_like(train_dataloader=[])
    recorder.on_train_batch_start(trainer, model, None, 0)
    clock.now += 1
    recorder.on_train_batch_end(trainer, model, None, None, 0)
    assert model.rows[0].keys() == {"time/step_s", "memory/peak_gb"}


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
