"""An adapter in its own folder, and added into its base: plain libraries load both, and they write the same."""

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from small_models import random_reasoner
from transformers import Qwen2_5OmniThinkerForConditionalGeneration

from datamodules.errors import ConfigError
from models.adapter import read_adapter, write_adapter
from models.merging import merge_adapter
from models.reasoner import Reasoner
from scripts import merge

load = Qwen2_5OmniThinkerForConditionalGeneration.from_pretrained
IDS = torch.arange(10, 34)[None]


def written(model: torch.nn.Module) -> list[int]:
    """What a model goes on with after some tokens, and its certainty about each of them."""
    out = model.generate(input_ids=IDS, attention_mask=torch.ones_like(IDS), max_new_tokens=24, do_sample=False)
    return out[0, IDS.shape[1] :].tolist()


@pytest.fixture
def trained(tmp_path: Path) -> tuple[Reasoner, Path, Path]:
    """A reasoner with an adapter that matters, its exported adapter, and its base."""
    reasoner = random_reasoner(gain=4.0, adapter_scale=0.2)
    config = reasoner.model.peft_config["default"]
    config.base_model_name_or_path = str(tmp_path / "base")
    write_adapter(config, dict(reasoner.model.named_parameters()), tmp_path / "adapter")
    base = random_reasoner(gain=4.0, adapter_scale=0.0)
    base.model.unload().save_pretrained(tmp_path / "base")
    base.builder.processor.save_pretrained(tmp_path / "base")
    return reasoner, tmp_path / "adapter", tmp_path / "base"


def test_plain_libraries_write_what_the_trained_model_writes(
    trained: tuple[Reasoner, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reasoner, adapter, base = trained
    expected = written(reasoner.thinker.eval())
    assert written(load(base).eval()) != expected, "the adapter changes what is written"
    assert written(PeftModel.from_pretrained(load(base), str(adapter)).eval()) == expected
    monkeypatch.setattr("sys.argv", ["merge.py", str(adapter), "--output", str(tmp_path / "merged")])
    assert merge.main() == 0
    assert written(load(tmp_path / "merged").eval()) == expected
    again = Reasoner(str(tmp_path / "merged"), template="short", lora=None)
    again.load()
    assert written(again.thinker.eval()) == expected, "a run starts from the merged folder as from any other"


def test_a_merged_model_can_be_stored_smaller(trained: tuple[Reasoner, Path, Path], tmp_path: Path) -> None:
    _, adapter, base = trained
    merge_adapter(adapter, tmp_path / "half", base=str(base), dtype="bfloat16")
    assert load(tmp_path / "half", dtype="auto").dtype == torch.bfloat16


def test_what_is_no_adapter_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr("sys.argv", ["merge.py", str(tmp_path), "--output", str(tmp_path / "merged")])
    assert merge.main() == 2
    assert "error: expected a folder with adapter_config.json" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="expected weights of a LoRA adapter, found none among 1"):
        write_adapter(random_reasoner().model.peft_config["default"], {"weight": torch.ones(1)}, tmp_path)


def test_an_adapter_of_another_base_is_refused(trained: tuple[Reasoner, Path, Path]) -> None:
    _, adapter, _ = trained
    other = random_reasoner(layers=3)
    with pytest.raises(
        ConfigError, match=r"model\.reasoner\.adapter: .* does not fit the model: .*layers\.2.* is missing"
    ):
        read_adapter(other.model, adapter)
