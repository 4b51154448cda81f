from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file

from datamodules.errors import ConfigError
from models import loading, sam2_loading
from models.propagator import SAM2Propagator
from models.sam2_loading import build_predictor, load_predictor, released_configs, save_predictor
from models.sam2_predictor import ClipPredictor
from models.tiny.propagator import TINY_CONFIG


@pytest.fixture(scope="module")
def predictor() -> ClipPredictor:
    return build_predictor(TINY_CONFIG)


@pytest.fixture
def folder(tmp_path, predictor) -> Path:
    save_predictor(predictor, tmp_path / "weights", config_file=TINY_CONFIG)
    return tmp_path / "weights"


def test_a_saved_folder_loads_with_weights_rounded_to_half(folder, predictor):
    loaded = load_predictor(str(folder))
    for name, tensor in predictor.state_dict().items():
        assert loaded.state_dict()[name].dtype == torch.float32
        assert torch.equal(loaded.state_dict()[name], tensor.half().float()), name
    assert not loaded.training


def test_a_shipped_folder_is_found_from_any_directory(folder, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setattr(loading, "PROJECT_ROOT", folder.parent)
    assert isinstance(load_predictor("weights"), ClipPredictor)


def test_the_propagator_loads_and_freezes(folder):
    propagator = SAM2Propagator(str(folder))
    propagator.load()
    assert isinstance(propagator.predictor, ClipPredictor)
    assert not any(parameter.requires_grad for parameter in propagator.parameters())


def test_the_packaged_configurations_are_listed():
    names = released_configs()
    assert names["sam2.1_hiera_l"] == "configs/sam2.1/sam2.1_hiera_l.yaml"
    assert names["sam2_hiera_b+"] == "configs/sam2/sam2_hiera_b+.yaml"
    assert len(names) == 8


@pytest.mark.parametrize("left_out", [("config.yaml",), ("model.safetensors",), ("config.yaml", "model.safetensors")])
def test_missing_files_of_a_folder_are_all_named(folder, left_out):
    for name in left_out:
        (folder / name).unlink()
    with pytest.raises(ConfigError, match="has no " + " and no ".join(left_out)):
        load_predictor(str(folder))


def test_a_folder_brings_its_own_configuration(folder):
    with pytest.raises(ConfigError, match=r"'sam2.1_hiera_l', but .* brings its own config.yaml"):
        load_predictor(str(folder), config="sam2.1_hiera_l")


def test_a_path_that_is_nothing_lists_what_it_could_be(tmp_path):
    with pytest.raises(ConfigError, match=r"no released SAM2 id. Known ids: .*facebook/sam2.1-hiera-large") as error:
        load_predictor(str(tmp_path / "nowhere"))
    assert "--model.propagator.path" in str(error.value)


def test_damaged_weights_are_named(folder):
    (folder / "model.safetensors").write_bytes(b"not weights at all")
    with pytest.raises(ConfigError, match=r"model.safetensors could not be read"):
        load_predictor(str(folder))


def test_weights_of_another_model_are_explained(folder):
    weights = load_file(folder / "model.safetensors")
    weights["no_mem_embed"] = torch.zeros(1, 1, 7)
    weights["surplus"] = weights.pop("no_obj_ptr")
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(ConfigError, match="3 differences") as error:
        load_predictor(str(folder))
    for text in ("no_obj_ptr is missing", "surplus is not expected", "no_mem_embed has shape (1, 1, 7) instead of"):
        assert text in str(error.value)


def test_a_missing_configuration_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"Expected a SAM2 configuration at .*absent.yaml"):
        build_predictor(tmp_path / "absent.yaml")


@pytest.mark.parametrize(("text", "message"), [("a: [1", "could not be read as YAML"), ("a: 1", "no `model` entry")])
def test_configurations_of_another_form_are_refused(tmp_path, text, message):
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        build_predictor(tmp_path / "config.yaml")


def test_only_classes_of_sam2_are_built(tmp_path):
    config = OmegaConf.load(TINY_CONFIG)
    config.model.memory_encoder.fuser._target_ = "subprocess.run"
    OmegaConf.save(config, tmp_path / "config.yaml")
    with pytest.raises(ConfigError, match=r"names subprocess\.run; only classes of the sam2 package"):
        build_predictor(tmp_path / "config.yaml")


