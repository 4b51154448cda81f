"""An adapter in its own folder, and added into its base: plain libraries load both, and they write the same."""

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from small_models import random_reasoner
from transformers import Qwen2_5OmniThinkerForConditionalGeneration

from datamodules.errors import ConfigError
from models.adapter import read_adapter, write_adapter
from models.merging import MOST_LOST, merge_adapter
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


def half_base(base: Path, adapter: Path, scale: float) -> None:
    """Store the base in bfloat16, and let the adapter add so many times as much."""
    load(base).to(torch.bfloat16).save_pretrained(base)
    weights = load_file(adapter / "adapter_model.safetensors")
    scaled = {name: value * scale if "lora_B" in name else value for name, value in weights.items()}
    save_file(scaled, adapter / "adapter_model.safetensors", metadata={"format": "pt"})


def test_a_small_adapter_does_not_drown_in_the_rounding_of_its_base(
    trained: tuple[Reasoner, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    """Without a type it is written in float32, where it is whole; asked for bfloat16, most of it is gone."""
    _, adapter, base = trained
    half_base(base, adapter, 1e-3)
    exact = PeftModel.from_pretrained(load(base, dtype=torch.float32), str(adapter)).merge_and_unload().state_dict()
    plain = load(base, dtype=torch.float32).state_dict()
    changed = [name for name in exact if not torch.equal(exact[name], plain[name])]
    assert changed

    def lost_in(folder: Path) -> float:
        written = load(folder, dtype="auto").float().state_dict()
        off = sum(float((written[name] - exact[name]).square().sum()) for name in changed)
        return (off / sum(float((exact[name] - plain[name]).square().sum()) for name in changed)) ** 0.5

    arguments = ["merge.py", str(adapter), "--output"]
    monkeypatch.setattr("sys.argv", [*arguments, str(tmp_path / "kept")])
    assert merge.main() == 0
    assert load(tmp_path / "kept", dtype="auto").dtype == torch.float32
    assert lost_in(tmp_path / "kept") < 1e-3
    said = capsys.readouterr()
    assert "in float32; rounding has changed 0.0% of what" in said.out
    assert "warning" not in said.err
    monkeypatch.setattr("sys.argv", [*arguments, str(tmp_path / "drowned"), "--dtype", "bfloat16"])
    assert merge.main() == 0
    said = capsys.readouterr()
    assert lost_in(tmp_path / "drowned") > MOST_LOST
    assert f"in bfloat16; rounding has changed {lost_in(tmp_path / 'drowned'):.1%} of what" in said.out
    assert "warning: the merged model is not the trained one" in said.err


def test_an_adapter_that_half_precision_keeps_is_written_as_its_base(
    trained: tuple[Reasoner, Path, Path], tmp_path: Path
) -> None:
    _, adapter, base = trained
    half_base(base, adapter, 10.0)
    merged = merge_adapter(adapter, tmp_path / "half", base=str(base))
    assert merged.dtype == "bfloat16"
    assert 0 < merged.lost < MOST_LOST
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
