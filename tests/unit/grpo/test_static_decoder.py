"""Places of fixed size, against one row per completion with the same noise."""

import contextlib
import gc
import weakref
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from same_draws import ENDS, RARE_ENDS, assert_alike, requests_of
from small_models import random_reasoner
from torch._subclasses.fake_tensor import FakeTensorMode

from grpo.decoder import ExactDecoder
from grpo.engine import SampleRequest
from grpo.logprobs import token_logprobs
from grpo.rollout import evaluation_mode
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


def test_fixed_places_read_their_tokens_in_a_few_sizes(reasoner, monkeypatch):
    monkeypatch.setattr("grpo.static_decoder.FIRST_CAPACITY", 4)
    sampling, requests = Sampling(max_new_tokens=20), requests_of(reasoner, [(9, 24)])
    decoder = StaticDecoder(rollout_weights(reasoner), groups=1, rows_per_group=24, max_prompt=9, max_new_tokens=20)
    found = shared_rollout(decoder, requests, sampling, end_ids=RARE_ENDS, device=reasoner.device)
    assert_alike(reasoner, requests, found, sampling)
    assert list(decoder.graphs) == [4, 16, 20]


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


def test_its_memory_is_given_back_with_the_last_reference(reasoner):
    """Nothing waits for the garbage collector, which may come long after the update has needed the memory."""
    decoder = StaticDecoder(rollout_weights(reasoner), groups=1, rows_per_group=2, max_prompt=9, max_new_tokens=4)
    decoder.admit(requests_of(reasoner, [(9, 2)])[0].encoded, 2)
    decoder.step(torch.tensor([5, 6]))
    memory = weakref.ref(decoder)
    gc.disable()
    try:
        del decoder
        assert memory() is None
    finally:
        gc.enable()


def test_counters_of_device_and_host_agree_and_free_places_stand_still(reasoner):
    """Two places: the first group ends after two steps, and a third prompt takes its place a step later."""
    requests = requests_of(reasoner, [(9, 2), (5, 1), (7, 2)])
    decoder = StaticDecoder(rollout_weights(reasoner), groups=2, rows_per_group=2, max_prompt=9, max_new_tokens=8)
    counters = []

    def step(rows: int) -> None:
        decoder.step(torch.arange(rows))
        assert decoder.written.tolist() == decoder.counted
        counters.append(list(decoder.counted))

    for request in requests[:2]:
        decoder.admit(request.encoded, len(request.keys))
    step(3)
    step(3)
    decoder.keep(torch.tensor([False, False, True]))
    step(1)
    decoder.admit(requests[2].encoded, 2)
    step(3)
    assert counters == [[1, 1], [2, 2], [0, 3], [1, 4]]


@pytest.mark.parametrize("form", ["exact", "places", "graphs"])
def test_every_step_is_seen_by_a_hook_on_the_embedding(form, reasoner, monkeypatch):
    """By which passes are counted; in what is repeated as a graph no hook would run."""

    def captured(self: StaticDecoder, capacity: int):
        def replay() -> torch.Tensor:
            with monkeypatch.context() as patch:
                patch.setattr(torch.nn.Embedding, "forward", lambda *_: pytest.fail("a graph calls no module"))
                return self._compute(capacity)

        return replay if form == "graphs" else None

    monkeypatch.setattr(StaticDecoder, "_captured", captured)
    weights, sampling, seen = rollout_weights(reasoner), Sampling(max_new_tokens=12), []
    decoder = (
        ExactDecoder(weights, max_rows=4, max_new_tokens=12)
        if form == "exact"
        else StaticDecoder(weights, groups=1, rows_per_group=4, max_prompt=9, max_new_tokens=12)
    )
    requests = requests_of(reasoner, [(9, 4)])
    hook = reasoner.embed_tokens.register_forward_pre_hook(lambda *_: seen.append(1))
    found = shared_rollout(decoder, requests, sampling, end_ids=RARE_ENDS, device=reasoner.device)
    hook.remove()
    assert len(seen) == max(len(completion.ids) for completion in found[0]) - 1
    assert_alike(reasoner, requests, found, sampling)


