"""When a run is saved, and what Ctrl-C does."""

import contextlib
import os
import signal

import lightning as L
import pytest
import torch
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch.utils.data import DataLoader

from callbacks.checkpoint import RunCheckpoint
from callbacks.interrupt import GracefulInterrupt
from datamodules.errors import ConfigError


class Net(L.LightningModule):
    """Presses Ctrl-C, or fails, in a chosen step; or is told to stop in the validation after one."""

    def __init__(
        self, *, interrupt_at: int = -1, fail_at: int = -1, fail_in_validation: int = -1, stop_in_validation: int = -1
    ) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.interrupt_at, self.fail_at, self.fail_in_validation = interrupt_at, fail_at, fail_in_validation
        self.stop_in_validation = stop_in_validation
        self.validations: list[int] = []
        self.done: list[int] = []

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        if batch_idx == self.interrupt_at:
            os.kill(os.getpid(), signal.SIGINT)
        if batch_idx == self.fail_at:
            raise RuntimeError("a step that fails")
        self.done.append(batch_idx)
        self.log("score", float(-batch_idx))
        return self.layer(batch).sum()

    def validation_step(self, batch: torch.Tensor, batch_idx: int) -> None:
        if self.global_step == self.fail_in_validation:
            raise RuntimeError("a validation that fails")
        if self.global_step == self.stop_in_validation and batch_idx == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        self.validations.append(self.global_step)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(
    net: Net, folder, *, resume: bool = False, validate_every: int | None = None, blocks: int = 1, **settings: object
) -> None:
    callbacks = [GracefulInterrupt(), RunCheckpoint(str(folder), **{"every_n_train_steps": 4} | settings)]
    trainer = L.Trainer(
        accelerator="cpu", max_epochs=1, logger=False, callbacks=callbacks, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=folder, num_sanity_val_steps=0,
        check_val_every_n_epoch=None, val_check_interval=validate_every,
        limit_val_batches=blocks if validate_every else 0,
    )  # fmt: skip
    loader = DataLoader(torch.ones(10, 1))
    trainer.fit(net, loader, loader, ckpt_path=str(folder / "last.ckpt") if resume else None)


def saved_step(folder) -> int:
    return torch.load(folder / "last.ckpt", weights_only=True)["global_step"]


@pytest.mark.parametrize(("every", "updates", "cure"), [(10, 3, 9), (8, 3, 9), (1, 4, 4)])
def test_an_interval_within_a_rollout_is_refused(tmp_path, every: int, updates: int, cure: int) -> None:
    net = Net()
    net.updates_per_batch = updates
    checkpoint = RunCheckpoint(str(tmp_path), every_n_train_steps=every)
    trainer = L.Trainer(accelerator="cpu", logger=False, callbacks=[checkpoint])
    with pytest.raises(ConfigError, match=rf"is {every}, but .* every {updates} .*every_n_train_steps {cure}\.$"):
        trainer.fit(net, DataLoader(torch.ones(4, 1)))


