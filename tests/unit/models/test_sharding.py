"""What cannot be spread over devices is refused before anything is."""

import pytest
import torch
from small_models import random_reasoner
from torch import nn

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
