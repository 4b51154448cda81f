"""Attention with its log-sum-exp, against a softmax over the whole matrix of scores."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode

from grpo import attention_kernels
from grpo.attention_kernels import attend, attend_backward, merged

BACKENDS = {
    "kernel": (attend, attend_backward),
    "products": (attention_kernels._attend_by_products, attention_kernels._backward_by_products),
}


def states(batch: int, heads: int, key_heads: int, queries: int, keys: int, seed: int = 0) -> list[torch.Tensor]:
    """Queries, keys and values in the memory order that projections leave them in."""
    generator = torch.Generator().manual_seed(seed)
    sizes = ((queries, heads), (keys, key_heads), (keys, key_heads))
    return [torch.randn(batch, n, h, 8, generator=generator).transpose(1, 2).requires_grad_() for n, h in sizes]


def whole(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, causal: bool) -> tuple[torch.Tensor, torch.Tensor]:
    share = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(share, dim=1), v.repeat_interleave(share, dim=1)
    scores = q @ k.mT * 0.3
    if causal:
        scores = scores.masked_fill(torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1), float("-inf"))
    return scores.softmax(dim=-1) @ v, scores.logsumexp(dim=-1)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("batch", "heads", "key_heads"), [(1, 2, 2), (1, 6, 2), (3, 4, 2)])
def test_output_and_gradients(monkeypatch, backend, causal, batch, heads, key_heads):
    """With all heads, with heads that share keys, and with several rows; scores in chunks of four queries."""
    monkeypatch.setattr(attention_kernels, "QUERY_CHUNK", 4)
    forward, backward = BACKENDS[backend]
    q, k, v = states(batch, heads, key_heads, 9, 9 if causal else 13)
    expected, expected_lse = whole(q, k, v, causal=causal)
    grad = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1))
    gradients = torch.autograd.grad(expected, (q, k, v), grad)
    with torch.no_grad():
        out, lse = forward(q, k, v, causal=causal, scale=0.3)
        torch.testing.assert_close(out, expected)
        torch.testing.assert_close(lse, expected_lse)
        for found, gradient in zip(backward(grad, q, k, v, out, lse, causal=causal, scale=0.3), gradients, strict=True):
            torch.testing.assert_close(found, gradient)


@given(first=st.integers(1, 6), second=st.integers(1, 6), seed=st.integers(0, 99))
def test_two_sets_of_keys_merge_to_one(first, second, seed):
    q, k, v = (x.detach() for x in states(2, 4, 2, 3, first + second, seed))
    far, near = (attend(q, k[:, :, s], v[:, :, s], causal=False, scale=0.3) for s in (slice(first), slice(first, None)))
    expected, expected_lse = whole(q, k, v, causal=False)
    torch.testing.assert_close(merged(*far, *near), expected)
    torch.testing.assert_close(torch.logaddexp(far[1], near[1]), expected_lse)


def test_half_precision_sums_in_float32():
    q, k, v = (x.detach() for x in states(1, 4, 2, 5, 7))
    out, lse = attend(q.bfloat16(), k.bfloat16(), v.bfloat16(), causal=False, scale=0.3)
    expected, expected_lse = whole(q, k, v, causal=False)
    assert (out.dtype, lse.dtype) == (torch.bfloat16, torch.float32)
    torch.testing.assert_close(out.float(), expected, atol=0.03, rtol=0)
    torch.testing.assert_close(lse, expected_lse, atol=0.03, rtol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_the_calls_on_a_cuda_device_have_the_right_form(dtype):
    """Shapes of the released 7B model: 28 heads that share 4, of size 128. Nothing is computed."""
    with FakeTensorMode():
        q = torch.empty(1, 28, 5, 128, device="cuda", dtype=dtype)
        k = torch.empty(1, 4, 9, 128, device="cuda", dtype=dtype)
        out, lse = attend(q, k, k, causal=False, scale=0.1)
        gradients = attend_backward(out, q, k, k, out, lse, causal=False, scale=0.1)
    assert (out.shape, out.dtype, lse.shape, lse.dtype) == (q.shape, dtype, q.shape[:-1], torch.float32)
    assert [gradient.shape for gradient in gradients] == [q.shape, k.shape, k.shape]


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("causal", [True, False])
def test_cuda_agrees_with_the_whole_matrix(dtype, causal):
    q, k, v = (x.detach().to("cuda", dtype).requires_grad_() for x in states(2, 6, 2, 33, 33))
    expected, expected_lse = whole(q.float(), k.float(), v.float(), causal=causal)
    grad = torch.randn_like(expected)
    gradients = torch.autograd.grad(expected, (q, k, v), grad)
    tolerance = {"atol": 0.05, "rtol": 0.05} if dtype == torch.bfloat16 else {"atol": 1e-4, "rtol": 1e-4}
    with torch.no_grad():
        out, lse = attend(q, k, v, causal=causal, scale=0.3)
        found = attend_backward(grad.to(dtype), q, k, v, out, lse, causal=causal, scale=0.3)
    torch.testing.assert_close(out.float(), expected, **tolerance)
    torch.testing.assert_close(lse, expected_lse, **tolerance)
    for ours, theirs in zip(found, gradients, strict=True):
        torch.testing.assert_close(ours, theirs, **tolerance)
