"""The clipped policy-gradient loss of GRPO and its relatives, as a weighted sum over completion tokens.

For token t of completion i, with advantage A_i and probability ratio ``r = p(token now) / p(token when sampled)``::

    loss_it = -min(r A_i, clip(r, 1 - epsilon, 1 + epsilon_high) A_i) + beta k3_it
    k3      = exp(q - p) - (q - p) - 1        with p, q the log-probabilities of policy and reference
    loss    = sum over i, t of weight_it loss_it

The loss types differ in nothing but the weights (`token_weights`). The weights are fixed by the size of the whole
update, not by the rows at hand, so an update may be cut into micro-batches of any size and their losses added up.

Differences from other code: k3 is added as it stands, not multiplied by the ratio; with masked truncated completions
"dapo" and "bnpo" divide by the tokens that are trained, "grpo" and "dr_grpo" still by all completions.

Reference:
    GRPO: DeepSeekMath, arXiv:2402.03300, equations 3 and 4. Clip-higher and token-level averaging: DAPO,
    arXiv:2503.14476, equation 8. Constant length: Dr. GRPO, arXiv:2503.20783, section 3.2. Ratio per sequence: GSPO,
    arXiv:2507.18071, equations 5 and 7.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from grpo.settings import GRPOSettings, LossType
from grpo.stats import LossStats


@dataclass(frozen=True)
class TokenBatch:
    """Completions of any number of prompts, right-padded to the same length.

    Attributes:
        logprobs: Natural log-probabilities of the sampled tokens now, with gradient.
        sampling_logprobs: The same when they were sampled.
        advantages: One per completion.
        mask: True where a token is trained; padding and left-out completions are False.
        reference_logprobs: The same under the reference policy; None when there is no KL penalty.
        entropy: Entropy of each token's distribution in nats; only reported. None reports 0.
    """

    logprobs: Float[Tensor, "rollouts tokens"]
    sampling_logprobs: Float[Tensor, "rollouts tokens"]
    advantages: Float[Tensor, "rollouts"]
    mask: Bool[Tensor, "rollouts tokens"]
    reference_logprobs: Float[Tensor, "rollouts tokens"] | None = None
    entropy: Float[Tensor, "rollouts tokens"] | None = None


@dataclass(frozen=True)
class UpdateSize:
    """How much one optimizer step sees; what its token weights are made of.

    Attributes:
        rollouts: Completions on this process, left-out ones included.
        tokens: Trained tokens on this process.
        tokens_per_process: Trained tokens on all processes, divided by their number.
        max_new_tokens: Longest possible completion in tokens.
    """

    rollouts: int
    tokens: float
    tokens_per_process: float
    max_new_tokens: int


@dataclass(frozen=True)
class LossOutput:
    """What a forward pass contributes to an update.

    Attributes:
        loss: To be back-propagated; the losses of all micro-batches of an update add up.
        stats: What to report, as sums that add up in the same way.
    """

    loss: Float[Tensor, ""]
    stats: LossStats


def policy_loss(batch: TokenBatch, settings: GRPOSettings, size: UpdateSize) -> LossOutput:
    """Loss of some completions of an update.

    Args:
        batch: The completions.
        settings: Loss type, clipping, importance level and beta.
        size: The whole update that they belong to.

    Returns:
        Loss and statistics; both 0 where no token is trained.

    Raises:
        ValueError: `settings.beta` is not 0 and the batch has no reference log-probabilities.
    """
    mask, advantages = batch.mask, batch.advantages[:, None]
    ratio = importance_ratio(batch, settings)  # (N, L), or (N, 1) for one per sequence
    clipped = ratio.clamp(1 - settings.epsilon, 1 + settings.clip_high)
    per_token = -torch.minimum(ratio * advantages, clipped * advantages).expand(mask.shape)
    kl = torch.zeros_like(batch.logprobs)
    if settings.beta:
        if batch.reference_logprobs is None:
            raise ValueError(f"beta is {settings.beta}, so reference_logprobs are needed; found None")
        kl = kl_k3(batch.logprobs, batch.reference_logprobs, mask)
        per_token = per_token + settings.beta * kl
    weights = token_weights(mask.to(per_token.dtype), settings.loss_type, size)
    loss = (per_token.masked_fill(~mask, 0.0) * weights).sum()
    entropy = torch.zeros_like(kl) if batch.entropy is None else batch.entropy
    with torch.no_grad():
        unit_mask = mask if ratio.shape == mask.shape else mask.any(dim=1, keepdim=True)
        stats = LossStats(
            loss=loss,
            tokens=mask.sum(),
            kl=kl[mask].sum(),
            entropy=entropy[mask].sum(),
            ratios=unit_mask.sum(),
            clipped_low=((ratio < 1 - settings.epsilon) & (advantages < 0) & unit_mask).sum(),
            clipped_high=((ratio > 1 + settings.clip_high) & (advantages > 0) & unit_mask).sum(),
        )
    return LossOutput(loss, stats.detach())


def importance_ratio(batch: TokenBatch, settings: GRPOSettings) -> Float[Tensor, "rollouts units"]:
    """How much more probable the completions are now than when they were sampled.

    Returns:
        Positive; exactly 1 where nothing is trained. (N, L) for ratios per token; (N, 1) for one per sequence, the
        geometric mean of its token ratios.
    """
    log_ratio = (batch.logprobs - batch.sampling_logprobs).masked_fill(~batch.mask, 0.0)
    if settings.importance_level == "sequence":
        log_ratio = log_ratio.sum(dim=1, keepdim=True) / batch.mask.sum(dim=1, keepdim=True).clamp(min=1)
    return log_ratio.exp()


def kl_k3(
    logprobs: Float[Tensor, "rollouts tokens"],
    reference_logprobs: Float[Tensor, "rollouts tokens"],
    mask: Bool[Tensor, "rollouts tokens"],
) -> Float[Tensor, "rollouts tokens"]:
    """Low-variance estimate of KL(policy || reference) at each sampled token.

    Unbiased where the tokens are drawn from the policy itself: not with `top_p` below 1, which never draws from the
    tail, nor from the second update of a rollout on.

    Returns:
        Nats, at least 0; 0 where both agree and where the mask is False.

    Reference:
        Schulman, "Approximating KL divergence", 2020, estimator k3; DeepSeekMath, arXiv:2402.03300, equation 4.
    """
    difference = (reference_logprobs - logprobs).masked_fill(~mask, 0.0)
    return difference.exp() - difference - 1


def token_weights(
    mask: Float[Tensor, "rollouts tokens"], loss_type: LossType, size: UpdateSize
) -> Float[Tensor, "rollouts tokens"]:
    """Share of each token in the loss of an update.

    With N completions of L_i trained tokens: "grpo" 1 / (N L_i), "bnpo" 1 / sum L_i on this process, "dapo" 1 / (sum
    L_i over all processes / processes), "dr_grpo" 1 / (N max_new_tokens). Averaging gradients over processes then
    gives the mean over all of them.

    Args:
        mask: 1 where a token is trained, else 0.
        loss_type: Which of the four.
        size: The whole update.

    Returns:
        Non-negative, 0 where the mask is 0. Without left-out completions the weights of an update sum to 1 for "grpo"
        and "bnpo", to 1 on average over processes for "dapo", and to at most 1 for "dr_grpo".
    """
    return mask * _WEIGHTS[loss_type](mask, size)


def _per_completion(mask: Float[Tensor, "rollouts tokens"], size: UpdateSize) -> Float[Tensor, "rollouts 1"]:
    return 1.0 / (size.rollouts * mask.sum(dim=1, keepdim=True).clamp(min=1))


def _per_local_token(_: Float[Tensor, "rollouts tokens"], size: UpdateSize) -> float:
    return 1.0 / max(size.tokens, 1.0)


def _per_token(_: Float[Tensor, "rollouts tokens"], size: UpdateSize) -> float:
    return 1.0 / max(size.tokens_per_process, 1.0)


def _per_possible_token(_: Float[Tensor, "rollouts tokens"], size: UpdateSize) -> float:
    return 1.0 / (size.rollouts * size.max_new_tokens)


_WEIGHTS: dict[LossType, Callable[[Tensor, UpdateSize], Tensor | float]] = {
    "grpo": _per_completion,
    "bnpo": _per_local_token,
    "dapo": _per_token,
    "dr_grpo": _per_possible_token,
}
