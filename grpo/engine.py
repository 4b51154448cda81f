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

from datamodules.errors import ConfigError
from grpo.logprobs import TokenLogprobs, token_logprobs
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


class Engine(ABC):
    """Samples completions and scores them."""

    @abstractmethod
    def sample(
        self, reasoner: Reasoner, requests: Sequence[SampleRequest], sampling: Sampling
    ) -> list[list[Completion]]:
        """Sample all groups of a rollout phase; one list per request, in the order of its keys."""

    @abstractmethod
    def score(
        self,
        reasoner: Reasoner,
        encoded: EncodedPrompt,
        completion_ids: Sequence[Int64[Tensor, "_"]],
        *,
        temperature: float,
    ) -> TokenLogprobs:
        """Log-probabilities of completions of one prompt, with gradient where autograd is on."""


class PlainEngine(Engine):
    """Every completion is a row of its own: slow, and obviously right."""

    def sample(
        self, reasoner: Reasoner, requests: Sequence[SampleRequest], sampling: Sampling
    ) -> list[list[Completion]]:
        """Sample group after group; see `grpo.rollout.rollout`."""
        return [rollout(reasoner, request.encoded, request.keys, sampling) for request in requests]

    def score(
        self,
        reasoner: Reasoner,
        encoded: EncodedPrompt,
        completion_ids: Sequence[Int64[Tensor, "_"]],
        *,
        temperature: float,
    ) -> TokenLogprobs:
        """Score row by row; see `grpo.logprobs.token_logprobs`."""
        return token_logprobs(reasoner, encoded, completion_ids, temperature=temperature)


_ENGINES: dict[str, type[Engine]] = {"plain": PlainEngine}


def build_engine(name: str) -> Engine:
    """The engine of this name.

    Raises:
        ConfigError: There is none.
    """
    if name not in _ENGINES:
        raise ConfigError(
            f"model.grpo.engine: expected one of {', '.join(sorted(_ENGINES))}, found {name!r}. "
            "Set --model.grpo.engine plain."
        )
    return _ENGINES[name]()
