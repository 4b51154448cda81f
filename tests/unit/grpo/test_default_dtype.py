"""Numbers that do not follow the default type, which Lightning's half precisions change around every step."""

import pytest
import torch
from lightning.pytorch.plugins.precision import HalfPrecision
from same_draws import requests_of
from small_models import random_reasoner

from grpo.engine import Engine, PlainEngine, SampleRequest, ScoreRequest
from grpo.logprobs import TokenLogprobs
from grpo.rollout import Completion
from grpo.sampling import Sampling
from grpo.shared_engine import SharedEngine
from models.reasoner import Reasoner


def sampled_and_scored(
    engine: Engine, reasoner: Reasoner, requests: list[SampleRequest]
) -> tuple[list[Completion], TokenLogprobs]:
    """All completions, and what the engine says about them afterwards."""
    groups = engine.sample(reasoner, requests, Sampling(max_new_tokens=6, top_p=0.9))
    asked = [
        ScoreRequest(request.encoded, [completion.ids for completion in group])
        for request, group in zip(requests, groups, strict=True)
    ]
    return [completion for group in groups for completion in group], engine.score(reasoner, asked, temperature=1.0)


@pytest.mark.parametrize("precision", ["bf16-true", "16-true"])
@pytest.mark.parametrize("engine", [PlainEngine(), SharedEngine()], ids=["plain", "shared"])
def test_log_probabilities_are_float32_whatever_the_default_is(engine, precision):
    """Of a model in float32, so that half precision has no other way in."""
    reasoner = random_reasoner(gain=3.0)
    requests = requests_of(reasoner, [(9, 3), (5, 2)])
    expected, expected_scores = sampled_and_scored(engine, reasoner, requests)
    with HalfPrecision(precision).forward_context():
        found, scores = sampled_and_scored(engine, reasoner, requests)
    for left, right in zip(found, expected, strict=True):
        assert torch.equal(left.ids, right.ids)
        torch.testing.assert_close(left.logprobs, right.logprobs)
    assert scores.logprobs.dtype == scores.entropy.dtype == torch.float32
    torch.testing.assert_close(scores.logprobs, expected_scores.logprobs)
    torch.testing.assert_close(scores.entropy, expected_scores.entropy)
