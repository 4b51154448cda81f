import pytest
import torch

from grpo.engine import PlainEngine
from grpo.losses import UpdateSize
from grpo.rollout import Completion
from grpo.settings import GRPOSettings
from grpo.update import PromptGroup, cut, micro_batch_loss, reference_logprobs, worth_training
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


def test_groups_are_cut_prompt_by_prompt():
    """Three and two completions in portions of two: 2 + 1 of the first prompt, 2 of the second."""
    groups = [group("a", (1, 3, 2), (1.0, 0.0, -1.0)), group("b", (2, 2), (0.5, -0.5))]
    micros = cut(groups, GRPOSettings(micro_batch_size=2))
    assert [micro.encoded.clip_id for micro in micros] == ["a", "a", "b"]
    assert [micro.mask.tolist() for micro in micros] == [
        [[True, False, False], [True, True, True]],
        [[True, True]],
        [[True, True], [True, True]],
    ]
    assert micros[0].sampling_logprobs.tolist() == [[-1.0, 0.0, 0.0], [-1.0, -1.0, -1.0]]
    assert micros[1].advantages.tolist() == [-1.0]


def test_truncated_completions_can_be_left_out():
    micro = cut([group("a", (2, 1), (1.0, -1.0), truncated=1)], GRPOSettings(mask_truncated=True))[0]
    assert micro.mask.tolist() == [[False, False], [True, False]]


def test_groups_that_teach_something_come_first():
    groups = [
        group(name, (1, 1), values) for name, values in (("a", (0.0, 0.0)), ("b", (1.0, -1.0)), ("c", (0.0, 0.0)))
    ]
    assert [g.encoded.clip_id for g in worth_training(groups, count=1)] == ["b"]
    assert [g.encoded.clip_id for g in worth_training(groups, count=2)] == ["b", "a"]


def test_the_reference_has_no_gradient_and_no_adapter(make_reasoner, make_clip):
    trained, fresh = make_reasoner(adapter_scale=0.2), make_reasoner(adapter_scale=0.0)
    completions = tuple(Completion(torch.tensor(ids), torch.zeros(len(ids)), False) for ids in ([5, 6], [7]))
    encoded = trained.encode(trained.prepare(make_clip()))
    micro = cut([PromptGroup(encoded, completions, torch.ones(2))], GRPOSettings())[0]
    reference = reference_logprobs(PlainEngine(), trained, micro, temperature=1.0)
    base = PlainEngine().score(fresh, encoded, micro.completion_ids, temperature=1.0).logprobs
    assert not reference.requires_grad
    torch.testing.assert_close(reference, base.detach())


@pytest.mark.parametrize("beta", [0.0, 0.5])
def test_loss_of_a_micro_batch_on_policy(make_reasoner, make_clip, beta):
    """Right after sampling the ratio is 1, so the policy loss is minus the weighted advantage: lengths 2 and 1,
    advantages 3 and -1, mean over completions -1. With beta the mean k3 per completion is added."""
    reasoner = make_reasoner(adapter_scale=0.2)
    encoded = reasoner.encode(reasoner.prepare(make_clip()))
    ids = (torch.tensor([5, 6]), torch.tensor([7]))
    now = PlainEngine().score(reasoner, encoded, ids, temperature=0.7)
    completions = tuple(
        Completion(row, values[: len(row)].detach(), False) for row, values in zip(ids, now.logprobs, strict=True)
    )
    settings = GRPOSettings(beta=beta)
    micro = cut([PromptGroup(encoded, completions, torch.tensor([3.0, -1.0]))], settings)[0]
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
