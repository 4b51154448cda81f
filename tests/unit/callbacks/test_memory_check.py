"""A run that cannot fit is refused before its weights are read."""

from types import SimpleNamespace

import lightning as L
import pytest
import torch
from plans import LOAD, SEVEN

from callbacks import memory_check
from callbacks.memory_check import MemoryCheck
from datamodules.errors import ConfigError
from lightning_modules.grpo_module import GRPOModule
from models.box_grounder import ReasonerGrounder
from models.propagator import SAM2Propagator
from models.reasoner import Reasoner


def module() -> GRPOModule:
    return GRPOModule(Reasoner(), grounder=ReasonerGrounder(), propagator=SAM2Propagator("weights"))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    """What was planned; always the 7B model on one device."""
    seen: list[dict[str, object]] = []

    def workload(module: object, data: object, **settings: object):
        seen.append(settings)
        return SEVEN, LOAD

    monkeypatch.setattr(memory_check, "workload", workload)
    return seen


def trainer(device: str = "cpu") -> SimpleNamespace:
    strategy = SimpleNamespace(root_device=torch.device(device))
    return SimpleNamespace(
        strategy=strategy, datamodule=object(), world_size=1, precision="bf16-mixed", is_global_zero=True
    )


def test_what_does_not_fit_is_refused_with_a_way_out_and_a_way_around(asked, capsys) -> None:
    with pytest.raises(
        ConfigError, match=r"needs .* GB .* Set --.* To begin all the same, set --memory\.enabled false"
    ):
        MemoryCheck(card_gb=20.0).setup(trainer(), module(), "fit")
    assert "planned memory per device" in capsys.readouterr().out
    assert asked[0]["precision"] == "bf16-mixed"


def test_what_fits_begins(asked, capsys) -> None:
    MemoryCheck(card_gb=80.0).setup(trainer(), module(), "fit")
    assert "KV cache" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("check", "other", "stage"),
    [
        (MemoryCheck(enabled=False, card_gb=1.0), module(), "fit"),
        (MemoryCheck(card_gb=1.0), module(), "test"),
        (MemoryCheck(card_gb=1.0), L.LightningModule(), "fit"),
        (MemoryCheck(), module(), "fit"),
    ],
    ids=["switched off", "no training", "another module", "no GPU"],
)
def test_nothing_else_is_planned(check: MemoryCheck, other: L.LightningModule, stage: str, asked) -> None:
    check.setup(trainer(), other, stage)
    assert asked == []


def test_a_gpu_is_asked_for_its_memory(asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=20e9))
    with pytest.raises(ConfigError, match=r"which has 20\.0 GB"):
        MemoryCheck().setup(trainer("cuda"), module(), "fit")