def test_ctrl_c_ends_the_step_saves_and_stops(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    net = Net(interrupt_at=5)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(SIGTERMException):
        fit(net, tmp_path)
    assert net.done == [0, 1, 2, 3, 4, 5], "the step in which it was pressed is finished"
    assert saved_step(tmp_path) == 6
    assert signal.getsignal(signal.SIGINT) is before
    assert "Stopping after this step" in capsys.readouterr().err


def test_a_stop_in_a_step_with_a_validation_comes_after_it(tmp_path) -> None:
    with pytest.raises(SIGTERMException):
        fit(Net(interrupt_at=5), tmp_path, validate_every=6)
    assert saved_step(tmp_path) == 6
    net = Net()
    fit(net, tmp_path, resume=True, validate_every=6)
    assert net.validations == [], "what was validated is not validated again"
    assert net.done == [6, 7, 8, 9]


@pytest.mark.parametrize("every", [4, 7], ids=["due then", "not due then"])
def test_a_stop_in_a_validation_lets_it_end_and_saves(tmp_path, every: int) -> None:
    """Three clips are validated; the stop arrives with the first."""
    told, handler = Net(stop_in_validation=8), signal.getsignal(signal.SIGTERM)
    with pytest.raises(SIGTERMException):
        fit(told, tmp_path, validate_every=8, blocks=3, every_n_train_steps=every)
    assert told.validations == [8, 8, 8]
    assert told.done[-1] == 7
    assert saved_step(tmp_path) == 8
    assert signal.getsignal(signal.SIGTERM) is handler
    net = Net()
    fit(net, tmp_path, resume=True, validate_every=8, blocks=3, every_n_train_steps=every)
    assert (net.done, net.validations) == ([8, 9], [])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last.ckpt", "step=10.ckpt"]


def test_what_is_stopped_is_saved_though_it_is_not_the_best(tmp_path) -> None:
    with pytest.raises(SIGTERMException):
        fit(Net(interrupt_at=5), tmp_path, monitor="never logged", every_n_train_steps=100)
    assert saved_step(tmp_path) == 6


@pytest.mark.parametrize("monitor", ["score", "never logged"])
def test_stops_and_ends_leave_one_checkpoint_beside_the_best(tmp_path, monitor: str) -> None:
    """The score falls with every step, so the first checkpoint stays the best one; none is the best where none counts.

    A run that is stopped and queued again and again must not fill the disk.
    """
    best = {"step=4.ckpt"} if monitor == "score" else set()
    for stop, step in ((5, 6), (8, 9), (-1, 10)):
        with pytest.raises(SIGTERMException) if stop > 0 else contextlib.nullcontext():
            fit(Net(interrupt_at=stop), tmp_path, resume=step > 6, monitor=monitor)
        assert saved_step(tmp_path) == step
        assert {path.name for path in tmp_path.iterdir()} == best | {"last.ckpt", f"step={step}.ckpt"}


def test_where_all_are_kept_what_a_stop_saved_is_kept_too(tmp_path) -> None:
    with pytest.raises(SIGTERMException):
        fit(Net(interrupt_at=5), tmp_path, monitor="score", save_top_k=-1)
    fit(Net(), tmp_path, resume=True, monitor="score", save_top_k=-1)
    kept = {f"step={step}.ckpt" for step in (4, 6, 8, 10)}
    assert {path.name for path in tmp_path.iterdir()} == kept | {"last.ckpt"}


def test_a_stop_leaves_the_best_alone_where_names_do_not_tell_steps_apart(tmp_path) -> None:
    with pytest.raises(SIGTERMException):
        fit(Net(interrupt_at=5), tmp_path, monitor="score", filename="best")
    assert saved_step(tmp_path) == 6
    assert torch.load(tmp_path / "best.ckpt", weights_only=True)["global_step"] == 4


def test_a_stop_keeps_nothing_but_the_last_where_none_is_to_be_kept(tmp_path) -> None:
    with pytest.raises(SIGTERMException):
        fit(Net(interrupt_at=5), tmp_path, save_top_k=0)
    assert saved_step(tmp_path) == 6
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_stop_before_the_first_step_is_taken_at_once(tmp_path) -> None:
    class Asked(L.Callback):
        def on_validation_batch_start(self, *_: object) -> None:
            os.kill(os.getpid(), signal.SIGTERM)

    trainer = L.Trainer(
        accelerator="cpu", max_epochs=1, logger=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=tmp_path, callbacks=[Asked(), GracefulInterrupt(), RunCheckpoint(str(tmp_path))],
        num_sanity_val_steps=3,
    )  # fmt: skip
    net, loader = Net(), DataLoader(torch.ones(10, 1))
    with pytest.raises(SIGTERMException):
        trainer.fit(net, loader, loader)
    assert (net.validations, net.done, list(tmp_path.iterdir())) == ([0], [], [])


def test_other_commands_stop_at_once(tmp_path) -> None:
    trainer = L.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, default_root_dir=tmp_path,
        callbacks=[GracefulInterrupt()], enable_checkpointing=False,
    )  # fmt: skip
    net = Net(stop_in_validation=0)
    with pytest.raises(SIGTERMException):
        trainer.validate(net, DataLoader(torch.ones(10, 1)))
    assert net.validations == [0]


