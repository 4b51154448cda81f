"""The comparison that a run starts with."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from small_models import random_prompt, random_reasoner

from datamodules.errors import RunError
from grpo.engine import Engine, PlainEngine, SampleRequest, ScoreRequest
from grpo.logprobs import TokenLogprobs
from grpo.sampling import Sampling
from grpo.self_check import SelfCheck, check_engine
from grpo.shared_engine import SharedEngine
from grpo.update import PromptGroup
from models.reasoner import Reasoner


@pytest.fixture(scope="module")
def reasoner() -> Reasoner:
    return random_reasoner(gain=3.0, dropout=0.3).train()


@pytest.fixture
def group(reasoner) -> PromptGroup:
    request = SampleRequest(random_prompt(reasoner, 12), [3, 1, 4])
    completions = SharedEngine().sample(reasoner, [request], Sampling(max_new_tokens=6, temperature=0.7))[0]
    return PromptGroup(request.encoded, tuple(completions), torch.zeros(3))


class Off(SharedEngine):
    """Wrong by a little at one token."""

    def __init__(self, by: float) -> None:
        super().__init__()
        self.by = by
        self.calls = 0

    def score(self, reasoner: Reasoner, requests: Sequence[object], *, temperature: float) -> TokenLogprobs:
        self.calls += 1
        scores = super().score(reasoner, requests, temperature=temperature)
        changed = scores.logprobs.clone()
        changed[1, 0] += self.by
        return replace(scores, logprobs=changed)


def test_a_right_engine_passes_without_gradient_and_without_dropout(reasoner, group):
    check_engine(SharedEngine(), reasoner, group, temperature=0.7)
    assert reasoner.language_model.training
    assert not any(parameter.grad is not None for parameter in reasoner.parameters())


@pytest.mark.parametrize("by", [0.01, float("nan")])
def test_a_wrong_score_stops_with_both_numbers_and_the_flag(reasoner, group, by):
    """The first token of the second completion, counted over all completions."""
    place = len(group.completions[0].ids)
    request = ScoreRequest(group.encoded, [completion.ids for completion in group.completions])
    right = float(PlainEngine().score(reasoner.eval(), [request], temperature=0.7).logprobs[1, 0])
    reasoner.train()
    pattern = rf"{right + by:.4f} and {right:.4f} nats at token {place} .* clip prompt 0 .*--model\.grpo\.engine plain"
    with pytest.raises(RunError, match=pattern):
        check_engine(Off(by), reasoner, group, temperature=0.7)


def test_sampling_is_held_against_scoring(reasoner, group):
    """Numbers that were sampled at another temperature."""
    with pytest.raises(RunError, match="when sampled and when scored"):
        check_engine(SharedEngine(), reasoner, group, temperature=1.0)


def test_half_precision_may_differ_in_single_tokens(reasoner, group):
    """0.2 nats at one of some fifteen tokens is 0.013 in the mean; 2 nats are too much."""
    with torch.autocast("cpu", torch.bfloat16):
        check_engine(Off(0.2), reasoner, group, temperature=0.7)
        with pytest.raises(RunError, match="mean difference"):
            check_engine(Off(2.0), reasoner, group, temperature=0.7)


@pytest.mark.parametrize("by", [0.3, 2.5])
def test_half_precision_may_not_differ_at_the_same_place_of_all_completions(reasoner, by):
    """The first token of four completions of 100: 2.5 nats there are 0.025 in the mean, which rounding may be."""
    request = SampleRequest(random_prompt(reasoner, 12), [3, 1, 4, 2])
    with torch.autocast("cpu", torch.bfloat16):
        found = SharedEngine().sample(reasoner, [request], Sampling(max_new_tokens=100))[0]
        lengths = [len(completion.ids) for completion in found]
        assert sum(lengths) > 240
        wrong = [c.logprobs.index_add(0, torch.tensor([0]), torch.tensor([by])) for c in found]
        changed = [replace(c, logprobs=values) for c, values in zip(found, wrong, strict=True)]
        group = PromptGroup(request.encoded, tuple(changed), torch.zeros(4))
        if by < 0.5:
            check_engine(SharedEngine(), reasoner, group, temperature=1.0)
            return
        with pytest.raises(RunError, match=r"when sampled and when scored.*at token 0 .*\(mean at one place: largest"):
            check_engine(SharedEngine(), reasoner, group, temperature=1.0)


@pytest.mark.parametrize(("every", "checked"), [(0, [5, 6]), (3, [5, 6, 9]), (2, [5, 6, 8]), (1, [5, 6, 7, 8, 9])])
def test_when_it_is_time(reasoner, group, every, checked):
    """From rollout step 5 on, as after a resume: the first two, and every so many."""
    check, engine, steps = SelfCheck(every=every), Off(0.0), []
    for step in range(5, 10):
        before = engine.calls
        check(engine, reasoner, group, step, temperature=0.7)
        steps += [step] * (engine.calls - before)
    assert steps == checked


def test_the_plain_engine_is_not_compared_with_itself(reasoner, group):
    plain: Engine = PlainEngine()
    check = SelfCheck()
    check(plain, reasoner, replace(group, completions=()), 0, temperature=0.7)
    assert check.checked == 0
