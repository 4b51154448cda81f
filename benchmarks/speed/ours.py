"""One step of GRPO with the project's parts, in the order in which the training module uses them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from grpo.advantages import group_advantages
from grpo.decoder import Decoder
from grpo.engine import SampleRequest
from grpo.losses import UpdateSize
from grpo.noise import noise_key
from grpo.sampling import Sampling
from grpo.settings import GRPOSettings
from grpo.shared_engine import SharedEngine
from grpo.update import PromptGroup, cut, micro_batch_loss, reference_logprobs
from models.reasoner import Reasoner
from speed.laps import Laps
from speed.prompts import Conversation, PartsReasoner, read_prompt


class FixedLengths(SharedEngine):
    """The shared engine over completions whose lengths are given, so that two sides can be compared.

    An end of turn is impossible before its place and certain there. What is remembered as its log-probability is 0,
    which changes the value of the loss and none of the work.
    """

    def __init__(self, lengths: Sequence[int]) -> None:
        """Keep the lengths.

        Args:
            lengths: Of each completion of a group, all at least 1.
        """
        super().__init__()
        self.lengths = lengths

    def _decoder(self, reasoner: Reasoner, requests: Sequence[SampleRequest], sampling: Sampling) -> Decoder:
        inner = super()._decoder(reasoner, requests, sampling)
        return _Ending(inner, list(self.lengths) * len(requests), reasoner.end_of_turn_ids[0])


def check_lengths(found: Sequence[int], expected: Sequence[int]) -> None:
    """Refuse to compare sides that did not write what they were told to.

    Raises:
        RuntimeError: Completions have other lengths.
    """
    if list(found) != list(expected):
        raise RuntimeError(f"expected completions of {list(expected)} tokens, found {list(found)}")


class _Ending(Decoder):
    def __init__(self, inner: Decoder, lengths: Sequence[int], end_id: int) -> None:
        self.inner = inner
        self.end_id = end_id
        self.waiting = iter(lengths)
        self.left = torch.zeros(0, dtype=torch.long)

    def has_room(self, rows: int) -> bool:
        return self.inner.has_room(rows)

    def admit(self, encoded: Any, rows: int) -> Tensor:
        logits = self.inner.admit(encoded, rows).expand(rows, -1)
        fresh = torch.tensor([next(self.waiting) for _ in range(rows)], device=logits.device)
        self.left = torch.cat([self.left.to(logits.device), fresh])
        return self._steered(logits, fresh)

    def keep(self, rows: Tensor) -> None:
        self.inner.keep(rows)
        self.left = self.left[rows]

    def step(self, tokens: Tensor) -> Tensor:
        self.left -= 1
        return self._steered(self.inner.step(tokens), self.left)

    def _steered(self, logits: Tensor, left: Tensor) -> Tensor:
        is_end = torch.arange(logits.shape[-1], device=logits.device) == self.end_id
        return logits.masked_fill(is_end != (left == 1)[:, None], float("-inf"))


@dataclass
class OurSide:
    """Everything a step needs.

    Attributes:
        reasoner: The policy.
        processor: Reads the conversations.
        engine: Samples and scores.
        settings: Of GRPO.
        sampling: How completions are drawn.
        reward: Texts of a group to rewards.
        optimizer: Over the adapter.
        laps: The clock.
    """

    reasoner: PartsReasoner
    processor: Any
    engine: FixedLengths
    settings: GRPOSettings
    sampling: Sampling
    reward: Callable[[list[str]], list[float]]
    optimizer: torch.optim.Optimizer
    laps: Laps

    def step(self, conversation: Conversation, number: int) -> dict[str, float]:
        """Sample, judge and train on one prompt.

        Args:
            conversation: The prompt.
            number: Of the step; decides the noise.

        Returns:
            Seconds of "process", "towers", "generate", "reward", "reference", "forward", "backward" and "optimizer".
        """
        laps, reasoner = self.laps, self.reasoner
        with laps.part("process"):
            inputs = read_prompt(self.processor, conversation, reasoner.device)
        with laps.part("towers"):
            encoded = reasoner.encode_inputs(inputs)
        with laps.part("generate"):
            keys = [
                noise_key(seed=0, rollout_step=number, sample_id="prompt", index=index)
                for index in range(self.settings.group_size)
            ]
            (completions,) = self.engine.sample(reasoner, [SampleRequest(encoded, keys)], self.sampling)
        check_lengths([len(completion.ids) for completion in completions], self.engine.lengths)
        with laps.part("reward"):
            rewards = self.reward([reasoner.decode(completion.ids) for completion in completions])
            advantages = group_advantages(torch.tensor([rewards]), scale_rewards=self.settings.scale_rewards)[0]
        self._update(PromptGroup(encoded, tuple(completions), advantages))
        return laps.take()

    def _update(self, group: PromptGroup) -> None:
        laps, settings, temperature = self.laps, self.settings, self.sampling.scale
        tokens = sum(len(completion.ids) for completion in group.completions)
        size = UpdateSize(
            rollouts=len(group.completions),
            tokens=tokens,
            tokens_per_process=tokens,
            max_new_tokens=self.sampling.max_new_tokens,
        )
        self.reasoner.train()
        for micro in cut(self.engine, [group], settings):
            reference = None
            if settings.beta:
                with laps.part("reference"):
                    reference = reference_logprobs(self.engine, self.reasoner, micro, temperature=temperature)
            with laps.part("forward"):
                output = micro_batch_loss(
                    self.engine,
                    self.reasoner,
                    micro,
                    reference=reference,
                    settings=settings,
                    size=size,
                    temperature=temperature,
                )
            with laps.part("backward"):
                output.loss.backward()
        with laps.part("optimizer"):
            torch.nn.utils.clip_grad_norm_(list(self._trained()), settings.max_grad_norm)
            self.optimizer.step()
            self.optimizer.zero_grad()

    def _trained(self) -> Iterator[torch.nn.Parameter]:
        return (parameter for parameter in self.reasoner.parameters() if parameter.requires_grad)
