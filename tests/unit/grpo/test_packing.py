"""The packed row, against one row per completion."""

import functools
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import random_prompt, random_reasoner

from datamodules.errors import ConfigError
from grpo.engine import PlainEngine, ScoreRequest
from grpo.logprobs import TokenLogprobs
from grpo.packed_layers import install
from grpo.packing import pack, packed_logprobs
from grpo.prefix_attention import Run
from models.reasoner import Reasoner

LENGTHS = st.lists(st.integers(1, 12), min_size=1, max_size=5)
GROUPS = st.lists(st.tuples(st.integers(2, 20), LENGTHS), min_size=1, max_size=3)
LONGER_GROUPS = st.lists(st.tuples(st.integers(5, 20), LENGTHS), min_size=1, max_size=3)


@functools.cache
def small(is_checkpointing: bool = False) -> Reasoner:
    """Four heads that share two, three layers."""
    return random_reasoner(gain=3.0, key_value_heads=2, layers=3, gradient_checkpointing=is_checkpointing).train()


@functools.cache
def precise(is_checkpointing: bool = False) -> Reasoner:
    """The same in double precision."""
    return (
        random_reasoner(gain=3.0, key_value_heads=2, layers=3, gradient_checkpointing=is_checkpointing).double().train()
    )


def requests_of(reasoner: Reasoner, groups: list[tuple[int, list[int]]]) -> list[ScoreRequest]:
    """From prompt lengths and completion lengths; any tokens, media placeholders and end tokens among them."""
    generator = torch.Generator().manual_seed(len(groups))
    return [
        ScoreRequest(
            random_prompt(reasoner, prompt, seed=index),
            [torch.randint(0, 320, (length,), generator=generator) for length in lengths],
        )
        for index, (prompt, lengths) in enumerate(groups)
    ]


def gradients(reasoner: Reasoner, scores: TokenLogprobs) -> dict[str, torch.Tensor]:
    """Of a loss that weighs every token differently."""
    weights = torch.randn(scores.logprobs.shape, generator=torch.Generator().manual_seed(0))
    reasoner.zero_grad()
    (scores.logprobs * weights.to(scores.logprobs.device)).sum().backward()
    return {name: p.grad.clone() for name, p in reasoner.named_parameters() if p.requires_grad}


