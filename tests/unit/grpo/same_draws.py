"""Groups to sample, and the comparison with sampling them row by row."""

import torch
from small_models import random_prompt

from grpo.engine import PlainEngine, SampleRequest
from grpo.logprobs import token_logprobs
from grpo.noise import gumbel_noise, noise_key
from grpo.rollout import Completion
from grpo.sampling import Sampling
from models.reasoner import Reasoner

ENDS = tuple(range(0, 320, 16))
RARE_ENDS = tuple(range(0, 320, 40))


def requests_of(reasoner: Reasoner, groups: list[tuple[int, int]], step: int = 0) -> list[SampleRequest]:
    """From prompt lengths and group sizes."""
    return [
        SampleRequest(
            random_prompt(reasoner, prompt, seed=number),
            [noise_key(seed=0, rollout_step=step, sample_id=str(number), index=index) for index in range(size)],
        )
        for number, (prompt, size) in enumerate(groups)
    ]


def is_tie(reasoner: Reasoner, request: SampleRequest, index: int, left: Completion, right: Completion) -> bool:
    """Whether two completions part where their candidates are closer than rounding may decide."""
    shared = min(len(left.ids), len(right.ids))
    place = int((left.ids[:shared] != right.ids[:shared]).nonzero()[0])
    noise = gumbel_noise(torch.tensor([request.keys[index]]), torch.tensor([place]), 320)[0]
    pair = [completion.ids[: place + 1] for completion in (left, right)]
    scores = token_logprobs(reasoner, request.encoded, pair, temperature=1.0).logprobs[:, place].detach()
    values = [float(score + noise[ids[place]]) for score, ids in zip(scores, pair, strict=True)]
    return abs(values[0] - values[1]) < 1e-4


def assert_alike(reasoner: Reasoner, requests: list[SampleRequest], found: list[list[Completion]], sampling: Sampling):
    expected = PlainEngine().sample(reasoner, requests, sampling)
    assert [len(group) for group in found] == [len(request.keys) for request in requests]
    for request, ours, theirs in zip(requests, found, expected, strict=True):
        for index, (left, right) in enumerate(zip(ours, theirs, strict=True)):
            if torch.equal(left.ids, right.ids):
                assert left.is_truncated == right.is_truncated
                torch.testing.assert_close(left.logprobs, right.logprobs, atol=2e-5, rtol=1e-5)
            else:
                assert is_tie(reasoner, request, index, left, right)
