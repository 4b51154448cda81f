"""Attention block by block, against one masked softmax over the whole row."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from grpo.prefix_attention import Block, Layout, Run, shared_prefix_attention


def layout_of(prompts: list[tuple[int, list[tuple[int, int]], int]]) -> Layout:
    """From per prompt its length, runs of (count, length), and rows before the runs that see the prompt alone."""
    blocks, prompt_end, tail = [], 0, 0
    for length, runs, alone in prompts:
        prompt = slice(prompt_end, prompt_end := prompt_end + length)
        start, tail = tail, tail + alone
        made = []
        for count, size in runs:
            made.append(Run(tail, count, size))
            tail += count * size
        blocks.append(Block(prompt, slice(start, tail), tuple(made)))
    return Layout(prompt_end, tuple(blocks))


def sees(layout: Layout, tail: int) -> torch.Tensor:
    """The picture in the module's docstring as a matrix: rows are queries, columns keys."""
    n = layout.prompt_tokens
    mask = torch.zeros(n + tail, n + tail, dtype=torch.bool)
    for block in layout.blocks:
        p, t = block.prompt, block.tail
        mask[p, p] = torch.ones(p.stop - p.start, p.stop - p.start).tril().bool()
        mask[n + t.start : n + t.stop, p] = True
        for run in block.runs:
            for number in range(run.count):
                own = slice(n + run.start + number * run.length, n + run.start + (number + 1) * run.length)
                mask[own, own] = torch.ones(run.length, run.length).tril().bool()
    return mask


def states(tokens: int, seed: int) -> list[torch.Tensor]:
    """Four heads of queries, two of keys and values, in float64."""
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(1, tokens, h, 4, generator=generator, dtype=torch.float64).transpose(1, 2).requires_grad_()
        for h in (4, 2, 2)
    ]


def masked(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    k, v = k.repeat_interleave(2, dim=1), v.repeat_interleave(2, dim=1)
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=0.4)


RUNS = st.lists(st.tuples(st.integers(1, 3), st.integers(1, 5)), max_size=3)


@settings(max_examples=40, deadline=None)
@given(
    prompts=st.lists(st.tuples(st.integers(1, 6), RUNS, st.just(0)), min_size=1, max_size=3),
    seed=st.integers(0, 999),
)
def test_blocks_make_up_the_masked_whole(prompts, seed):
    """Also where a prompt has nothing behind it at all."""
    layout = layout_of(prompts)
    tail = layout.blocks[-1].tail.stop
    q, k, v = states(layout.prompt_tokens + tail, seed)
    expected = masked(q, k, v, sees(layout, tail))
    found = shared_prefix_attention(layout, q, k, v, scale=0.4)
    torch.testing.assert_close(found, expected)
    grad = torch.randn(expected.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    for ours, theirs in zip(
        torch.autograd.grad(found, (q, k, v), grad), torch.autograd.grad(expected, (q, k, v), grad), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


@settings(max_examples=40, deadline=None)
@given(
    prompts=st.lists(st.tuples(st.integers(1, 6), RUNS, st.just(1)), min_size=1, max_size=3),
    seed=st.integers(0, 999),
)
def test_the_tail_alone(prompts, seed):
    """The form of the last layer: prompts give keys and values only, and some rows see nothing but their prompt."""
    layout = layout_of(prompts)
    n, tail = layout.prompt_tokens, layout.blocks[-1].tail.stop
    q, k, v = states(n + tail, seed)
    expected = masked(q[:, :, n:], k, v, sees(layout, tail)[n:])
    parts = [
        x.detach().clone().requires_grad_() for x in (q[:, :, n:], k[:, :, n:], v[:, :, n:], k[:, :, :n], v[:, :, :n])
    ]
    found = shared_prefix_attention(layout, *parts, scale=0.4)
    torch.testing.assert_close(found, expected)
    grad = torch.randn(expected.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    ours = torch.autograd.grad(found, parts, grad)
    dq, dk, dv = torch.autograd.grad(expected, (q, k, v), grad)
    for mine, theirs in zip(ours, (dq[:, :, n:], dk[:, :, n:], dv[:, :, n:], dk[:, :, :n], dv[:, :, :n]), strict=True):
        torch.testing.assert_close(mine, theirs)
