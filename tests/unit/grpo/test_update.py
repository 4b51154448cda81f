import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from grpo.engine import Engine, PlainEngine, ScoreRequest
from grpo.losses import UpdateSize
from grpo.rollout import Completion
from grpo.settings import GRPOSettings
from grpo.shared_engine import SharedEngine
from grpo.update import MicroBatch, PromptGroup, cut, micro_batch_loss, reference_logprobs, worth_training
from models.processing import EncodedPrompt


def group(name: str, lengths: tuple[int, ...], advantages: tuple[float, ...], truncated: int = 0) -> PromptGroup:
    completions = tuple(
        Completion(torch.full((length,), 7), torch.full((length,), -1.0), index < truncated)
        for index, length in enumerate(lengths)
    )
    encoded = EncodedPrompt(
        name, torch.zeros(1, 2, dtype=torch.long), torch.zeros(1, 2, 4), torch.zeros(3, 1, 2, dtype=torch.long), 2
    )
    return PromptGroup(encoded, completions, torch.tensor(advantages))


def names(micros: list[MicroBatch]) -> list[list[tuple[str, int]]]:
    """Per micro-batch, its prompts and how many completions of each."""
    return [[(r.encoded.clip_id, len(r.completion_ids)) for r in micro.requests] for micro in micros]


def cut_by(engine: Engine, groups: list[PromptGroup], tokens: int, at_least: int = 1) -> list[MicroBatch]:
    return cut(engine, groups, GRPOSettings(micro_batch_tokens=tokens), at_least=at_least)


def test_whole_groups_as_long_as_they_fit():
    """Prompts of 2 tokens. In one row each prompt counts once and no completion's last token: 2 + 0 + 2 + 1 = 5 for
    a, 2 + 1 + 1 = 4 for b, so both fit into 9. Row by row, padded, a is 3 (2 + 3) = 15 and b 2 (2 + 2) = 8."""
    groups = [group("a", (1, 3, 2), (1.0, 0.0, -1.0)), group("b", (2, 2), (0.5, -0.5))]
    assert names(cut_by(SharedEngine(), groups, 9)) == [[("a", 3), ("b", 2)]]
    assert names(cut_by(SharedEngine(), groups, 8)) == [[("a", 3)], [("b", 2)]]
    assert names(cut_by(PlainEngine(), groups, 23)) == [[("a", 3), ("b", 2)]]
    assert names(cut_by(PlainEngine(), groups, 22)) == [[("a", 3)], [("b", 2)]]


def test_a_group_beyond_the_budget_is_divided():
    """Row by row within 10 tokens: 2 + 1, then 2 (2 + 3) for the others, and 2 (2 + 2) for b."""
    groups = [group("a", (1, 3, 2), (1.0, 0.0, -1.0)), group("b", (2, 2), (0.5, -0.5))]
    micros = cut_by(PlainEngine(), groups, 10)
    assert names(micros) == [[("a", 2)], [("a", 1)], [("b", 2)]]
    assert [micro.mask.tolist() for micro in micros] == [
        [[True, False, False], [True, True, True]],
        [[True, True]],
        [[True, True], [True, True]],
    ]
    assert micros[0].sampling_logprobs.tolist() == [[-1.0, 0.0, 0.0], [-1.0, -1.0, -1.0]]
    assert micros[1].advantages.tolist() == [-1.0]


def test_a_completion_beyond_the_budget_is_alone():
    assert names(cut_by(PlainEngine(), [group("a", (1, 9), (1.0, -1.0))], 1)) == [[("a", 1)], [("a", 1)]]


LENGTHS = st.lists(st.lists(st.integers(1, 9), min_size=2, max_size=2), min_size=1, max_size=4)


