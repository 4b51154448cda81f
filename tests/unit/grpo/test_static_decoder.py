"""Places of fixed size, against one row per completion with the same noise."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from same_draws import ENDS, RARE_ENDS, assert_alike, requests_of
from small_models import random_reasoner
from torch._subclasses.fake_tensor import FakeTensorMode

from grpo.rollout_weights import rollout_weights
from grpo.sampling import Sampling
from grpo.shared_engine import SharedEngine
from grpo.shared_rollout import shared_rollout
from grpo.static_decoder import StaticDecoder
from models.reasoner import Reasoner


@pytest.fixture(scope="module")
def reasoner() -> Reasoner:
    return random_reasoner(gain=2.0, key_value_heads=2, layers=3)


@pytest.fixture(autouse=True)
def rare_ends(monkeypatch):
    monkeypatch.setattr(Reasoner, "end_of_turn_ids", property(lambda self: RARE_ENDS))


@pytest.fixture
def frequent_ends(monkeypatch):
    """One token in sixteen ends a completion, so that places are taken over."""
    monkeypatch.setattr(Reasoner, "end_of_turn_ids", property(lambda self: ENDS))


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    groups=st.lists(st.tuples(st.integers(1, 30), st.integers(1, 4)), min_size=1, max_size=4),
    places=st.integers(1, 3),
    merge=st.booleans(),
)
def test_places_of_fixed_size_draw_the_same(reasoner, frequent_ends, groups, places, merge):
    sampling, requests = Sampling(max_new_tokens=12), requests_of(reasoner, groups)
    decoder = StaticDecoder(
        rollout_weights(reasoner, merge=merge), groups=places, rows_per_group=4, max_prompt=30, max_new_tokens=12
    )
    found = shared_rollout(decoder, requests, sampling, end_ids=ENDS, device=reasoner.device)
    assert_alike(reasoner, requests, found, sampling)


def test_fixed_places_read_their_tokens_in_powers_of_two(reasoner):
    sampling, requests = Sampling(max_new_tokens=70), requests_of(reasoner, [(9, 24)])
    decoder = StaticDecoder(rollout_weights(reasoner), groups=1, rows_per_group=24, max_prompt=9, max_new_tokens=70)
    found = shared_rollout(decoder, requests, sampling, end_ids=RARE_ENDS, device=reasoner.device)
    assert_alike(reasoner, requests, found, sampling)
    assert list(decoder.graphs) == [64, 70]


def test_mixed_precision_samples_what_it_scores(reasoner):
    request, sampling = requests_of(reasoner, [(12, 6)])[0], Sampling(max_new_tokens=12)
    with torch.autocast("cpu", torch.bfloat16):
        decoder = StaticDecoder(rollout_weights(reasoner), groups=1, rows_per_group=6, max_prompt=12, max_new_tokens=12)
        found = shared_rollout(decoder, [request], sampling, end_ids=RARE_ENDS, device=reasoner.device)[0]
        exact = SharedEngine().sample(reasoner, [request], sampling)[0]
    # Rounding may part two completions, but not at their first tokens, which come from the same product.
    first = [torch.stack([completion.logprobs[0] for completion in group]) for group in (found, exact)]
    torch.testing.assert_close(*first)
    same = [(a, b) for a, b in zip(found, exact, strict=True) if torch.equal(a.ids, b.ids)]
    assert same
    assert all((a.logprobs - b.logprobs).abs().max() < 0.1 for a, b in same)


def test_attention_on_a_cuda_device_has_the_right_form():
    """Shapes of the released 7B model, 28 heads of size 128 that share 4. Nothing is computed."""
    with FakeTensorMode():
        embedding = torch.nn.Embedding(9, 8, device="cuda", dtype=torch.bfloat16)
        weights = SimpleNamespace(
            embedding=embedding, dtype=torch.bfloat16, heads=28, key_heads=4, width=128, layers=[None], scale=0.1
        )
        decoder = StaticDecoder(weights, groups=3, rows_per_group=8, max_prompt=50, max_new_tokens=128)
        q, k, v = (torch.empty(24, heads, 128, device="cuda", dtype=torch.bfloat16) for heads in (28, 4, 4))
        out = decoder._attend(0, q, k, v, 64)
    assert (out.shape, out.dtype, out.device.type) == ((24, 28 * 128), torch.bfloat16, "cuda")


@pytest.mark.gpu
@pytest.mark.filterwarnings("error:sampling without CUDA graphs")
def test_graphs_draw_the_same(reasoner):
    on_gpu = random_reasoner(gain=2.0, key_value_heads=2, layers=3).to("cuda")
    requests, sampling = requests_of(reasoner, [(20, 4), (7, 4), (11, 4)]), Sampling(max_new_tokens=70)
    moved = [
        replace(
            request,
            encoded=replace(
                request.encoded,
                embeddings=request.encoded.embeddings.to("cuda"),
                positions=request.encoded.positions.to("cuda"),
            ),
        )
        for request in requests
    ]
    assert_alike(reasoner, requests, SharedEngine(rollout_rows=8).sample(on_gpu, moved, sampling), sampling)
