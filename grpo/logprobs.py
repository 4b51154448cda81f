"""Log-probabilities of given completions, with gradient: one full row ``[prompt | completion]`` per completion.

The plain path that any faster one must agree with. Rows are padded on the right, where a causal model cannot look, so
no attention mask is needed; completion positions count on from the prompt on all three axes of M-RoPE. The output head
runs at the positions that predict a completion token and nowhere else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from models.processing import EncodedPrompt
from models.reasoner import Reasoner


@dataclass(frozen=True)
class TokenLogprobs:
    """What the policy says about some completions of one prompt, right-padded to the longest.

    Attributes:
        logprobs: Natural log-probability of each token under the temperature-scaled distribution; 0 at padding.
        entropy: Entropy of that distribution in nats, without gradient; 0 at padding.
        mask: True at completion tokens.
    """

    logprobs: Float32[Tensor, "rollouts tokens"]
    entropy: Float32[Tensor, "rollouts tokens"]
    mask: Bool[Tensor, "rollouts tokens"]


def token_logprobs(
    reasoner: Reasoner,
    encoded: EncodedPrompt,
    completion_ids: Sequence[Int64[Tensor, "_"]],
    *,
    temperature: float,
    chunk: int | None = None,
) -> TokenLogprobs:
    """Score completions of one prompt under the current weights.

    Args:
        reasoner: The policy; inside `Reasoner.reference` the reference.
        encoded: The prompt that they answer.
        completion_ids: Token ids of each, of any lengths, on any device; at least one completion.
        temperature: Divides the logits; the one they were sampled with, or 1 for greedy ones.
        chunk: Tokens whose logits exist at the same time, as long as no gradient needs them; None takes all.

    Returns:
        Values on the reasoner's device, with gradient where autograd is on.
    """
    ids, mask = pad_completions(completion_ids, pad_id=reasoner.pad_id)
    ids, mask = ids.to(reasoner.device), mask.to(reasoner.device)
    rows, prompt = len(ids), encoded.embeddings.shape[1]
    embeddings = torch.cat([encoded.embeddings.expand(rows, -1, -1), reasoner.embed_tokens(ids)], dim=1)
    continued = encoded.next_position + torch.arange(ids.shape[1], device=ids.device)
    positions = torch.cat([encoded.positions.expand(-1, rows, -1), continued.expand(3, rows, -1)], dim=2)
    hidden = reasoner.language_model(
        inputs_embeds=embeddings, position_ids=positions, use_cache=False
    ).last_hidden_state
    predicting = hidden[:, prompt - 1 : -1][mask]  # (N, L, hidden) -> (trained tokens, hidden)
    chunk = chunk or len(predicting)
    parts = [
        _chosen(reasoner.lm_head(some), targets, temperature=temperature)
        for some, targets in zip(torch.split(predicting, chunk), torch.split(ids[mask], chunk), strict=True)
    ]
    chosen, entropy = (torch.cat(values) for values in zip(*parts, strict=True))
    blank = torch.zeros(mask.shape, dtype=torch.float32, device=ids.device)
    return TokenLogprobs(blank.masked_scatter(mask, chosen), blank.masked_scatter(mask, entropy), mask)


def concatenate(parts: Sequence[TokenLogprobs]) -> TokenLogprobs:
    """The completions of all parts in order, padded to the longest of them."""
    longest = max(part.mask.shape[1] for part in parts)

    def padded(name: str) -> Tensor:
        return torch.cat([F.pad(getattr(part, name), (0, longest - part.mask.shape[1])) for part in parts])

    return TokenLogprobs(padded("logprobs"), padded("entropy"), padded("mask"))


def pad_completions(
    rows: Sequence[Int64[Tensor, "_"]], *, pad_id: int
) -> tuple[Int64[Tensor, "rollouts tokens"], Bool[Tensor, "rollouts tokens"]]:
    """Stack completions of different lengths, and say which entries are theirs."""
    ids = pad_sequence(list(rows), batch_first=True, padding_value=pad_id)
    lengths = torch.tensor([len(row) for row in rows])
    return ids, torch.arange(ids.shape[1]) < lengths[:, None]


def _chosen(
    logits: Float[Tensor, "tokens vocab"], targets: Int64[Tensor, "tokens"], *, temperature: float
) -> tuple[Float32[Tensor, "tokens"], Float32[Tensor, "tokens"]]:
    """Log-probabilities of the targets, and entropies without gradient."""
    distribution = torch.log_softmax(logits.float() / temperature, dim=-1)
    with torch.no_grad():
        entropy = -(distribution.exp() * distribution).sum(dim=-1)
    return distribution.gather(-1, targets[:, None]).squeeze(-1), entropy