@given(lengths=LENGTHS, tokens=st.integers(1, 60), share=st.floats(0, 1), is_plain=st.booleans())
def test_every_completion_is_in_one_micro_batch_and_none_exceeds_the_budget(lengths, tokens, share, is_plain):
    groups = [
        group(str(number), tuple(row), tuple(float(10 * number + i) for i in range(len(row))))
        for number, row in enumerate(lengths)
    ]
    engine = PlainEngine() if is_plain else SharedEngine()
    at_least = max(1, round(share * 2 * len(groups)))
    micros = cut_by(engine, groups, tokens, at_least)
    assert len(micros) >= at_least
    assert torch.equal(torch.cat([m.advantages for m in micros]), torch.cat([one.advantages for one in groups]))
    for micro in micros:
        size = sum(engine.tokens(2, [len(ids) for ids in r.completion_ids]) for r in micro.requests)
        assert size <= tokens or len(micro.advantages) == 1
        assert micro.mask.sum() == sum(len(ids) for r in micro.requests for ids in r.completion_ids)


def test_truncated_completions_can_be_left_out():
    one = group("a", (2, 1), (1.0, -1.0), truncated=1)
    micro = cut(PlainEngine(), [one], GRPOSettings(mask_truncated=True))[0]
    assert micro.mask.tolist() == [[False, False], [True, False]]


def test_groups_that_teach_something_come_first():
    groups = [
        group(name, (1, 1), values) for name, values in (("a", (0.0, 0.0)), ("b", (1.0, -1.0)), ("c", (0.0, 0.0)))
    ]
    assert [g.encoded.clip_id for g in worth_training(groups, count=1)] == ["b"]
    assert [g.encoded.clip_id for g in worth_training(groups, count=2)] == ["b", "a"]


def test_what_only_keeps_processes_in_step_is_not_trained():
    groups = [group("a", (2, 1), (0.0, 0.0)), group("b", (1, 2), (1.0, -1.0))]
    micros = cut_by(PlainEngine(), worth_training(groups, count=2), 100)
    assert names(micros) == [[("b", 2), ("a", 2)]]
    assert micros[0].mask.tolist() == [[True, False], [True, True], [False, False], [False, False]]


def test_the_reference_has_no_gradient_and_no_adapter(make_reasoner, make_clip):
    trained, fresh = make_reasoner(adapter_scale=0.2), make_reasoner(adapter_scale=0.0)
    completions = tuple(Completion(torch.tensor(ids), torch.zeros(len(ids)), False) for ids in ([5, 6], [7]))
    encoded = trained.encode(trained.prepare(make_clip()))
    micro = cut(PlainEngine(), [PromptGroup(encoded, completions, torch.ones(2))], GRPOSettings())[0]
    reference = reference_logprobs(PlainEngine(), trained, micro, temperature=1.0)
    base = PlainEngine().score(fresh, micro.requests, temperature=1.0).logprobs
    assert not reference.requires_grad
    torch.testing.assert_close(reference, base.detach())


@pytest.mark.parametrize("beta", [0.0, 0.5])
def test_loss_of_a_micro_batch_on_policy(make_reasoner, make_clip, beta):
    """Right after sampling the ratio is 1, so the policy loss is minus the weighted advantage: lengths 2 and 1,
    advantages 3 and -1, mean over completions -1. With beta the mean k3 per completion is added."""
    reasoner = make_reasoner(adapter_scale=0.2)
    encoded = reasoner.encode(reasoner.prepare(make_clip()))
    ids = (torch.tensor([5, 6]), torch.tensor([7]))
    now = PlainEngine().score(reasoner, [ScoreRequest(encoded, ids)], temperature=0.7)
    completions = tuple(
        Completion(row, values[: len(row)].detach(), False) for row, values in zip(ids, now.logprobs, strict=True)
    )
    settings = GRPOSettings(beta=beta)
    micro = cut(PlainEngine(), [PromptGroup(encoded, completions, torch.tensor([3.0, -1.0]))], settings)[0]
    reference = reference_logprobs(PlainEngine(), reasoner, micro, temperature=0.7)
    output = micro_batch_loss(
        PlainEngine(),
        reasoner,
        micro,
        reference=reference if beta else None,
        settings=settings,
        size=UpdateSize(2, 3.0, 3.0, 2),
        temperature=0.7,
    )
    difference = reference - now.logprobs.detach()
    k3 = difference.exp() - difference - 1
    expected = -1.0 + beta * float((k3[0].sum() / 2 + k3[1, 0]) / 2)
    assert output.loss.item() == pytest.approx(expected, abs=1e-5)
    assert output.loss.requires_grad
