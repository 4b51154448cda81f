"""Weights that are not there, not all there, or of another model."""

import json

import pytest
from detector_families import save_owlvit
from safetensors.torch import load_file, save_file

from datamodules.errors import ConfigError
from models import loading
from models.detector import DetectorGrounder
from models.loading import find_weights, local_path, reading
from models.reasoner import Reasoner


@pytest.fixture
def reasoner_folder(make_reasoner, tmp_path):
    original = make_reasoner(adapter_scale=0.0)
    original.model.unload().save_pretrained(tmp_path / "reasoner")
    original.builder.processor.save_pretrained(tmp_path / "reasoner")
    return tmp_path / "reasoner"


@pytest.fixture
def grounder_folder(tmp_path):
    save_owlvit(tmp_path / "grounder")
    return tmp_path / "grounder"


def drop(folder, part):
    """Leave out every tensor with `part` in its name, and return how many those were."""
    file = folder / "model.safetensors"
    tensors = load_file(file)
    kept = {name: tensor for name, tensor in tensors.items() if part not in name}
    save_file(kept, file, metadata={"format": "pt"})
    return len(tensors) - len(kept)


def change_config(folder, **settings):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))


def test_a_reasoner_without_all_of_its_layers_is_refused(reasoner_folder):
    count = drop(reasoner_folder, "layers.1.")
    assert count > 5
    with pytest.raises(
        ConfigError, match=rf"model\.reasoner\.path: .*\({count} differences: .*layers\.1\..* is missing"
    ):
        Reasoner(str(reasoner_folder)).load()


def test_a_reasoner_with_weights_of_another_size_is_refused(reasoner_folder):
    file = reasoner_folder / "model.safetensors"
    tensors = load_file(file)
    tensors["model.norm.weight"] = tensors["model.norm.weight"][:3].clone()
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(ConfigError, match=r"\(1 differences: .*norm\.weight has shape \(3,\) instead of \(64,\)"):
        Reasoner(str(reasoner_folder)).load()


def test_a_reasoner_of_another_architecture_is_refused(reasoner_folder):
    change_config(reasoner_folder, model_type="qwen2_5_vl")
    with pytest.raises(ConfigError, match=r"holds a model of type 'qwen2_5_vl'; expected a Qwen2\.5-Omni model"):
        Reasoner(str(reasoner_folder)).load()


def test_a_file_that_was_cut_short_is_named(reasoner_folder):
    file = reasoner_folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(ConfigError, match=r"model\.reasoner\.path: .* could not be read \(.*--model\.reasoner\.path"):
        Reasoner(str(reasoner_folder)).load()


def test_weights_without_a_place_are_left_out(reasoner_folder):
    """As those of the talker in the released folders."""
    file = reasoner_folder / "model.safetensors"
    tensors = load_file(file)
    save_file(tensors | {"talker.norm.weight": tensors["model.norm.weight"].clone()}, file, metadata={"format": "pt"})
    Reasoner(str(reasoner_folder)).load()


def test_a_detector_without_all_of_its_weights_is_refused(grounder_folder):
    count = drop(grounder_folder, "box_head")
    with pytest.raises(ConfigError, match=rf"model\.grounder\.path: .*\({count} differences: box_head\..* is missing"):
        DetectorGrounder(str(grounder_folder)).load()


def test_a_detector_in_place_of_the_reasoner_is_one_message(grounder_folder):
    with pytest.raises(ConfigError, match=r"model\.reasoner\.path: .*holds a model of type 'owlvit'"):
        Reasoner(str(grounder_folder)).load()


def test_a_mistyped_folder_is_no_hub_id(tmp_path, monkeypatch):
    """The first part is a folder, here or in the project, so the second was meant to be in it."""
    (tmp_path / "runs").mkdir()
    (tmp_path / "project" / "weights").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loading, "PROJECT_ROOT", tmp_path / "project")
    for path in ("runs/model", "weights/tinny"):
        with pytest.raises(ConfigError, match=rf"f: expected a folder or a hub id .* found '{path}', which is neither"):
            find_weights(path, flag="f", required=())


def test_what_the_library_cannot_read_is_one_line_with_the_flag():
    reason = "Can't load image processor for 'a/b'.\nMake sure of many things."
    with pytest.raises(ConfigError) as caught, reading("a/b", flag="model.x.path"):
        raise OSError(reason)
    assert str(caught.value).startswith(
        "model.x.path: a/b could not be read (Can't load image processor for 'a/b'.). Set"
    )
    assert "\n" not in str(caught.value)


def test_a_path_is_looked_for_here_and_then_in_the_project(tmp_path, monkeypatch):
    (tmp_path / "project" / "weights").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loading, "PROJECT_ROOT", tmp_path / "project")
    assert local_path("weights") == tmp_path / "project" / "weights"
    (tmp_path / "weights").mkdir()
    assert local_path("weights").resolve() == tmp_path / "weights"
    assert str(local_path("nowhere")) == "nowhere"
