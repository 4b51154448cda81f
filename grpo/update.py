"""From rollouts to losses: cut the completions of a step into micro-batches and put a loss on each.

Completions are cut prompt by prompt, so that whatever an engine shares inside a prompt stays shared. How they are cut
changes memory and speed only, because token weights come from the whole update (`grpo.losses.UpdateSize`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from grpo.engine import Engine
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
    """

    encoded: EncodedPrompt
    completions: tuple[Completion, ...]
    advantages: Float[Tensor, "group"]


@dataclass(frozen=True)
class MicroBatch:
    """Completions of one prompt that go through the model together.

    Attributes:
        encoded: The prompt after the towers.
        completion_ids: Token ids of each completion.
        sampling_logprobs: Log-probabilities when they were sampled, right-padded with 0.
        advantages: One per completion.
        mask: True where a token is trained.
    """

    encoded: EncodedPrompt
    completion_ids: tuple[Int64[Tensor, "_"], ...]
    sampling_logprobs: Float[Tensor, "rollouts tokens"]
    advantages: Float[Tensor, "rollouts"]
    mask: Bool[Tensor, "rollouts tokens"]


def cut(groups: Sequence[PromptGroup], settings: GRPOSettings) -> list[MicroBatch]:
    """Cut groups into micro-batches of at most `settings.micro_batch_size` completions of one prompt.

    Returns:
        Micro-batches in the order of the groups, on the device of the prompts.
    """
    return [
        _micro_batch(group, slice(start, start + settings.micro_batch_size), settings)
        for group in groups
        for start in range(0, len(group.completions), settings.micro_batch_size)
    ]


def worth_training(groups: Sequence[PromptGroup], *, count: int) -> list[PromptGroup]:
    """The groups that teach something, filled up with others.

    Args:
        groups: All groups of a process.
        count: How many to return, so that all processes return the same number.

    Returns:
        Groups with an advantage other than 0 first, then the rest; each part in the order given.
    """
    ordered = sorted(groups, key=lambda group: not bool(group.advantages.any()))
    return ordered[:count]


def reference_logprobs(
    engine: Engine, reasoner: Reasoner, micro: MicroBatch, *, temperature: float
) -> Float[Tensor, "rollouts tokens"]:
    """Log-probabilities under the base model, without gradient and without dropout."""
    with torch.no_grad(), evaluation_mode(reasoner), reasoner.reference():
        return engine.score(reasoner, micro.encoded, micro.completion_ids, temperature=temperature).logprobs


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
    scores = engine.score(reasoner, micro.encoded, micro.completion_ids, temperature=temperature)
    batch = TokenBatch(
        logprobs=scores.logprobs,
        sampling_logprobs=micro.sampling_logprobs,
        advantages=micro.advantages,
        mask=micro.mask,
        reference_logprobs=reference,
        entropy=scores.entropy,
    )
    return policy_loss(batch, settings, size)


def _micro_batch(group: PromptGroup, rows: slice, settings: GRPOSettings) -> MicroBatch:
    device, completions = group.encoded.embeddings.device, group.completions[rows]
    sampled = pad_sequence([completion.logprobs for completion in completions], batch_first=True)
    trained = torch.tensor([0 if settings.mask_truncated and c.is_truncated else len(c.ids) for c in completions])
    return MicroBatch(
        encoded=group.encoded,
        completion_ids=tuple(completion.ids for completion in completions),
        sampling_logprobs=sampled.to(device),
        advantages=group.advantages[rows].to(device),
        mask=(torch.arange(sampled.shape[1]) < trained[:, None]).to(device),
    )
