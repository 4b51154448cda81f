"""Log-probability of one token per hidden state, without ever holding logits for all of them.

With a vocabulary of 150 000 the logits of a few thousand tokens are gigabytes, and autograd keeps several copies. Here
they exist for a chunk of tokens at a time. The log-probability of a token depends on its own hidden state alone::

    d log p(y) / dh = (onehot(y) - p) W / T

so the forward pass, which has p at hand, multiplies it with the head's weight at once and keeps one vector of the
hidden size per token. The backward pass scales these vectors: no logits are computed a second time.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK_ELEMENTS = 2**25
"""Most logits of a chunk: some 200 tokens of the released vocabulary.

In float32 that is 128 MiB, twice, for scores and probabilities; with the product in the weights' own type and what is
made of the probabilities in it, about three times 128 MiB at the peak.
"""


def chosen_logprobs(
    hidden: Float[Tensor, "tokens hidden"],
    weight: Float[Tensor, "vocab hidden"],
    targets: Int64[Tensor, "tokens"],
    *,
    temperature: float,
    chunk: int | None = None,
) -> tuple[Float32[Tensor, "tokens"], Float32[Tensor, "tokens"]]:
    """Log-probabilities of given tokens, and the entropy of the distributions that they are taken from.

    Args:
        hidden: Last hidden states, each of which predicts a token.
        weight: Of the output head, which has no bias and is frozen.
        targets: The tokens.
        temperature: Divides the logits.
        chunk: Tokens whose logits exist at the same time; None takes `CHUNK_ELEMENTS` logits.

    Returns:
        Natural log-probabilities, with gradient to the hidden states; entropies in nats, without gradient. No tokens
        give empty tensors.

    Raises:
        ValueError: The head is trained; its gradient is not computed here.
    """
    if weight.requires_grad:
        raise ValueError("expected a frozen output head, found one that requires a gradient")
    kind = hidden.device.type
    if torch.is_autocast_enabled(kind):
        hidden, weight = (x.to(torch.get_autocast_dtype(kind)) for x in (hidden, weight))
    chunk = chunk or max(1, CHUNK_ELEMENTS // len(weight))
    with torch.autocast(kind, enabled=False):
        logprobs, entropy = _ChosenLogprobs.apply(hidden, weight, targets, 1 / temperature, chunk)
    return logprobs, entropy


class _ChosenLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 (a context with our attributes)
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        sharpness: float,
        chunk: int,
    ) -> tuple[Tensor, Tensor]:
        logprobs, entropy = (torch.empty(len(hidden), dtype=torch.float32, device=hidden.device) for _ in range(2))
        slopes = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        for start in range(0, len(hidden), chunk):
            some = slice(start, start + chunk)
            scores = (hidden[some] @ weight.T).float().mul_(sharpness)  # (chunk, vocab)
            scores -= scores.logsumexp(dim=-1, keepdim=True)
            chosen = targets[some, None]
            logprobs[some] = scores.gather(-1, chosen).squeeze(-1)
            probabilities = scores.exp()
            entropy[some] = -torch.linalg.vecdot(probabilities, scores)
            if slopes is not None:
                probabilities.scatter_add_(-1, chosen, torch.full_like(probabilities[:, :1], -1.0))
                slopes[some] = probabilities.mul_(-sharpness).to(hidden.dtype) @ weight
        ctx.mark_non_differentiable(entropy)
        if slopes is not None:
            ctx.save_for_backward(slopes)
        return logprobs, entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401 (a context with our attributes)
        (slopes,) = ctx.saved_tensors
        return (slopes * grad[:, None]).to(slopes.dtype), None, None, None, None
