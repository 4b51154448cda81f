"""The comparison that a run starts with."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from small_models import random_prompt, random_reasoner

from datamodules.errors import RunError
from grpo.engine import Engine, PlainEngine, SampleRequest, ScoreRequest
from grpo.logprobs import TokenLogprobs, token_logprobs
from grpo.sampling import Sampling
from grpo.self_check import CheckedUpdate, SelfCheck, check_engine
from grpo.settings import GRPOSettings
from grpo.shared_engine import SharedEngine
from grpo.update import PromptGroup, cut, reference_logprobs
from models.reasoner import Reasoner


@pytest.fixture(scope="module")
def reasoner() -> Reasoner:
    return random_reasoner(gain=3.0, dropout=0.3).train()


@pytest.fixture
def group(reasoner) -> PromptGroup:
    request = SampleRequest(random_prompt(reasoner, 12), [3, 1, 4])
    completions = SharedEngine().sample(reasoner, [request], Sampling(max_new_tokens=6, temperature=0.7))[0]
    return PromptGroup(request.encoded, tuple(completions), torch.zeros(3))


def update_of(
    reasoner: Reasoner, *groups: PromptGroup, temperature: float = 0.7, tokens: int = 1000, beta: float = 0.0
) -> CheckedUpdate:
    """Groups before they are trained on."""
    micros = cut(SharedEngine(), groups, GRPOSettings(micro_batch_tokens=tokens))
    references = [
        reference_logprobs(SharedEngine(), reasoner, micro, temperature=temperature) if beta else None
        for micro in micros
    ]
    return CheckedUpdate(groups, micros, references, temperature)


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
    check_engine(SharedEngine(), reasoner, update_of(reasoner, group))
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
        check_engine(Off(by), reasoner, update_of(reasoner, group))


@pytest.fixture
def groups(reasoner) -> list[PromptGroup]:
    """Three prompts, three completions each."""
    requests = [SampleRequest(random_prompt(reasoner, 12, seed=seed), [seed, 10, 20]) for seed in (1, 2, 3)]
    sampled = SharedEngine().sample(reasoner, requests, Sampling(max_new_tokens=6, temperature=0.7))
    return [PromptGroup(r.encoded, tuple(c), torch.zeros(3)) for r, c in zip(requests, sampled, strict=True)]


def passes(monkeypatch) -> list[tuple[str, int]]:
    """Prompt and length of every completion that is scored in the plain form, as they come."""
    seen = []

    def watched(reasoner, encoded, ids, **more):
        seen.append((encoded.clip_id, len(ids[0])))
        return token_logprobs(reasoner, encoded, ids, **more)

    monkeypatch.setattr("grpo.self_check.token_logprobs", watched)
    return seen


@pytest.mark.parametrize("tokens", [1, 25, 1000])
def test_groups_take_turns_and_so_do_references(reasoner, groups, monkeypatch, tokens):
    """Every completion alone in a row, one prompt in a row, and all prompts in one: the second group, and of the second
    row, or of the only one, the reference of the longest completion of the last prompt."""
    update, seen = update_of(reasoner, *groups, tokens=tokens, beta=0.1), passes(monkeypatch)
    check_engine(SharedEngine(), reasoner, update, turn=1)
    assert seen[:3] == [("prompt 2", len(completion.ids)) for completion in groups[1].completions]
    ids = update.micros[1 % len(update.micros)].requests[-1]
    assert seen[3:] == [(ids.encoded.clip_id, max(len(row) for row in ids.completion_ids))]


def test_all_rows_are_held_against_sampling(reasoner, groups):
    """Numbers of the third prompt that were sampled otherwise, while the first one's turn is to be computed twice."""
    last = [replace(completion, logprobs=completion.logprobs + 0.01) for completion in groups[2].completions]
    changed = replace(groups[2], completions=tuple(last))
    with pytest.raises(RunError, match=r"when sampled and when scored.* clip prompt 3 "):
        check_engine(SharedEngine(), reasoner, update_of(reasoner, *groups[:2], changed))


@pytest.mark.parametrize("by", [0.01, float("nan")])
def test_a_wrong_reference_stops(reasoner, groups, by):
    """Of the last prompt's completions, one of the longest; half precision looks at it, too."""
    update = update_of(reasoner, *groups, beta=0.1)
    update.references[0][-3:] += by
    with pytest.raises(RunError, match=r"of the reference scored together and one by one.* clip prompt 3 "):
        check_engine(SharedEngine(), reasoner, update)


def test_a_wrong_reference_stops_in_half_precision(reasoner, groups):
    with torch.autocast("cpu", torch.bfloat16):
        update = update_of(reasoner, *groups, beta=0.1)
        check_engine(SharedEngine(), reasoner, update)
        update.references[0][-3:] += 0.3
        with pytest.raises(RunError, match=r"of the reference scored together.*mean difference"):
            check_engine(SharedEngine(), reasoner, update)


def test_the_plain_rows_hold_a_chunk_of_logits(reasoner, group, monkeypatch):
    """Seven entries fit, and so a token at a time goes through the head."""
    sizes, update = [], update_of(reasoner, group)
    monkeypatch.setattr("grpo.chunked.CHUNK_ELEMENTS", 7)
    hook = reasoner.lm_head.register_forward_hook(lambda module, args, output: sizes.append(len(output)))
    check_engine(SharedEngine(), reasoner, update)
    hook.remove()
    assert sizes == [1] * sum(len(completion.ids) for completion in group.completions)


def test_sampling_is_held_against_scoring(reasoner, group):
    """Numbers that were sampled at another temperature."""
    with pytest.raises(RunError, match="when sampled and when scored"):
        check_engine(SharedEngine(), reasoner, update_of(reasoner, group, temperature=1.0))


def test_half_precision_may_differ_in_single_tokens(reasoner, group):
    """0.2 nats at one of some fifteen tokens is 0.013 in the mean; 2 nats are too much."""
    with torch.autocast("cpu", torch.bfloat16):
        check_engine(Off(0.2), reasoner, update_of(reasoner, group))
        with pytest.raises(RunError, match="mean difference"):
            check_engine(Off(2.0), reasoner, update_of(reasoner, group))


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
            check_engine(SharedEngine(), reasoner, update_of(reasoner, group, temperature=1.0))
            return
        with pytest.raises(RunError, match=r"when sampled and when scored.*at token 0 .*\(mean at one place: largest"):
            check_engine(SharedEngine(), reasoner, update_of(reasoner, group, temperature=1.0))


@pytest.mark.parametrize(("every", "checked"), [(0, [5, 6]), (3, [5, 6, 9]), (2, [5, 6, 8]), (1, [5, 6, 7, 8, 9])])
def test_when_it_is_time(reasoner, group, every, checked):
    """From rollout step 5 on, as after a resume: the first two, and every so many."""
    check, engine, steps = SelfCheck(every=every), Off(0.0), []
    for step in range(5, 10):
        before = engine.calls
        check(engine, reasoner, update_of(reasoner, group), step)
        steps += [step] * (engine.calls - before)
    assert steps == checked


def test_the_plain_engine_is_not_compared_with_itself(reasoner):
    plain: Engine = PlainEngine()
    check = SelfCheck()
    check(plain, reasoner, CheckedUpdate((), (), (), 0.7), 0)
    assert check.checked == 0