@pytest.fixture
def capture(reasoner, monkeypatch):
    """A decoder that believes to be on a GPU, where recording a graph ends in an error."""
    decoder = StaticDecoder(rollout_weights(reasoner), groups=1, rows_per_group=2, max_prompt=9, max_new_tokens=4)
    decoder.tokens = SimpleNamespace(device=torch.device("cuda"))
    monkeypatch.setattr(decoder, "_compute", lambda capacity: None)
    for name in ("CUDAGraph", "Stream", "current_stream"):
        monkeypatch.setattr(torch.cuda, name, lambda *_: SimpleNamespace(wait_stream=lambda other: None))
    monkeypatch.setattr(torch.cuda, "stream", lambda side: contextlib.nullcontext())

    def ending_in(error: Exception):
        @contextlib.contextmanager
        def graph(_: object) -> Iterator[None]:
            yield
            raise error

        monkeypatch.setattr(torch.cuda, "graph", graph)
        return decoder._captured(4)

    return ending_in


def test_a_step_that_cannot_be_captured_runs_without_a_graph(capture):
    with pytest.warns(UserWarning, match="sampling without CUDA graphs, which is slower: not permitted"):
        assert capture(RuntimeError("not permitted")) is None


def test_running_out_of_memory_in_a_capture_is_no_reason_to_go_on(capture):
    with pytest.raises(torch.OutOfMemoryError, match="tried to allocate"):
        capture(torch.OutOfMemoryError("tried to allocate"))


def moved(requests: list[SampleRequest], device: str, dtype: torch.dtype) -> list[SampleRequest]:
    """Prompts on another device."""
    prompts = [request.encoded for request in requests]
    there = [
        replace(prompt, embeddings=prompt.embeddings.to(device, dtype), positions=prompt.positions.to(device))
        for prompt in prompts
    ]
    return [replace(request, encoded=prompt) for request, prompt in zip(requests, there, strict=True)]


@pytest.mark.gpu
@pytest.mark.filterwarnings("error:sampling without CUDA graphs")
def test_graphs_draw_the_same(reasoner):
    on_gpu = random_reasoner(gain=2.0, key_value_heads=2, layers=3).to("cuda")
    requests, sampling = requests_of(reasoner, [(20, 4), (7, 4), (11, 4)]), Sampling(max_new_tokens=70)
    there = moved(requests, "cuda", torch.float32)
    assert_alike(reasoner, requests, SharedEngine(rollout_rows=8).sample(on_gpu, there, sampling), sampling)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.filterwarnings("error:sampling without CUDA graphs")
def test_a_base_in_bfloat16_samples_what_it_scores(device):
    """With the adapter in float32, as in every run on a GPU; there as graphs."""
    reasoner = random_reasoner(gain=2.0, key_value_heads=2, layers=3).to(device)
    for parameter in reasoner.parameters():
        parameter.data = parameter.data if parameter.requires_grad else parameter.data.bfloat16()
    requests = moved(requests_of(reasoner, [(20, 4), (7, 4), (11, 4)]), device, torch.bfloat16)
    decoder = StaticDecoder(rollout_weights(reasoner), groups=2, rows_per_group=4, max_prompt=20, max_new_tokens=70)
    with evaluation_mode(reasoner):
        found = shared_rollout(
            decoder, requests, Sampling(max_new_tokens=70), end_ids=RARE_ENDS, device=reasoner.device
        )
        for request, group in zip(requests, found, strict=True):
            scores = token_logprobs(reasoner, request.encoded, [c.ids for c in group], temperature=1.0)
            sampled = torch.cat([completion.logprobs for completion in group])
            difference = (scores.logprobs[scores.mask].detach().cpu() - sampled).abs()
            assert difference.mean() < 0.05
            assert difference.max() < 0.5
    assert max(len(completion.ids) for group in found for completion in group) > 64