def assert_alike(
    reasoner: Reasoner, requests: list[ScoreRequest], temperature: float = 0.7, *, least_share: float = 0.01
) -> None:
    plain = PlainEngine().score(reasoner, requests, temperature=temperature)
    expected = gradients(reasoner, plain)
    packed = packed_logprobs(reasoner, requests, temperature=temperature)
    found = gradients(reasoner, packed)
    assert torch.equal(packed.mask, plain.mask)
    torch.testing.assert_close(packed.logprobs, plain.logprobs, atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(packed.entropy, plain.entropy, atol=2e-5, rtol=1e-5)
    assert (packed.logprobs[~packed.mask] == 0).all()
    assert len(expected) == 2 * 7 * 3
    # Where a gradient is all but 0, as that of queries with a single key, what is left of it is rounding.
    least = least_share * max(gradient.norm() for gradient in expected.values())
    for name, gradient in expected.items():
        assert (found[name] - gradient).norm() <= 1e-5 * max(gradient.norm(), least), name


@settings(max_examples=25, deadline=None)
@given(groups=GROUPS, is_checkpointing=st.booleans())
def test_packed_rows_score_as_plain_ones_do(groups, is_checkpointing):
    """In double precision, where no gradient is so small that only rounding is left of it."""
    reasoner = precise(is_checkpointing)
    requests = [
        replace(request, encoded=replace(request.encoded, embeddings=request.encoded.embeddings.double()))
        for request in requests_of(reasoner, groups)
    ]
    assert_alike(reasoner, requests, least_share=0)


@settings(max_examples=25, deadline=None)
@given(groups=LONGER_GROUPS, is_checkpointing=st.booleans())
def test_single_precision_is_enough(groups, is_checkpointing):
    """From five prompt tokens on; with two, gradients of queries cancel to what float32 cannot hold to 1e-5."""
    reasoner = small(is_checkpointing)
    assert_alike(reasoner, requests_of(reasoner, groups))


def test_completions_of_one_token_only():
    """Nothing at all stands behind the prompts then."""
    assert_alike(small(), requests_of(small(), [(5, [1, 1]), (3, [1])]))


@pytest.mark.parametrize("has_audio", [True, False])
def test_a_real_prompt_with_frames_and_sound(make_reasoner, make_clip, has_audio):
    reasoner = make_reasoner(gain=3.0, layers=3, key_value_heads=2)
    encoded = reasoner.encode(reasoner.prepare(make_clip(has_audio=has_audio)))
    assert_alike(reasoner, [replace(requests_of(reasoner, [(1, [4, 7, 1])])[0], encoded=encoded)], temperature=1.0)


def test_the_reference_is_scored_in_the_same_row():
    reasoner = small()
    requests = requests_of(reasoner, [(9, [3, 1, 5]), (4, [2])])
    with torch.no_grad(), reasoner.reference():
        packed = packed_logprobs(reasoner, requests, temperature=1.0).logprobs
        plain = PlainEngine().score(reasoner, requests, temperature=1.0).logprobs
    policy = packed_logprobs(reasoner, requests, temperature=1.0).logprobs
    torch.testing.assert_close(packed, plain, atol=1e-5, rtol=1e-5)
    assert (packed - policy).abs().max() > 1e-2


@pytest.mark.parametrize("is_mixed", [True, False])
def test_bfloat16(is_mixed):
    """As mixed precision and as type of the base: within what rounding to eight bits does to plain rows themselves."""
    reasoner = random_reasoner(gain=3.0, key_value_heads=2, layers=3)
    requests = requests_of(reasoner, [(9, [3, 1, 5]), (4, [8, 8])])
    exact = PlainEngine().score(reasoner, requests, temperature=1.0)
    expected = gradients(reasoner, exact)
    if not is_mixed:
        for parameter in reasoner.parameters():
            parameter.data = parameter.data if parameter.requires_grad else parameter.data.bfloat16()
        requests = [
            replace(r, encoded=replace(r.encoded, embeddings=r.encoded.embeddings.bfloat16())) for r in requests
        ]
    with torch.autocast("cpu", torch.bfloat16, enabled=is_mixed):
        plain = PlainEngine().score(reasoner, requests, temperature=1.0)
        packed = packed_logprobs(reasoner, requests, temperature=1.0)
    drift = (plain.logprobs - exact.logprobs).abs().max()
    assert drift > 1e-4
    assert (packed.logprobs - exact.logprobs).abs().max() < 3 * drift
    for name, gradient in gradients(reasoner, packed).items():
        assert (gradient - expected[name]).norm() < 0.3 * expected[name].norm(), name


def test_rows_long_enough_for_the_adapter_to_be_folded():
    """In the plain form and in the packed one; short rows, as in the other tests, are not worth it."""
    reasoner = small()
    requests = requests_of(reasoner, [(150, [30, 1, 30, 7])])
    width = reasoner.embed_tokens.weight.shape[1]
    projection: Any = reasoner.language_model.layers[0].self_attn.q_proj
    assert projection.folds(torch.zeros(1, 150, width))
    assert_alike(reasoner, requests)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_on_a_gpu(dtype):
    """Plain rows there, packed rows there, and plain rows in float32 on the CPU."""
    groups = [(40, [30, 1, 30, 7]), (9, [12, 3])]
    exact = PlainEngine().score(small(), requests_of(small(), groups), temperature=1.0)
    expected = gradients(small(), exact)
    reasoner = random_reasoner(gain=3.0, key_value_heads=2, layers=3).to("cuda")
    for parameter in reasoner.parameters():
        parameter.data = parameter.data if parameter.requires_grad else parameter.data.to(dtype)
    requests = [
        replace(r, encoded=replace(r.encoded, embeddings=r.encoded.embeddings.to("cuda", dtype),
                                   positions=r.encoded.positions.cuda()))
        for r in requests_of(small(), groups)
    ]  # fmt: skip
    plain = PlainEngine().score(reasoner, requests, temperature=1.0)
    packed = packed_logprobs(reasoner, requests, temperature=1.0)
    drift = (plain.logprobs.cpu() - exact.logprobs).abs().max()
    assert (packed.logprobs.cpu() - exact.logprobs).abs().max() < 3 * drift + 1e-4
    for name, gradient in gradients(reasoner, packed).items():
        assert (gradient.cpu() - expected[name]).norm() < 0.3 * expected[name].norm(), name


def test_positions_begin_anew_after_the_prompt():
    """Negative control: completions that continue where their neighbour in the row ended score otherwise."""
    reasoner = small()
    request = requests_of(reasoner, [(6, [4, 4])])[0]
    shifted = replace(request, encoded=replace(request.encoded, next_position=request.encoded.next_position + 3))
    right, wrong = (packed_logprobs(reasoner, [r], temperature=1.0).logprobs for r in (request, shifted))
    torch.testing.assert_close(right[:, 0], wrong[:, 0])
    assert (right[:, 1:] - wrong[:, 1:]).abs().max() > 1e-2


def test_the_row():
    """Prompts of 3 and 2 tokens; completions of 3, 1, 3 and of 2 tokens, of which 2, 0, 2 and 1 are in the row.

    Row: 0-2 prompt a, 3-4 prompt b, 5-6 and 7-8 the long completions of a, 9 that of b. Kept: 2 (end of a), 5-8, 4 (end
    of b), 9. The first token of every completion is predicted by the end of its prompt.
    """
    reasoner = small()
    requests = requests_of(reasoner, [(3, [3, 1, 3]), (2, [2])])
    row = pack(reasoner, requests)
    starts = [request.encoded.next_position for request in requests]
    assert row.embeddings.shape[1] == row.positions.shape[2] == 10
    for axis in row.positions[:, 0, 5:].tolist():
        assert axis == [starts[0], starts[0] + 1] * 2 + [starts[1]]
    assert row.layout.prompt_tokens == 5
    first, second = row.layout.blocks
    assert (first.prompt, first.tail, first.runs) == (slice(0, 3), slice(0, 4), (Run(0, 2, 2),))
    assert (second.prompt, second.tail, second.runs) == (slice(3, 5), slice(4, 5), (Run(4, 1, 1),))
    assert row.kept.tolist() == [2, 5, 6, 7, 8, 4, 9]
    assert [block.tail for block in row.kept_layout.blocks] == [slice(0, 5), slice(5, 7)]
    assert [block.runs for block in row.kept_layout.blocks] == [(Run(1, 2, 2),), (Run(6, 1, 1),)]
    assert row.predicting.tolist() == [0, 1, 2, 0, 0, 3, 4, 5, 6]


def test_a_model_attends_as_before_where_nothing_is_shared(make_reasoner):
    """Transformers' own generation goes through the same layers."""
    reasoner = make_reasoner(gain=3.0).eval()
    ids = torch.arange(20, 40)[None]
    before = reasoner.thinker(input_ids=ids).logits
    install(reasoner.language_model)
    torch.testing.assert_close(reasoner.thinker(input_ids=ids).logits, before)
    padded = torch.ones_like(ids).index_fill(1, torch.arange(3), 0)
    free = reasoner.thinker(input_ids=ids[:, 3:]).logits[:, -1]
    torch.testing.assert_close(reasoner.thinker(input_ids=ids, attention_mask=padded).logits[:, -1], free)


def test_a_sliding_window_is_refused(make_reasoner):
    reasoner = make_reasoner()
    reasoner.language_model.config.layer_types = ["full_attention", "sliding_attention"]
    with pytest.raises(ConfigError, match=r"expects full attention in every layer.*--model\.grpo\.engine plain"):
        packed_logprobs(reasoner, requests_of(reasoner, [(3, [2])]), temperature=1.0)
