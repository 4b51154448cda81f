"""Attention that also says how much weight it saw, so that its results can be merged with those over other keys.

Softmax attention over two sets of keys is a weighted mean of the attention over each, and the weights follow from the
two log-sum-exps of the scores. The backward pass splits the same way: given the merged output and the merged
log-sum-exp, each set of keys gets its gradients on its own. No mask and no matrix of scores is ever needed.

The kernels are those of `torch.nn.functional.scaled_dot_product_attention`, called directly because that function keeps
the log-sum-exp to itself. Where they do not apply, a few lines of matrix products over chunks of queries step in.

Reference:
    Dao et al., FlashAttention, arXiv:2205.14135, algorithm 4 (backward from output and log-sum-exp); Liu et al., Ring
    attention, arXiv:2310.01889 (the same over several blocks of keys).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

QUERY_CHUNK = 512
"""Queries whose scores exist at the same time where no fused kernel applies."""

Queries = Float[Tensor, "batch heads queries width"]
Keys = Float[Tensor, "batch key_heads keys width"]
Sums = Float[Tensor, "batch heads queries"]


def attend(q: Queries, k: Keys, v: Keys, *, causal: bool, scale: float) -> tuple[Queries, Sums]:
    """Softmax attention without dropout and without mask.

    Args:
        q: Queries; their number of heads is a multiple of that of the keys. All inputs have the same type.
        k: Keys; at least one.
        v: Values.
        causal: Query i sees the keys 0..i; there must be as many keys as queries. False: everything.
        scale: Multiplies the scores.

    Returns:
        Attention output, and the log-sum-exp of the scores in nats, float32 or better.
    """
    if q.device.type == "cpu":
        q_, k_, v_ = _split_heads(q, k, v)
        out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q_, k_, v_, 0.0, causal, scale=scale)
        return out.reshape(q.shape), lse.reshape(q.shape[:-1])
    if _has_cuda_kernel(q):
        out, lse, *_ = torch.ops.aten._scaled_dot_product_flash_attention(q, k, v, 0.0, causal, False, scale=scale)
        return out, lse
    return _attend_by_products(q, k, v, causal=causal, scale=scale)


def attend_backward(
    grad: Queries, q: Queries, k: Keys, v: Keys, out: Queries, lse: Sums, *, causal: bool, scale: float
) -> tuple[Queries, Keys, Keys]:
    """Gradients of one set of keys' share of an attention.

    Args:
        grad: Gradient of the merged output.
        q: Queries as in `attend`.
        k: This set's keys.
        v: This set's values.
        out: The merged output over all sets of keys.
        lse: The merged log-sum-exp over all sets of keys.
        causal: As in `attend`.
        scale: As in `attend`.

    Returns:
        This set's share of the gradient of the queries, and the gradients of its keys and values.
    """
    if q.device.type == "cpu":
        q_, k_, v_ = _split_heads(q, k, v)
        dq, dk, dv = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
            grad.reshape(q_.shape), q_, k_, v_, out.reshape(q_.shape), lse.reshape(q_.shape[:-1]), 0.0, causal,
            scale=scale,
        )  # fmt: skip
        return dq.reshape(q.shape), _sum_shared(dk, k), _sum_shared(dv, v)
    if _has_cuda_kernel(q):
        unused = torch.empty(2, dtype=torch.uint64, device=q.device)  # the random state of dropout
        lse = lse.contiguous()  # this kernel, unlike the others, does not ask for its strides
        gradients: tuple[Tensor, Tensor, Tensor] = torch.ops.aten._scaled_dot_product_flash_attention_backward(
            grad, q, k, v, out, lse, None, None, q.shape[2], k.shape[2], 0.0, causal, unused, unused, scale=scale
        )
        return gradients
    return _backward_by_products(grad, q, k, v, out, lse, causal=causal, scale=scale)


def merged(out: Queries, lse: Sums, other_out: Queries, other_lse: Sums) -> Queries:
    """Attention over two sets of keys from that over each; the merged log-sum-exp is their `logaddexp`."""
    share = torch.sigmoid(lse - other_lse).unsqueeze(-1)
    return torch.lerp(other_out.to(share.dtype), out.to(share.dtype), share).to(out.dtype)


def _has_cuda_kernel(q: Queries) -> bool:
    is_half = q.dtype in (torch.bfloat16, torch.float16)
    return q.device.type == "cuda" and is_half and q.shape[-1] % 8 == 0 and q.shape[-1] <= 256


def _split_heads(q: Queries, k: Keys, v: Keys) -> tuple[Tensor, Tensor, Tensor]:
    """The same attention with as many key heads as query heads, without copying where that can be.

    With a batch of one the key heads become the batch, over which every key head is shared by stride 0.
    """
    heads, key_heads = q.shape[1], k.shape[1]
    if heads == key_heads:
        return q, k, v
    if len(q) == 1:
        split = torch.unflatten(q[0], 0, (key_heads, heads // key_heads))
        k, v = (x.transpose(0, 1).expand(-1, heads // key_heads, -1, -1) for x in (k, v))
        return split, k, v
    return q, k.repeat_interleave(heads // key_heads, dim=1), v.repeat_interleave(heads // key_heads, dim=1)


def _sum_shared(gradient: Tensor, k: Keys) -> Keys:
    """Add up the gradients of the query heads that share a key head."""
    batch, key_heads, keys, width = k.shape
    if gradient.shape == k.shape:
        return gradient
    return gradient.reshape(batch, key_heads, -1, keys, width).sum(dim=2)


def _scores(q: Tensor, k: Tensor, *, start: int, causal: bool, scale: float) -> Tensor:
    """Scores of some queries, the first of which is number `start`."""
    scores = (q.float() @ k.float().mT) * scale
    if causal:
        future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu(start + 1)
        scores = scores.masked_fill_(future, float("-inf"))
    return scores


def _attend_by_products(q: Queries, k: Keys, v: Keys, *, causal: bool, scale: float) -> tuple[Queries, Sums]:
    share = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(share, dim=1), v.repeat_interleave(share, dim=1)
    out, lse = torch.empty_like(q), torch.empty(q.shape[:-1], dtype=torch.float32, device=q.device)
    for start in range(0, q.shape[2], QUERY_CHUNK):
        rows = slice(start, start + QUERY_CHUNK)
        scores = _scores(q[:, :, rows], k, start=start, causal=causal, scale=scale)
        lse[:, :, rows] = scores.logsumexp(dim=-1)
        out[:, :, rows] = ((scores - lse[:, :, rows, None]).exp() @ v.float()).to(q.dtype)
    return out, lse


def _backward_by_products(
    grad: Queries, q: Queries, k: Keys, v: Keys, out: Queries, lse: Sums, *, causal: bool, scale: float
) -> tuple[Queries, Keys, Keys]:
    share = q.shape[1] // k.shape[1]
    all_k, all_v = (x.repeat_interleave(share, dim=1).float() for x in (k, v))
    dq, dk, dv = torch.empty_like(q), torch.zeros_like(all_k), torch.zeros_like(all_v)
    for start in range(0, q.shape[2], QUERY_CHUNK):
        rows = slice(start, start + QUERY_CHUNK)
        some_q, some_grad = q[:, :, rows].float(), grad[:, :, rows].float()
        weights = (_scores(some_q, all_k, start=start, causal=causal, scale=scale) - lse[:, :, rows, None]).exp()
        dv += weights.mT @ some_grad
        spread = (some_grad * out[:, :, rows].float()).sum(dim=-1, keepdim=True)
        d_scores = weights * (some_grad @ all_v.mT - spread) * scale
        dq[:, :, rows] = (d_scores @ all_k).to(q.dtype)
        dk += d_scores.mT @ some_q
    return dq, _sum_shared(dk, k).to(k.dtype), _sum_shared(dv, v).to(v.dtype)
