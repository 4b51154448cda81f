import pytest
import torch
from torch import nn

from datamodules.errors import ConfigError
from lightning_modules.trainable_state import check_trainable, keep_trainable, trainable_names


def half_frozen() -> nn.Sequential:
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    model[0].requires_grad_(False)
    return model


def test_only_trained_weights_are_kept():
    model = half_frozen()
    checkpoint = {"state_dict": model.state_dict(), "other": 1}
    keep_trainable(model, checkpoint)
    assert set(checkpoint["state_dict"]) == set(trainable_names(model)) == {"1.weight", "1.bias"}
    assert checkpoint["other"] == 1


def test_a_whole_checkpoint_fits():
    model = half_frozen()
    check_trainable(model, {"state_dict": {"1.weight": torch.zeros(1, 3), "1.bias": torch.zeros(1)}})


def test_missing_and_misshapen_weights_are_named():
    found = {"state_dict": {"1.weight": torch.zeros(1, 7)}}
    with pytest.raises(ConfigError, match=r"1\.weight is \(1, 7\), expected \(1, 3\); 1\.bias is missing"):
        check_trainable(half_frozen(), found)


def test_many_problems_are_cut_short():
    model = nn.Sequential(*[nn.Linear(1, 1) for _ in range(4)])
    with pytest.raises(ConfigError, match=r"0\.weight is missing; 0\.bias is missing; 1\.weight is missing and 5 more"):
        check_trainable(model, {"state_dict": {}})
