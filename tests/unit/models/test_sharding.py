"""What cannot be spread over devices is refused before anything is; layers come when they are needed."""

from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist
from small_models import random_reasoner
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule

from datamodules.errors import ConfigError
from models.sharding import ShardedModel, Sharding

NOWHERE = Sharding(mesh=None, device=torch.device("cpu"))  # type: ignore[arg-type]


def test_a_model_without_known_layers_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"expected a model with Qwen2_5OmniDecoderLayer, found Linear.*strategy ddp"):
        ShardedModel(nn.Linear(2, 2), NOWHERE)


@pytest.mark.parametrize("release", ["2.11.0", "2.14.1+cu130"])
def test_an_older_pytorch_is_refused_where_it_could_not_gather(release: str, monkeypatch: pytest.MonkeyPatch) -> None:
    thinker = random_reasoner().thinker
    for name, parameter in thinker.named_parameters():
        if "lora_" not in name:
            parameter.data = parameter.data.to(torch.bfloat16)
    monkeypatch.setattr(torch, "__version__", release)
    with pytest.raises(ConfigError, match=rf"torch\.bfloat16 and torch\.float32.* since 2\.15; this is {release[:6]}"):
        ShardedModel(thinker, NOWHERE)


@pytest.fixture
def mesh() -> Iterator[DeviceMesh]:
    """A single process."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


def is_coming(layer: nn.Module) -> bool:
    """Gathering has begun and nobody has waited for it; FSDP tells that by private names only."""
    assert isinstance(layer, FSDPModule)
    group = layer._get_fsdp_state()._fsdp_param_group
    return group._all_gather_result is not None and not group.is_unsharded


def test_the_next_layer_is_on_its_way_while_one_computes(mesh: DeviceMesh) -> None:
    reasoner = random_reasoner(layers=3)
    model = ShardedModel(reasoner.thinker, Sharding(mesh, torch.device("cpu"), gather="layer"))
    layers = list(reasoner.language_model.layers)
    coming = []
    with model.gathered():
        for layer in layers:
            model.enter(layer)
            coming.append([is_coming(other) for other in layers])
            model.leave(layer)
    assert coming == [[False, True, False], [False, False, True], [False, False, False]]
