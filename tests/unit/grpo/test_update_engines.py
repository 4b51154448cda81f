"""What an update computes, loss and gradient of every weight, by one engine and by the other."""

import functools
from dataclasses import replace

import torch
from hypothesis import event, given, settings
from hypothesis import strategies as st
from small_models import random_prompt, random_reasoner

from grpo.engine import Engine, PlainEngine, ScoreRequest
from grpo.losses import UpdateSize
from grpo.rollout import Completion
from grpo.settings import GRPOSettings
from grpo.shared_engine import SharedEngine
from grpo.stats import LossStats
from grpo.update import PromptGroup, cut, micro_batch_loss, reference_logprobs
from models.reasoner import Reasoner

TEMPERATURE = 0.7
LENGTHS = st.lists(st.integers(1, 12), min_size=1, max_size=4)
SETTINGS = st.builds(
    GRPOSettings,
    beta=st.sampled_from([0.0, 0.3]),
    importance_level=st.sampled_from(["token", "sequence"]),
    loss_type=st.sampled_from(["grpo", "bnpo", "dapo", "dr_grpo"]),
    epsilon_high=st.sampled_from([None, 0.3]),
    mask_truncated=st.booleans(),
    micro_batch_tokens=st.integers(1, 200),
)


@functools.cache
def precise() -> Reasoner:
    """Four heads that share two, two layers, in double precision."""
    return random_reasoner(gain=3.0, key_value_heads=2).double().train()


def sampled_before(lengths: list[tuple[int, list[int]]], seed: int) -> list[PromptGroup]:
    """Completions of a policy that was a little different, so that ratios are clipped on both sides."""
    generator, groups = torch.Generator().manual_seed(seed), []
    for number, (prompt, sizes) in enumerate(lengths):
        encoded = random_prompt(precise(), prompt, seed=number)
        encoded = replace(encoded, embeddings=encoded.embeddings.double())
        rows = [torch.randint(0, 320, (size,), generator=generator) for size in sizes]
        now = PlainEngine().score(precise(), [ScoreRequest(encoded, rows)], temperature=TEMPERATURE).logprobs.detach()
        before = now + 0.3 * torch.randn(now.shape, generator=generator)
        completions = [
            Completion(row, values[: len(row)], bool(index % 3 == 1))
            for index, (row, values) in enumerate(zip(rows, before, strict=True))
        ]
        groups.append(PromptGroup(encoded, tuple(completions), torch.randn(len(rows), generator=generator)))
    return groups


def update(
    engine: Engine, groups: list[PromptGroup], own: GRPOSettings
) -> tuple[torch.Tensor, LossStats, dict[str, torch.Tensor]]:
    """Loss, statistics and gradients of all micro-batches together."""
    lengths = [len(completion.ids) for group in groups for completion in group.completions]
    size = UpdateSize(len(lengths), float(sum(lengths)), float(sum(lengths)), max_new_tokens=12)
    precise().zero_grad()
    losses, stats = [], []
    for micro in cut(engine, groups, own):
        reference = reference_logprobs(engine, precise(), micro, temperature=TEMPERATURE) if own.beta else None
        output = micro_batch_loss(
            engine, precise(), micro, reference=reference, settings=own, size=size, temperature=TEMPERATURE
        )
        output.loss.backward()
        losses.append(output.loss.detach())
        stats.append(output.stats)
    gradients = {name: p.grad.clone() for name, p in precise().named_parameters() if p.requires_grad}
    return torch.stack(losses).sum(), sum(stats[1:], stats[0]), gradients


@settings(max_examples=30, deadline=None)
@given(
    lengths=st.lists(st.tuples(st.integers(2, 20), LENGTHS), min_size=1, max_size=3),
    own=SETTINGS,
    seed=st.integers(0, 999),
)
def test_both_engines_make_the_same_update(lengths, own, seed):
    """Off policy, clipped, with and without KL penalty, in micro-batches that differ between the two."""
    groups = sampled_before(lengths, seed)
    (loss, plain, expected), (found_loss, shared, found) = (
        update(engine, groups, own) for engine in (PlainEngine(), SharedEngine())
    )
    event(f"clipped: {bool(plain.clipped_low + plain.clipped_high)}")
    torch.testing.assert_close(found_loss, loss, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(shared.pack(), plain.pack(), rtol=1e-5, atol=1e-5)
    assert len(expected) == 2 * 7 * 2
    for name, gradient in expected.items():
        assert (found[name] - gradient).norm() <= 1e-5 * gradient.norm(), name
