"""The adapter of a run, from its checkpoint, by one command."""

from pathlib import Path

import pytest
import torch
import yaml
from peft import PeftModel
from small_models import random_reasoner

from lightning_modules.export_run import PREFIX
from scripts import export


def run_folder(folder: Path, reasoner) -> Path:
    settings = {"path": "weights/tiny/reasoner", "lora": {"r": 4, "alpha": 8}}
    config = {"model": {"init_args": {"reasoner": {"init_args": settings}}}}
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    trained = {PREFIX + name: value for name, value in reasoner.model.named_parameters() if value.requires_grad}
    torch.save({"state_dict": trained, "pytorch-lightning_version": "2.6.6"}, folder / "checkpoints" / "last.ckpt")
    return folder


def command(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr("sys.argv", ["export.py", *map(str, arguments)])
    return export.main()


def test_a_checkpoint_becomes_a_peft_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reasoner = random_reasoner(adapter_scale=0.3)
    run = run_folder(tmp_path / "run", reasoner)
    assert command(monkeypatch, run) == 0
    loaded = PeftModel.from_pretrained(random_reasoner(adapter_scale=0.0).model.unload(), str(run / "adapter"))
    theirs, ours = dict(loaded.named_parameters()), dict(reasoner.model.named_parameters())
    names = [name for name in ours if "lora_" in name]
    assert names
    assert all(torch.equal(ours[name], theirs[name]) for name in names)
    assert loaded.peft_config["default"].base_model_name_or_path == "weights/tiny/reasoner"


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    assert command(monkeypatch, tmp_path) == 2
    assert "expected a run folder with config.yaml" in capsys.readouterr().err
    run = run_folder(tmp_path / "run", random_reasoner())
    assert command(monkeypatch, run, "--checkpoint", "nowhere.ckpt") == 2
    expected = f"found nothing at {run / 'checkpoints' / 'nowhere.ckpt'}, where there are: last.ckpt. Name one"
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize("is_path", [True, False], ids=["by its path", "by its name"])
def test_a_checkpoint_of_the_run_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_path: bool) -> None:
    """The name alone is what a person sees in the folder."""
    run = run_folder(tmp_path / "run", random_reasoner(adapter_scale=0.3))
    (run / "checkpoints" / "last.ckpt").rename(run / "checkpoints" / "step=40.ckpt")
    named = run / "checkpoints" / "step=40.ckpt" if is_path else "step=40.ckpt"
    assert command(monkeypatch, run, "--checkpoint", named, "--output", tmp_path / "adapter") == 0
    assert (tmp_path / "adapter" / "adapter_config.json").is_file()
