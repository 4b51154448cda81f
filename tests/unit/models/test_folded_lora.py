"""The folded product, against PEFT's own layer."""

import copy

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import Linear
from torch import nn

from models.folded_lora import FoldedLinear, with_folding


def layer(*, dropout: float = 0.0, dtype: torch.dtype = torch.float32, **settings) -> PeftModel:
    """One linear layer of 12 inputs and 20 outputs under a model, its adapter not zero."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        base = nn.Sequential(nn.Linear(12, 20, dtype=dtype))
        config = LoraConfig(r=3, lora_alpha=6, target_modules=["0"], lora_dropout=dropout, **settings)
        model = get_peft_model(base, with_folding(config))
        nn.init.normal_(linear(model).lora_B["default"].weight)
    return model.train()


def linear(model: PeftModel) -> FoldedLinear:
    found = model.get_base_model()[0]
    assert isinstance(found, FoldedLinear)
    return found


def values(model: PeftModel, x: torch.Tensor) -> list[torch.Tensor]:
    """Output, and gradients of the input and of the adapter, under a loss that weighs every output differently."""
    x = x.clone().requires_grad_()
    model.zero_grad()
    y = model(x)
    (y * torch.linspace(-1, 2, y.numel()).view_as(y)).sum().backward()
    parameters = [linear(model).lora_A["default"].weight, linear(model).lora_B["default"].weight]
    return [y, x.grad, *(parameter.grad.clone() for parameter in parameters)]


@pytest.mark.parametrize("shape", [(12, 12), (1, 40, 12), (3, 5, 12)])
def test_values_and_gradients_are_those_of_peft(shape, monkeypatch):
    model, x = layer(), torch.randn(shape, generator=torch.Generator().manual_seed(1))
    assert linear(model).folds(x)
    found = values(model, x)
    monkeypatch.setattr(FoldedLinear, "forward", Linear.forward)
    for ours, theirs in zip(found, values(model, x), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_gradients_are_those_of_small_differences():
    """In the numbers that the adapter's gradients stand for: what the loss does when a weight moves."""
    model, x = layer(), torch.randn(12, 12, generator=torch.Generator().manual_seed(1))
    gradient = values(model, x)[3]
    weight, step = linear(model).lora_B["default"].weight, 0.25
    weigh = torch.linspace(-1, 2, 240).view(12, 20)
    with torch.no_grad():
        before = (model(x) * weigh).sum()
        weight[4, 1] += step
        after = (model(x) * weigh).sum()
    assert (after - before).item() / step == pytest.approx(gradient[4, 1].item(), rel=1e-3)


def test_an_input_without_gradient_costs_none():
    model, x = layer(), torch.randn(12, 12)
    model(x).sum().backward()
    assert x.grad is None
    assert linear(model).lora_A["default"].weight.grad is not None


def test_few_rows_are_not_worth_it():
    assert not linear(layer()).folds(torch.zeros(11, 12))
    assert linear(layer()).folds(torch.zeros(12, 12))


def test_where_something_would_be_lost_the_layer_is_that_of_peft():
    x = torch.zeros(20, 12)
    assert not linear(layer(dropout=0.1)).folds(x)
    assert linear(layer(dropout=0.1).eval()).folds(x)
    assert not linear(layer(dtype=torch.bfloat16)).folds(x.bfloat16())
    assert not linear(layer(use_dora=True)).folds(x)
    assert not linear(layer(lora_bias=True)).folds(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not linear(layer()).folds(x)
    two = layer()
    two.add_adapter("other", with_folding(LoraConfig(r=2, target_modules=["0"])))
    two.base_model.set_adapter(["default", "other"])
    assert not linear(two).folds(x)
    trained = layer()
    linear(trained).get_base_layer().weight.requires_grad_(True)
    assert not linear(trained).folds(x)


def test_switched_off_and_merged_it_is_the_base_layer():
    model, x = layer(), torch.randn(20, 12)
    base, adapted = copy.deepcopy(linear(model).get_base_layer()), model(x)
    with model.disable_adapter():
        assert torch.equal(model(x), base(x))
    linear(model).merge()
    torch.testing.assert_close(model(x), adapted, rtol=1e-5, atol=1e-5)


def test_what_is_saved_loads_without_this_layer(tmp_path):
    model, x = layer().eval(), torch.randn(20, 12)
    model.save_pretrained(tmp_path)
    base = nn.Sequential(copy.deepcopy(linear(model).get_base_layer()))
    loaded = PeftModel.from_pretrained(base, tmp_path)
    assert type(loaded.get_base_model()[0]) is Linear
    torch.testing.assert_close(loaded(x), model(x), rtol=1e-5, atol=1e-5)
