"""From rollouts to losses: cut the completions of a step into micro-batches and put a loss on each.

A micro-batch holds as many groups as the token budget allows, and a group is divided only when it is larger than the
budget on its own, so that what an engine shares inside a prompt stays shared. How completions are cut changes memory
and speed only, because token weights come from the whole update (`grpo.losses.UpdateSize`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from grpo.engine import Engine, ScoreRequest
from grpo.losses import LossOutput, TokenBatch, UpdateSize, policy_loss
from grpo.rollout import Completion, evaluation_mode
from grpo.settings import GRPOSettings
from models.processing import EncodedPrompt
from models.reasoner import Reasoner


@dataclass(frozen=True)
class PromptGroup:
    """All completions of one prompt, judged.

    Attributes:
        encoded: The prompt after the towers.
        completions: What was sampled.
        advantages: One per completion.
        is_filler: It only keeps processes in step: it runs through the model, and none of its tokens is trained.
    """

    encoded: EncodedPrompt
    completions: tuple[Completion, ...]
    advantages: Float[Tensor, "group"]
    is_filler: bool = False


@dataclass(frozen=True)
class MicroBatch:
    """Completions that go through the model together.

    Attributes:
        requests: The completions by prompt.
        sampling_logprobs: Log-probabilities when they were sampled, right-padded with 0.
        advantages: One per completion.
        mask: True where a token is trained.
    """

    requests: tuple[ScoreRequest, ...]
    sampling_logprobs: Float[Tensor, "rollouts tokens"]
    advantages: Float[Tensor, "rollouts"]
    mask: Bool[Tensor, "rollouts tokens"]


Place = tuple[int, int]
"""A completion: which group, and which of it."""


def cut(
    engine: Engine, groups: Sequence[PromptGroup], settings: GRPOSettings, *, at_least: int = 1
) -> list[MicroBatch]:
    """Cut groups into micro-batches of at most `settings.micro_batch_tokens` tokens.

    Args:
        engine: Knows how many tokens it makes of them.
        groups: All completions, at least one.
        settings: The budget. A single completion that exceeds it with its prompt is a micro-batch of its own.
        at_least: How many micro-batches to make, for processes that wait for each other in every one of them; at most
            the number of completions.

    Returns:
        Micro-batches in the order of the groups, on the device of the prompts.
    """
    parts = _fill(engine, groups, settings.micro_batch_tokens)
    while len(parts) < at_least:
        index = max(range(len(parts)), key=lambda number: len(parts[number]))
        half = len(parts[index]) // 2
        parts[index : index + 1] = parts[index][:half], parts[index][half:]
    return [_micro_batch(groups, part, settings) for part in parts]


def worth_training(groups: Sequence[PromptGroup], *, count: int) -> list[PromptGroup]:
    """The groups that teach something, filled up with others.

    Args:
        groups: All groups of a process.
        count: How many to return, so that all processes return the same number.

    Returns:
        Groups with an advantage other than 0 first, then the rest as fillers; each part in the order given. Without
        being marked, a filler's KL penalty would count on the one process that needs it.
    """
    marked = [replace(group, is_filler=not bool(group.advantages.any())) for group in groups]
    return sorted(marked, key=lambda group: group.is_filler)[:count]


def reference_logprobs(
    engine: Engine, reasoner: Reasoner, micro: MicroBatch, *, temperature: float
) -> Float[Tensor, "rollouts tokens"]:
    """Log-probabilities under the base model, without gradient and without dropout."""
    with torch.no_grad(), evaluation_mode(reasoner), reasoner.reference():
        return engine.score(reasoner, micro.requests, temperature=temperature).logprobs


def micro_batch_loss(
    engine: Engine,
    reasoner: Reasoner,
    micro: MicroBatch,
    *,
    reference: Float[Tensor, "rollouts tokens"] | None,
    settings: GRPOSettings,
    size: UpdateSize,
    temperature: float,
) -> LossOutput:
    """Forward pass and loss of one micro-batch.

    Args:
        engine: Scores the completions.
        reasoner: The policy.
        micro: The completions.
        reference: From `reference_logprobs`; None when beta is 0.
        settings: The loss.
        size: The whole update.
        temperature: The one the completions were sampled with.

    Returns:
        Its part of the update's loss, and its statistics.
    """
    scores = engine.score(reasoner, micro.requests, temperature=temperature)
    batch = TokenBatch(
        logprobs=scores.logprobs,
        sampling_logprobs=micro.sampling_logprobs,
        advantages=micro.advantages,
        mask=micro.mask,
        reference_logprobs=reference,
        entropy=scores.entropy,
    )
    return policy_loss(batch, settings, size)


def _fill(engine: Engine, groups: Sequence[PromptGroup], budget: int) -> list[list[Place]]:
    """Whole groups as long as they fit, and the completions of larger ones one by one."""
    parts: list[list[Place]] = [[]]
    for number, group in enumerate(groups):
        whole = [(number, index) for index in range(len(group.completions))]
        fits_alone = _tokens(engine, groups, whole) <= budget
        for places in [whole] if fits_alone else [[place] for place in whole]:
            if parts[-1] and _tokens(engine, groups, parts[-1] + places) > budget:
                parts.append([])
            parts[-1] += places
    return parts


def _tokens(engine: Engine, groups: Sequence[PromptGroup], places: Sequence[Place]) -> int:
    return sum(
        engine.tokens(
            groups[number].encoded.embeddings.shape[1],
            [len(groups[number].completions[index].ids) for _, index in same],
        )
        for number, same in groupby(places, key=lambda place: place[0])
    )


def _micro_batch(groups: Sequence[PromptGroup], places: Sequence[Place], settings: GRPOSettings) -> MicroBatch:
    device = groups[0].encoded.embeddings.device
    completions = [groups[number].completions[index] for number, index in places]
    sampled = pad_sequence([completion.logprobs for completion in completions], batch_first=True)
    left_out = [
        groups[number].is_filler or (settings.mask_truncated and groups[number].completions[index].is_truncated)
        for number, index in places
    ]
    trained = torch.tensor([0 if out else len(c.ids) for out, c in zip(left_out, completions, strict=True)])
    requests = [
        ScoreRequest(groups[number].encoded, tuple(groups[number].completions[index].ids for _, index in same))
        for number, same in groupby(places, key=lambda place: place[0])
    ]
    return MicroBatch(
        requests=tuple(requests),
        sampling_logprobs=sampled.to(device),
        advantages=torch.stack([groups[number].advantages[index] for number, index in places]).to(device),
        mask=(torch.arange(sampled.shape[1]) < trained[:, None]).to(device),
    )
