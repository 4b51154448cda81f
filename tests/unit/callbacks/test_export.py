"""The adapter in PEFT's own form."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from stage import Logger, Writer, trainer_like
from torch import nn

from callbacks.export import ExportAdapter
from models.adapter import write_adapter
from models.reasoner import Reasoner


class Module(nn.Module):
    def __init__(self, reasoner: Reasoner) -> None:
        super().__init__()
        self.reasoner = reasoner


def trainer_for(module: nn.Module, folder: Path):
    strategy = SimpleNamespace(lightning_module_state_dict=module.state_dict)
    return trainer_like([Logger(Writer())], folder=folder, strategy=strategy)


def test_peft_loads_what_was_written(tmp_path: Path, make_reasoner: Callable[..., Reasoner]) -> None:
    reasoner = make_reasoner(adapter_scale=0.05)
    module = Module(reasoner)
    ExportAdapter().on_fit_end(trainer_for(module, tmp_path), module)
    names = {path.name for path in (tmp_path / "adapter").iterdir()}
    assert names == {"adapter_config.json", "adapter_model.safetensors"}
    assert all("lora_" in name for name in load_file(tmp_path / "adapter" / "adapter_model.safetensors"))
    assert not reasoner.model.peft_config["default"].inference_mode, "the running model goes on training"

    fresh = make_reasoner(adapter_scale=0.0).model.unload()
    loaded = PeftModel.from_pretrained(fresh, str(tmp_path / "adapter"))
    ours = {name: value for name, value in reasoner.model.named_parameters() if "lora_" in name}
    theirs = dict(loaded.named_parameters())
    assert ours
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_other_modules_and_null_write_nothing(tmp_path: Path, make_reasoner: Callable[..., Reasoner]) -> None:
    module = Module(make_reasoner())
    ExportAdapter(folder=None).on_fit_end(trainer_for(module, tmp_path), module)
    ExportAdapter().on_fit_end(trainer_for(nn.Linear(1, 1), tmp_path), nn.Linear(1, 1))
    assert not list(tmp_path.iterdir())


def test_an_adapter_is_there_whole_or_not_at_all(
    tmp_path: Path, make_reasoner: Callable[..., Reasoner], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_reasoner().model

    def fails(folder: str) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(model.peft_config["default"], "save_pretrained", fails)
    with pytest.raises(OSError, match="disk full"):
        write_adapter(model.peft_config["default"], dict(model.named_parameters()), tmp_path / "adapter")
    assert not list((tmp_path / "adapter").iterdir())
