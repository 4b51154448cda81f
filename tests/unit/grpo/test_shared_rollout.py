"""Shared sampling, against one row per completion with the same noise."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from same_draws import ENDS, RARE_ENDS, assert_alike, requests_of
from small_models import random_reasoner

from datamodules.errors import ConfigError
from grpo.decoder import Decoder, ExactDecoder
from grpo.engine import PlainEngine
from grpo.logprobs import token_logprobs
from grpo.rollout_layers import ModuleLayer
from grpo.rollout_weights import rollout_weights
from grpo.sampling import Sampling
from grpo.shared_engine import SharedEngine
from grpo.shared_rollout import shared_rollout
from models.reasoner import Reasoner


@pytest.fixture(scope="module")
def reasoner() -> Reasoner:
    return random_reasoner(gain=2.0, key_value_heads=2, layers=3)


@pytest.fixture(autouse=True)
def frequent_ends(monkeypatch):
    """One token in sixteen ends a completion, so that a random thinker stops now and then."""
    monkeypatch.setattr(Reasoner, "end_of_turn_ids", property(lambda self: ENDS))


@pytest.fixture
def rare_ends(monkeypatch):
    monkeypatch.setattr(Reasoner, "end_of_turn_ids", property(lambda self: RARE_ENDS))


@settings(max_examples=25, deadline=None)
@given(
    groups=st.lists(st.tuples(st.integers(1, 30), st.integers(1, 5)), min_size=1, max_size=5),
    rows=st.integers(1, 12),
    limit=st.integers(1, 12),
    merge=st.sampled_from([True, False, None]),
)
def test_the_same_tokens_as_row_by_row(reasoner, groups, rows, limit, merge):
    """Whatever the lengths, the group sizes, the places and the form of the weights."""
    sampling, requests = Sampling(max_new_tokens=limit), requests_of(reasoner, groups)
    engine = SharedEngine(rollout_rows=rows, merge_adapter=merge)
    assert_alike(reasoner, requests, engine.sample(reasoner, requests, sampling), sampling)


@pytest.mark.parametrize("sampling", [
    Sampling(max_new_tokens=40, temperature=0.8, top_p=0.9),
    Sampling(max_new_tokens=40, temperature=0.0),
])  # fmt: skip
def test_other_ways_to_draw(reasoner, sampling):
    requests = requests_of(reasoner, [(20, 4), (7, 4)])
    found = SharedEngine().sample(reasoner, requests, sampling)
    for ours, theirs in zip(found, PlainEngine().sample(reasoner, requests, sampling), strict=True):
        assert [c.ids.tolist() for c in ours] == [c.ids.tolist() for c in theirs]


def test_completions_of_one_token_and_at_the_limit_are_among_them(reasoner, rare_ends):
    """The cache of 64 tokens has to grow for the longest; the token limit truncates it."""
    sampling, requests = Sampling(max_new_tokens=70), requests_of(reasoner, [(9, 40), (4, 40)], step=1)
    found = SharedEngine(rollout_rows=40).sample(reasoner, requests, sampling)
    assert_alike(reasoner, requests, found, sampling)
    lengths = [len(completion.ids) for group in found for completion in group]
    assert (min(lengths), max(lengths)) == (1, 70)
    assert [c.is_truncated for group in found for c in group] == [
        int(c.ids[-1]) not in RARE_ENDS for group in found for c in group
    ]


class Counting(ExactDecoder):
    """Remembers how many rows there were in each step, and when prompts were read."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.log: list[int | str] = []

    def admit(self, encoded, rows):
        self.log.append(encoded.clip_id)
        return super().admit(encoded, rows)

    def step(self, tokens):
        self.log.append(len(tokens))
        return super().step(tokens)