def test_an_unknown_configuration_lists_the_known_ones(tmp_path):
    (tmp_path / "mine.pt").touch()
    with pytest.raises(ConfigError, match=r"'hiera_huge'.*one of: .*sam2.1_hiera_l"):
        load_predictor(str(tmp_path / "mine.pt"), config="hiera_huge")


def test_a_checkpoint_of_another_name_needs_its_configuration(tmp_path):
    (tmp_path / "mine.pt").touch()
    with pytest.raises(ConfigError, match=r"mine.pt is not the name of a released SAM2 checkpoint.*sam2.1_hiera_t"):
        load_predictor(str(tmp_path / "mine.pt"))


@pytest.fixture
def small_builder(monkeypatch):
    """SAM2's builder as it is called for released checkpoints, but with the small model; notes the arguments."""
    calls = []

    def build(config_file, ckpt_path, *, device, hydra_overrides_extra):
        calls.append((config_file, ckpt_path, device, tuple(hydra_overrides_extra)))
        return build_predictor(TINY_CONFIG)

    monkeypatch.setattr(sam2_loading, "build_sam2_video_predictor", build)
    return calls


def test_a_released_checkpoint_file_is_known_by_its_name(tmp_path, predictor, small_builder):
    torch.save({"model": predictor.state_dict()}, tmp_path / "sam2.1_hiera_large.pt")
    loaded = load_predictor(str(tmp_path / "sam2.1_hiera_large.pt"))
    assert torch.equal(loaded.no_obj_ptr, predictor.no_obj_ptr)
    ((config, weights, device, overrides),) = small_builder
    assert (config, weights, device) == ("configs/sam2.1/sam2.1_hiera_l.yaml", None, "cpu")
    assert overrides == ("++model._target_=models.sam2_predictor.ClipPredictor",)


def test_a_checkpoint_takes_the_configuration_that_is_named(tmp_path, predictor, small_builder):
    torch.save({"model": predictor.state_dict()}, tmp_path / "mine.pt")
    load_predictor(str(tmp_path / "mine.pt"), config="sam2_hiera_s")
    assert small_builder[0][0] == "configs/sam2/sam2_hiera_s.yaml"


def test_a_checkpoint_of_another_form_is_refused(tmp_path, small_builder):
    torch.save({"weights": {}}, tmp_path / "sam2.1_hiera_tiny.pt")
    with pytest.raises(ConfigError, match=r"sam2.1_hiera_tiny.pt has no `model` entry"):
        load_predictor(str(tmp_path / "sam2.1_hiera_tiny.pt"))


def test_the_released_builder_makes_our_predictor():
    """The real call, with the smallest released configuration and random weights."""
    predictor = sam2_loading._build_released(released_configs()["sam2.1_hiera_t"])
    assert type(predictor) is ClipPredictor
    assert predictor.fill_hole_area == 0
    assert predictor.binarize_mask_from_pts_for_mem_enc


def test_an_id_is_downloaded_and_built(tmp_path, monkeypatch, predictor, small_builder):
    asked = []

    def download(repo_id, filename):
        asked.append((repo_id, filename))
        torch.save({"model": predictor.state_dict()}, tmp_path / filename)
        return str(tmp_path / filename)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    load_predictor("facebook/sam2.1-hiera-large")
    assert asked == [("facebook/sam2.1-hiera-large", "sam2.1_hiera_large.pt")]
    assert small_builder[0][0] == "configs/sam2.1/sam2.1_hiera_l.yaml"


def test_an_id_without_network_says_what_to_do(monkeypatch):
    def download(repo_id, filename):
        raise ConnectionError("offline")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    with pytest.raises(ConfigError, match=r"could not be downloaded \(offline\).*sam2.1_hiera_tiny.pt") as error:
        load_predictor("facebook/sam2.1-hiera-tiny")
    assert "--model.propagator.path" in str(error.value)


def test_an_id_has_its_own_configuration():
    with pytest.raises(ConfigError, match=r"facebook/sam2.1-hiera-tiny is built from sam2.1_hiera_t"):
        load_predictor("facebook/sam2.1-hiera-tiny", config="sam2.1_hiera_l")
