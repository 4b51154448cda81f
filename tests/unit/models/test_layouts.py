"""Folders in every layout that released thinkers come in, read whole and in shares."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_models import random_reasoner
from torch import Tensor

from datamodules.errors import ConfigError
from models.reasoner import Reasoner
from models.sharded_loading import describe, name_in_memory, read_base, stored_tensors

INDEX = "model.safetensors.index.json"


def save_thinker(folder: Path) -> dict[str, Tensor]:
    """A thinker alone, in several files, with its processor; its weights by their names in memory."""
    reasoner = random_reasoner(adapter_scale=0.0)
    thinker = reasoner.model.unload()
    thinker.save_pretrained(folder, max_shard_size="100KB")
    reasoner.builder.processor.save_pretrained(folder)
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    return {name: value.clone() for name, value in thinker.state_dict().items()}


def make_full(folder: Path) -> None:
    """Make it what the full Omni model's folder looks like: everything one level deeper, and a part that speaks."""
    index = json.loads((folder / INDEX).read_text())
    for file in folder.glob("model-*.safetensors"):
        tensors = {f"thinker.{key}": value for key, value in load_file(file).items()}
        if "-00001-" in file.name:
            tensors["talker.model.norm.weight"] = torch.ones(4)
        save_file(tensors, file, metadata={"format": "pt"})
        index["weight_map"] |= dict.fromkeys(tensors, file.name)
    index["weight_map"] = {k: v for k, v in index["weight_map"].items() if k.startswith(("thinker.", "talker."))}
    (folder / INDEX).write_text(json.dumps(index))
    config = {"model_type": "qwen2_5_omni", "thinker_config": json.loads((folder / "config.json").read_text())}
    (folder / "config.json").write_text(json.dumps(config | {"enable_audio_output": False}))


def described(folder: Path) -> torch.nn.Module:
    """The model of a folder before it is read."""
    thinker = describe(folder, dtype=torch.float32, attention="sdpa")
    assert all(parameter.is_meta for parameter in thinker.parameters())
    thinker.to_empty(device="cpu")
    thinker.tie_weights()
    return thinker


@pytest.fixture(params=["thinker alone", "full model"])
def saved(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, dict[str, Tensor]]:
    weights = save_thinker(tmp_path)
    if request.param == "full model":
        make_full(tmp_path)
    return tmp_path, weights


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert set(found) == set(expected)
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_a_folder_of_either_layout_loads(saved: tuple[Path, dict[str, Tensor]]) -> None:
    folder, weights = saved
    reasoner = Reasoner(str(folder), template="short", lora=None)
    reasoner.load()
    assert_same(reasoner.thinker.state_dict(), weights)
    assert reasoner.thinker.config.get_text_config().num_hidden_layers == 2


def test_a_folder_of_either_layout_is_read_tensor_by_tensor(saved: tuple[Path, dict[str, Tensor]]) -> None:
    """The way that weights which are spread over devices are read in, here without any spreading."""
    folder, weights = saved
    thinker = described(folder)
    read_base(thinker, folder)
    assert_same(dict(thinker.named_parameters()), {name: weights[name] for name, _ in thinker.named_parameters()})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors, key: tensors.pop(key), r"\S+ is missing"),
        (lambda tensors, key: tensors.update({key: tensors[key][:1].clone()}), r"expected \(.+\), found \(1"),
        (lambda tensors, key: tensors.update({"visual.extra": torch.ones(2)}), r"visual\.extra is unknown"),
    ],
    ids=["missing", "another shape", "unknown"],
)
def test_weights_that_do_not_fit_are_named(change, message: str, tmp_path: Path) -> None:
    save_thinker(tmp_path)
    file = sorted(tmp_path.glob("model-*.safetensors"))[0]
    tensors = load_file(file)
    change(tensors, sorted(tensors)[0])
    save_file(tensors, file, metadata={"format": "pt"})
    thinker = described(tmp_path)
    with pytest.raises(ConfigError, match=rf"model\.reasoner\.path: .*{message}.*--model\.reasoner\.path"):
        read_base(thinker, tmp_path)


def test_every_stored_name_has_one_place_in_memory(tmp_path: Path) -> None:
    weights = save_thinker(tmp_path)
    names = [name_in_memory(key, weights) for key, _ in stored_tensors(tmp_path)]
    assert None not in names
    assert len(set(names)) == len(names)
    assert name_in_memory("talker.model.norm.weight", weights) is None