def test_rows_leave_when_they_end_and_the_next_prompt_takes_their_places(reasoner):
    """Room for four rows: the third pair is read once two rows have ended, and never are there more than four.

    A row of n tokens takes part in n - 1 steps, because its last token is not read.
    """
    requests = requests_of(reasoner, [(5, 2), (6, 2), (7, 2)])
    decoder: Decoder = Counting(rollout_weights(reasoner), max_rows=4, max_new_tokens=30)
    found = shared_rollout(decoder, requests, Sampling(max_new_tokens=30), end_ids=ENDS, device=reasoner.device)
    lengths = sorted(len(completion.ids) for group in found[:2] for completion in group)
    third = decoder.log.index("prompt 2")
    assert decoder.log[:2] == ["prompt 0", "prompt 1"]
    assert third == 2 + lengths[1]
    steps = [entry for entry in decoder.log if isinstance(entry, int)]
    assert max(steps) <= 4
    assert sum(steps) == sum(len(completion.ids) - 1 for group in found for completion in group)


def test_the_prompt_is_read_once_for_all_rows(reasoner):
    """30 tokens, then the first of five completions each; the output head sees only the last of the 30."""
    seen = {"layer": [], "head": []}
    parts = {"layer": reasoner.language_model.layers[0].mlp, "head": reasoner.lm_head}
    hooks = [
        part.register_forward_hook(lambda _, inputs, __, name=name: seen[name].append(len(inputs[0])))
        for name, part in parts.items()
    ]
    engine = SharedEngine(merge_adapter=False)
    engine.sample(reasoner, requests_of(reasoner, [(30, 5)]), Sampling(max_new_tokens=2))
    for hook in hooks:
        hook.remove()
    assert seen == {"layer": [30, 5], "head": [1, 5]}


def test_merging_folds_the_adapter_in_and_leaves_the_weights_alone(reasoner):
    before = {name: value.clone() for name, value in reasoner.state_dict().items()}
    requests = requests_of(reasoner, [(9, 4)])
    sampling = Sampling(max_new_tokens=10)
    merged = SharedEngine(merge_adapter=True).sample(reasoner, requests, sampling)
    assert all(torch.equal(value, before[name]) for name, value in reasoner.state_dict().items())
    with reasoner.reference():
        base = SharedEngine(merge_adapter=True).sample(reasoner, requests, sampling)
        assert_alike(reasoner, requests, base, sampling)
    assert_alike(reasoner, requests, merged, sampling)
    assert (merged[0][0].logprobs[0] - base[0][0].logprobs[0]).abs() > 1e-3


@pytest.mark.parametrize(("part", "value"), [("lora_variant", object()), ("lora_bias", True)])
def test_an_adapter_that_is_more_than_a_product_is_not_merged(reasoner, monkeypatch, part, value):
    """DoRA, or a bias: refused when asked for, and left as trained otherwise."""
    projection: Any = reasoner.language_model.layers[1].mlp.up_proj
    monkeypatch.setitem(getattr(projection, part), "default", value)
    with pytest.raises(ConfigError, match=r"merge_adapter is true, but .*\(DoRA, or a bias\).*merge_adapter null"):
        rollout_weights(reasoner, merge=True)
    assert all(isinstance(layer, ModuleLayer) for layer in rollout_weights(reasoner).layers)


def test_mixed_precision_samples_what_it_scores(reasoner):
    requests, sampling = requests_of(reasoner, [(12, 4), (5, 4)]), Sampling(max_new_tokens=12)
    with torch.autocast("cpu", torch.bfloat16):
        found = SharedEngine().sample(reasoner, requests, sampling)
        for request, group in zip(requests, found, strict=True):
            scores = token_logprobs(reasoner, request.encoded, [c.ids for c in group], temperature=1.0)
            sampled = torch.cat([completion.logprobs for completion in group])
            assert (scores.logprobs[scores.mask] - sampled).abs().mean() < 0.05


def test_dropout_and_checkpointing_are_off_meanwhile(reasoner):
    other = random_reasoner(gain=2.0, key_value_heads=2, layers=3, dropout=0.5, gradient_checkpointing=True).train()
    sampling = Sampling(max_new_tokens=10)
    pair = [SharedEngine().sample(r, requests_of(r, [(9, 4)]), sampling)[0] for r in (reasoner, other)]
    assert [c.ids.tolist() for c in pair[0]] == [c.ids.tolist() for c in pair[1]]
    assert other.language_model.training
    assert not pair[1][0].logprobs.requires_grad
