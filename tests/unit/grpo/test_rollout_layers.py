"""The forms of a decoder layer in mixed precision."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from same_draws import RARE_ENDS, requests_of
from small_models import random_reasoner
from torch.utils._python_dispatch import TorchDispatchMode

from grpo.decoder import ExactDecoder
from grpo.rollout_layers import ConvertedLayer, ModuleLayer
from grpo.rollout_weights import rollout_weights
from grpo.sampling import Sampling
from grpo.shared_rollout import shared_rollout
from models.reasoner import Reasoner


def reasoner_of(base: torch.dtype) -> Reasoner:
    """With its adapter in float32."""
    reasoner = random_reasoner(gain=3.0, key_value_heads=2, dropout=0.3).eval()
    for parameter in reasoner.parameters():
        parameter.data = parameter.data if parameter.requires_grad else parameter.data.to(base)
    return reasoner


def mixed() -> torch.autocast:
    """As Lightning sets it for a step."""
    return torch.autocast("cpu", torch.bfloat16, cache_enabled=False)


@pytest.mark.parametrize("base", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, 200])
@torch.no_grad()
def test_a_converted_layer_computes_what_was_trained_bit_for_bit(base, rows):
    reasoner = reasoner_of(base)
    generator = torch.Generator().manual_seed(0)
    hidden, attended = (torch.randn(rows, 128, generator=generator).to(base) for _ in range(2))
    with mixed():
        weights = rollout_weights(reasoner)
        for layer, converted in zip(reasoner.language_model.layers, weights.layers, strict=True):
            assert type(converted) is ConvertedLayer
            trained = ModuleLayer(layer)
            normed = converted.before_attention(hidden)
            assert torch.equal(normed, trained.before_attention(hidden))
            assert torch.equal(converted.qkv(normed), trained.qkv(normed))
            assert torch.equal(converted.kv(normed), trained.kv(normed))
            output = trained.after_attention(hidden, attended.bfloat16())
            assert torch.equal(converted.after_attention(hidden, attended.bfloat16()), output)
            with reasoner.reference():
                assert not torch.equal(trained.qkv(normed), converted.qkv(normed)), "the adapter is in neither"


@torch.no_grad()
def test_the_reference_is_converted_without_its_adapter():
    reasoner, normed = reasoner_of(torch.bfloat16), torch.ones(3, 128, dtype=torch.bfloat16)
    with mixed(), reasoner.reference():
        converted = rollout_weights(reasoner).layers[0]
        assert torch.equal(converted.qkv(normed), ModuleLayer(reasoner.language_model.layers[0]).qkv(normed))


def test_nothing_else_than_mixed_precision_with_a_low_rank_product_is_converted(monkeypatch):
    reasoner = reasoner_of(torch.bfloat16)
    assert {type(layer) for layer in rollout_weights(reasoner).layers} == {ModuleLayer}
    projection: Any = reasoner.language_model.layers[1].mlp.up_proj
    monkeypatch.setitem(projection.lora_variant, "default", object())
    with mixed():
        assert {type(layer) for layer in rollout_weights(reasoner).layers} == {ModuleLayer}


class Conversions(TorchDispatchMode):
    """Counts how often tensors in some memory are converted to another type."""

    def __init__(self, memory: set[int]) -> None:
        super().__init__()
        self.memory, self.count = memory, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.aten._to_copy.default:
            self.count += args[0].untyped_storage().data_ptr() in self.memory
        return function(*args, **(kwargs or {}))


def test_an_adapter_is_converted_once_per_rollout():
    """Seven projections of two matrices in each of two layers, however many tokens are written."""
    reasoner = reasoner_of(torch.bfloat16)
    adapter = {p.untyped_storage().data_ptr() for p in reasoner.parameters() if p.requires_grad}
    request = requests_of(reasoner, [(9, 2)])[0]
    request = replace(request, encoded=replace(request.encoded, embeddings=request.encoded.embeddings.bfloat16()))
    with mixed(), Conversions(adapter) as seen:
        decoder = ExactDecoder(rollout_weights(reasoner), max_rows=2, max_new_tokens=5)
        shared_rollout(decoder, [request], Sampling(max_new_tokens=5), end_ids=RARE_ENDS, device=reasoner.device)
    assert seen.count == 7 * 2 * 2
