"""How a token is drawn, and what is remembered of it.

Temperature divides the logits. Top-p then restricts what can be drawn, and nothing else: the log-probability that is
kept is the one under the temperature-scaled, untruncated distribution, because that is the policy that is trained, and
because a ratio between two truncated distributions is undefined where only one of them has mass.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from datamodules.errors import ConfigError
from grpo.noise import gumbel_noise

_SUM_ERROR = 1e-3
"""More than two ways of adding up the probabilities of a vocabulary can differ by; closer to the edge it is sorted."""


@dataclass(frozen=True)
class Sampling:
    """How completions are drawn.

    Attributes:
        max_new_tokens: Longest completion in tokens; a longer one is cut and counts as truncated.
        temperature: Divides the logits; 1 samples the policy itself, 0 takes the most probable token.
        top_p: Draw only from the smallest set of tokens with at least this probability, 0 < top_p <= 1.
        seed: Which noise is drawn; the same seed gives the same completions, on any number of devices. None takes the
            run's --seed_everything, and 0 where there is no command line.
    """

    max_new_tokens: int = 512
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be sampled.

        Raises:
            ConfigError: A value is out of range; all such values are named.
        """
        problems = []
        if self.max_new_tokens < 1:
            problems.append(f"model.sampling.max_new_tokens is {self.max_new_tokens}; expected at least 1")
        if not 0 <= self.temperature < float("inf"):
            problems.append(
                f"model.sampling.temperature is {self.temperature}; expected 0 (greedy) or a positive number"
            )
        if not 0 < self.top_p <= 1:
            problems.append(f"model.sampling.top_p is {self.top_p}; expected more than 0 and at most 1 (off)")
        if problems:
            raise ConfigError(f"{'; '.join(problems)}. Set the --model.sampling keys named here.")

    @property
    def is_greedy(self) -> bool:
        """True when the most probable token is taken and no noise is used."""
        return self.temperature == 0

    @property
    def noise_seed(self) -> int:
        """The seed that noise is named by."""
        return 0 if self.seed is None else self.seed

    @property
    def scale(self) -> float:
        """What logits are divided by before log-probabilities are taken; 1 for greedy decoding."""
        return self.temperature or 1.0


def draw_tokens(
    logits: Float[Tensor, "rows vocab"],
    keys: Int64[Tensor, "rows"],
    positions: Int64[Tensor, "rows"],
    sampling: Sampling,
) -> tuple[Int64[Tensor, "rows"], Float32[Tensor, "rows"]]:
    """Draw one token per row.

    Every way of sampling goes through here, so that equal logits give equal tokens whatever else differs.

    Args:
        logits: Unscaled, any floating type; computed on in float32.
        keys: `noise_key` of each row.
        positions: Token position in the row's completion, from 0.
        sampling: Temperature and top-p.

    Returns:
        Token ids, and their natural log-probability under ``softmax(logits / temperature)``, untruncated (temperature
        1 when greedy).
    """
    logprobs = torch.log_softmax(logits.float() / sampling.scale, dim=-1)
    if sampling.is_greedy:
        ids = logprobs.argmax(dim=-1)
    else:
        ids = _drawn(logprobs, gumbel_noise(keys, positions, logits.shape[-1]), sampling.top_p)
    return ids, logprobs.gather(-1, ids[:, None]).squeeze(-1)


def _drawn(
    logprobs: Float32[Tensor, "rows vocab"], noise: Float32[Tensor, "rows vocab"], top_p: float
) -> Int64[Tensor, "rows"]:
    """Draw from the nucleus of every row, sorting only rows for which that is needed.

    What wins among all tokens also wins among those of the nucleus if it is one of them, which takes a sum to know and
    no order. Of a hundred draws that is so for about a hundred times top-p.
    """
    ids = (logprobs + noise).argmax(dim=-1)
    if top_p == 1:
        return ids
    rows = (_mass_before(logprobs, ids) >= top_p - _SUM_ERROR).nonzero().squeeze(1)
    if len(rows):
        ids[rows] = (nucleus(logprobs[rows], top_p) + noise[rows]).argmax(dim=-1)
    return ids


def _mass_before(logprobs: Float32[Tensor, "rows vocab"], ids: Int64[Tensor, "rows"]) -> Float32[Tensor, "rows"]:
    """Probability of all tokens that the nucleus takes in before a given one."""
    own = logprobs.gather(-1, ids[:, None])
    is_lower = torch.arange(logprobs.shape[-1], device=ids.device) < ids[:, None]
    before = (logprobs > own) | ((logprobs == own) & is_lower)
    return logprobs.exp().masked_fill_(~before, 0.0).sum(dim=-1)


def nucleus(logprobs: Float32[Tensor, "rows vocab"], top_p: float) -> Float32[Tensor, "rows vocab"]:
    """Keep the smallest set of most probable tokens that reaches `top_p`; everything else becomes -inf.

    Args:
        logprobs: Normalised log-probabilities.
        top_p: Probability to reach, 0 < top_p <= 1.

    Returns:
        The kept values unchanged; at least the most probable token of every row is kept. Among equals the lower id
        is kept first.

    Reference:
        Holtzman et al., "The curious case of neural text degeneration", arXiv:1904.09751, section 3.1.
    """
    ordered, order = logprobs.sort(dim=-1, descending=True, stable=True)
    probabilities = ordered.exp()
    before = probabilities.cumsum(dim=-1) - probabilities
    before[:, 0] = 0
    outside = torch.zeros_like(before, dtype=torch.bool).scatter(-1, order, before >= top_p)
    return logprobs.masked_fill(outside, float("-inf"))
