"""The seam between GRPO and the implementations that sample and score completions.

An engine may share whatever it likes between the completions of a prompt, and between prompts. It may not change what
they are: with the same keys every engine draws the same tokens, except where the two best candidates are closer than
rounding, and scores them alike.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Int64
from torch import Tensor

from grpo.logprobs import TokenLogprobs, concatenate, token_logprobs
from grpo.rollout import Completion, rollout
from grpo.sampling import Sampling
from models.processing import EncodedPrompt
from models.reasoner import Reasoner


@dataclass(frozen=True)
class SampleRequest:
    """One group to sample.

    Attributes:
        encoded: The prompt after the towers.
        keys: `noise_key` of each completion.
    """

    encoded: EncodedPrompt
    keys: Sequence[int]


@dataclass(frozen=True)
class ScoreRequest:
    """Completions of one prompt to score.

    Attributes:
        encoded: The prompt after the towers.
        completion_ids: Token ids of each completion; at least one completion of at least one token.
    """

    encoded: EncodedPrompt
    completion_ids: Sequence[Int64[Tensor, "_"]]


class Engine(ABC):
    """Samples completions and scores them."""

    @abstractmethod
    def sample(
        self, reasoner: Reasoner, requests: Sequence[SampleRequest], sampling: Sampling
    ) -> list[list[Completion]]:
        """Sample all groups of a rollout phase; one list per request, in the order of its keys."""

    @abstractmethod
    def score(self, reasoner: Reasoner, requests: Sequence[ScoreRequest], *, temperature: float) -> TokenLogprobs:
        """Log-probabilities of completions, request by request, with gradient where autograd is on."""

    @abstractmethod
    def tokens(self, prompt: int, completions: Sequence[int]) -> int:
        """Tokens that go through the model to score completions of these lengths after a prompt of this length."""


class PlainEngine(Engine):
    """Every completion is a row of its own: slow, and obviously right."""

    def sample(
        self, reasoner: Reasoner, requests: Sequence[SampleRequest], sampling: Sampling
    ) -> list[list[Completion]]:
        """Sample group after group; see `grpo.rollout.rollout`."""
        return [rollout(reasoner, request.encoded, request.keys, sampling) for request in requests]

    def score(self, reasoner: Reasoner, requests: Sequence[ScoreRequest], *, temperature: float) -> TokenLogprobs:
        """Score row by row; see `grpo.logprobs.token_logprobs`."""
        return concatenate(
            [
                token_logprobs(reasoner, request.encoded, request.completion_ids, temperature=temperature)
                for request in requests
            ]
        )

    def tokens(self, prompt: int, completions: Sequence[int]) -> int:
        """One row per completion, padded to the longest."""
        return len(completions) * (prompt + max(completions))
