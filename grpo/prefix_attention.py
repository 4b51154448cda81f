"""Attention over a row in which several completions share a prompt.

A row holds the prompts first and what follows them behind (`grpo.packing`). For one prompt with three completions::

                      keys
                      prompt     c1   c2   c3
            prompt  | causal   |
    queries c1      | all      | ◣  |
            c2      | all      |    | ◣  |
            c3      | all      |         | ◣  |

Three kinds of blocks, and not one of them needs a mask: the prompt looks back at itself, everything behind it looks at
the whole prompt, and every completion looks back at itself. Completion tokens see two blocks, whose results are merged
by their log-sum-exps (`grpo.attention_kernels`). The empty parts of the picture are never computed, neither forward nor
backward, and a completion needs no padding to the length of its neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from grpo.attention_kernels import attend, attend_backward, merged

States = Float[Tensor, "1 heads tokens width"]


@dataclass(frozen=True)
class Run:
    """Neighbouring completions of the same length, which one call of a kernel can take.

    Attributes:
        start: First row in the tail.
        count: How many completions.
        length: Tokens of each; at least 1.
    """

    start: int
    count: int
    length: int

    def of(self, rows: Float[Tensor, "1 heads tokens *width"]) -> Float[Tensor, "count heads length *width"]:
        """A view of these completions, one per entry of the batch."""
        mine = rows[0, :, self.start : self.start + self.count * self.length]
        return torch.unflatten(mine, 1, (self.count, self.length)).transpose(0, 1)


@dataclass(frozen=True)
class Block:
    """One prompt and what follows it.

    Attributes:
        prompt: Its rows among the prompts.
        tail: The rows behind the prompts that see it.
        runs: Completions among these; rows in no run see nothing but the prompt.
    """

    prompt: slice
    tail: slice
    runs: tuple[Run, ...]


@dataclass(frozen=True)
class Layout:
    """Who sees whom.

    Attributes:
        prompt_tokens: Rows of all prompts together; the tail begins behind them.
        blocks: One per prompt, in order; together they cover every row.
    """

    prompt_tokens: int
    blocks: tuple[Block, ...]


def shared_prefix_attention(layout: Layout, q: States, k: States, v: States, *prompt: States, scale: float) -> States:
    """Attention output of a row, with gradient.

    Args:
        layout: Who sees whom.
        q: Queries of the whole row.
        k: Keys of the whole row; there may be fewer heads of keys than of queries.
        v: Values of the whole row.
        *prompt: Keys and values of the prompts. When they are given, the row is the tail alone, and nothing is
            computed for the prompts' own queries.
        scale: Multiplies the scores.

    Returns:
        In the shape of the queries.
    """
    out: Tensor = _SharedPrefixAttention.apply(layout, scale, q, k, v, *prompt)
    return out


class _Parts:
    """Views of a row's prompts and of its tail."""

    def __init__(self, layout: Layout, q: States, k: States, v: States, *prompt: States) -> None:
        start = 0 if prompt else layout.prompt_tokens
        self.q, self.k, self.v = (x[:, :, start:] for x in (q, k, v))
        self.prompt_q = None if prompt else q[:, :, :start]
        self.prompt_k, self.prompt_v = prompt or (x[:, :, :start] for x in (k, v))


class _SharedPrefixAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, layout: Layout, scale: float, *states: Tensor) -> Tensor:
        rows, out = _Parts(layout, *states), torch.empty_like(states[0])
        lse = torch.empty(out.shape[:-1], dtype=torch.promote_types(out.dtype, torch.float32), device=out.device)
        start = out.shape[2] - rows.q.shape[2]
        tail_out, tail_lse = out[:, :, start:], lse[:, :, start:]
        for block in layout.blocks:
            p, t = block.prompt, block.tail
            prompt = rows.prompt_k[:, :, p], rows.prompt_v[:, :, p]
            if rows.prompt_q is not None:
                out[:, :, p], lse[:, :, p] = attend(rows.prompt_q[:, :, p], *prompt, causal=True, scale=scale)
            if t.stop > t.start:
                tail_out[:, :, t], tail_lse[:, :, t] = attend(rows.q[:, :, t], *prompt, causal=False, scale=scale)
            for run in block.runs:
                near = attend(run.of(rows.q), run.of(rows.k), run.of(rows.v), causal=True, scale=scale)
                mine_out, mine_lse = run.of(tail_out), run.of(tail_lse)
                mine_out[...] = merged(mine_out, mine_lse, *near)
                mine_lse[...] = torch.logaddexp(mine_lse, near[1])
        ctx.layout, ctx.scale = layout, scale  # type: ignore[attr-defined]
        ctx.save_for_backward(*states, out, lse)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401 (a context with our attributes)
        *states, out, lse = ctx.saved_tensors
        layout, scale, gradients = ctx.layout, ctx.scale, [torch.empty_like(state) for state in states]
        rows, wanted = _Parts(layout, *states), _Parts(layout, *gradients)
        start = out.shape[2] - rows.q.shape[2]
        tail = [x[:, :, start:] for x in (grad, out, lse)]
        for block in layout.blocks:
            p, t = block.prompt, block.tail
            prompt = rows.prompt_k[:, :, p], rows.prompt_v[:, :, p]
            dk, dv = wanted.prompt_k[:, :, p].zero_(), wanted.prompt_v[:, :, p].zero_()
            if rows.prompt_q is not None and wanted.prompt_q is not None:
                above, *own = (x[:, :, p] for x in (grad, out, lse))
                back = attend_backward(above, rows.prompt_q[:, :, p], *prompt, *own, causal=True, scale=scale)
                _add(wanted.prompt_q[:, :, p].zero_(), dk, dv, back)
            if t.stop > t.start:
                above, *merged = (x[:, :, t] for x in tail)
                back = attend_backward(above, rows.q[:, :, t], *prompt, *merged, causal=False, scale=scale)
                _add(wanted.q[:, :, t].zero_(), dk, dv, back)
            # Rows outside every run are seen by nobody in the tail.
            wanted.k[:, :, t].zero_(), wanted.v[:, :, t].zero_()
            for run in block.runs:
                above, *merged = (run.of(x) for x in tail)
                q, k, v = (run.of(x) for x in (rows.q, rows.k, rows.v))
                back = attend_backward(above, q, k, v, *merged, causal=True, scale=scale)
                _add(run.of(wanted.q), run.of(wanted.k), run.of(wanted.v), back)
        return None, None, *gradients


def _add(dq: Tensor, dk: Tensor, dv: Tensor, back: tuple[Tensor, Tensor, Tensor]) -> None:
    for total, part in zip((dq, dk, dv), back, strict=True):
        total += part