@pytest.mark.parametrize("kind", ["a file", "a folder"])
def test_where_there_are_no_links_the_last_checkpoint_is_a_copy(tmp_path, monkeypatch, kind: str) -> None:
    """Checkpoints of spread weights are folders."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(os, "symlink", refuse)
    trainer = L.Trainer(accelerator="cpu", logger=False, default_root_dir=tmp_path)
    link = tmp_path / "last.ckpt"
    for step in ("1", "2"):
        saved = tmp_path / f"step={step}.ckpt"
        if kind == "a folder":
            saved.mkdir()
        (saved / "part" if kind == "a folder" else saved).write_text(step)
        RunCheckpoint._link_checkpoint(trainer, str(saved), str(link))
        assert not link.is_symlink()
        assert (link / "part" if kind == "a folder" else link).read_text() == step
    assert len(list(tmp_path.glob("*last.ckpt*"))) == 1, "nothing staged is left"


def test_a_step_that_fails_does_not_replace_the_last_checkpoint(tmp_path) -> None:
    with pytest.raises(RuntimeError, match="a step that fails"):
        fit(Net(fail_at=5), tmp_path)
    assert saved_step(tmp_path) == 4


def test_a_checkpoint_waits_for_the_validation_that_follows_its_step(tmp_path) -> None:
    """Checkpoints come every 4 steps and validations every 8: the one of step 8 is written after its validation."""
    with pytest.raises(RuntimeError, match="a validation that fails"):
        fit(Net(fail_in_validation=8), tmp_path, validate_every=8)
    assert saved_step(tmp_path) == 4, "what was killed in a validation repeats the steps before it"
    net = Net()
    fit(net, tmp_path, resume=True, validate_every=8)
    assert net.validations == [8]
    assert saved_step(tmp_path) == 10


class Killed(BaseException):
    """Stands for a signal that no program can catch."""


@pytest.mark.parametrize("moment", ["symlink", "replace", "remove"])
def test_a_kill_while_saving_leaves_a_last_checkpoint(tmp_path, monkeypatch, moment: str) -> None:
    """In every act on `last.ckpt`, and on the checkpoint of step 4, after that of step 8 was written."""
    real, begun = getattr(os, moment), []

    def act(*paths, **more):
        is_meant = any("last.ckpt" in str(path) or "step=4.ckpt" in str(path) for path in paths)
        if is_meant and (tmp_path / "step=8.ckpt").exists():
            begun.append(saved_step(tmp_path))
            raise Killed
        return real(*paths, **more)

    monkeypatch.setattr(os, moment, act)
    with pytest.raises(Killed):
        fit(Net(), tmp_path)
    assert begun == [8 if moment == "remove" else 4]
    assert saved_step(tmp_path) in (4, 8)
    monkeypatch.undo()
    net = Net()
    fit(net, tmp_path, resume=True)
    assert net.done[-1] == 9


def test_one_checkpoint_is_kept_and_one_link(tmp_path) -> None:
    """Also by a run that was resumed from its first checkpoint."""
    for fails in (5, -1):
        with pytest.raises(RuntimeError) if fails > 0 else contextlib.nullcontext():
            fit(Net(fail_at=fails), tmp_path, resume=fails < 0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last.ckpt", "step=10.ckpt"]
    assert (tmp_path / "last.ckpt").is_symlink()
    assert saved_step(tmp_path) == 10


def test_the_last_checkpoint_is_what_was_trained(tmp_path) -> None:
    """Ten steps and a checkpoint every four: the end is saved as well, once."""
    net = Net()
    fit(net, tmp_path)
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert saved["global_step"] == 10
    assert torch.equal(saved["state_dict"]["layer.weight"], net.layer.weight)
    again = Net()
    fit(again, tmp_path, resume=True)
    assert again.done == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last.ckpt", "step=10.ckpt"]


@pytest.mark.parametrize("every", [4, 5], ids=["not due then", "due then, but not the best"])
def test_the_last_checkpoint_is_what_was_trained_whatever_is_best(tmp_path, every: int) -> None:
    """The score falls with every step, so the first checkpoint stays the best one."""
    fit(Net(), tmp_path, monitor="score", mode="max", every_n_train_steps=every)
    assert saved_step(tmp_path) == 10
    assert torch.load(tmp_path / f"step={every}.ckpt", weights_only=True)["global_step"] == every
    again = Net()
    fit(again, tmp_path, resume=True, monitor="score", mode="max", every_n_train_steps=every)
    assert again.done == []


def test_what_was_validated_is_not_validated_again(tmp_path) -> None:
    with pytest.raises(RuntimeError, match="a step that fails"):
        fit(Net(fail_at=8), tmp_path, validate_every=8)
    assert saved_step(tmp_path) == 8
    net = Net()
    fit(net, tmp_path, resume=True, validate_every=8)
    assert net.done == [8, 9]
    assert net.validations == []


def test_ctrl_c_can_be_left_alone(tmp_path) -> None:
    callback = GracefulInterrupt(enabled=False)
    before = signal.getsignal(signal.SIGINT)
    callback.on_train_start(L.Trainer(accelerator="cpu", logger=False, default_root_dir=tmp_path), Net())
    assert signal.getsignal(signal.SIGINT) is before
