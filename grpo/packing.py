"""Score completions in one row in which every prompt stands once.

All completions of a prompt begin with the same thousands of tokens of sound and frames. Instead of one full row per
completion, a row holds each prompt once and all completions behind it, without any padding::

    plain     [ prompt a | a1    ]          packed   [ prompt a | prompt b | a1 a2 a3 | b1 b2 ]
              [ prompt a | a2 .. ]                     0 ....... 0 ........ 9   9  9    7  7      <- positions
              [ prompt a | a3 ...]
              [ prompt b | b1 .  ]          G (P + C) tokens become P + G C, and the layers of
              [ prompt b | b2    ]          the model see one long row instead of many short ones.

A completion attends to its own prompt and to itself (`grpo.prefix_attention`), and its M-RoPE positions begin where its
prompt ends, whatever stands between them in the row. So every token sees exactly what it sees in the plain form, and
log-probabilities and gradients are the same up to rounding.

The last token of a completion is not in the row at all: it predicts nothing. Completions are ordered by length, so that
those of the same length go through attention together. The output head runs at the tokens that predict one, in chunks
(`grpo.chunked`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from grpo.chunked import chosen_logprobs
from grpo.engine import ScoreRequest
from grpo.logprobs import TokenLogprobs, pad_completions
from grpo.packed_layers import packed_states
from grpo.prefix_attention import Block, Layout, Run
from models.reasoner import Reasoner


@dataclass(frozen=True)
class PackedRow:
    """Prompts and their completions as one row.

    Attributes:
        embeddings: What the language model reads.
        positions: M-RoPE positions.
        layout: Who sees whom.
        kept: Tokens whose last hidden state is of use: of each prompt the last token, then its completions.
        kept_layout: Who sees whom when these are the tail.
        predicting: For every completion token, in the order given, the kept token that predicts it.
    """

    embeddings: Float[Tensor, "1 tokens hidden"]
    positions: Int64[Tensor, "3 1 tokens"]
    layout: Layout
    kept: Int64[Tensor, "kept"]
    kept_layout: Layout
    predicting: Int64[Tensor, "targets"]


def packed_logprobs(reasoner: Reasoner, requests: Sequence[ScoreRequest], *, temperature: float) -> TokenLogprobs:
    """Score completions of any number of prompts under the current weights; see `grpo.logprobs.token_logprobs`.

    Args:
        reasoner: The policy; inside `Reasoner.reference` the reference.
        requests: Completions of any number of prompts, of any lengths, on any device.
        temperature: Divides the logits.

    Returns:
        Completions prompt by prompt, in the order given.
    """
    rows = [ids.to(reasoner.device) for request in requests for ids in request.completion_ids]
    targets, mask = torch.cat(rows), pad_completions(rows, pad_id=reasoner.pad_id)[1].to(reasoner.device)
    row = pack(reasoner, requests)
    states = packed_states(
        reasoner.language_model,
        row.embeddings,
        row.positions,
        layout=row.layout,
        kept=row.kept,
        kept_layout=row.kept_layout,
    )
    logprobs, entropy = chosen_logprobs(
        states.index_select(0, row.predicting), reasoner.lm_head.weight, targets, temperature=temperature
    )
    blank = torch.zeros(mask.shape, dtype=torch.float32, device=reasoner.device)
    return TokenLogprobs(blank.masked_scatter(mask, logprobs), blank.masked_scatter(mask, entropy), mask)


def pack(reasoner: Reasoner, requests: Sequence[ScoreRequest]) -> PackedRow:
    """Lay out prompts and completions in one row.

    Args:
        reasoner: Gives the embeddings of the completions.
        requests: The completions of each prompt.
    """
    device, prompts = reasoner.device, [request.encoded for request in requests]
    prompt_tokens = sum(prompt.embeddings.shape[1] for prompt in prompts)
    ids: list[Tensor] = []
    positions = [prompt.positions for prompt in prompts]
    blocks, kept_blocks, kept, predicting = [], [], [], []
    prompt_end = tail = kept_count = 0
    for request in requests:
        encoded, completions = request.encoded, request.completion_ids
        prompt = slice(prompt_end, prompt_end := prompt_end + encoded.embeddings.shape[1])
        lengths = [len(completion) - 1 for completion in completions]
        order = sorted(range(len(lengths)), key=lengths.__getitem__)
        ids += [completions[index][:-1].to(device) for index in order]
        counting = torch.cat([torch.arange(lengths[index]) for index in order]) + encoded.next_position
        positions.append(counting.to(device).expand(3, 1, -1))
        end = tail + sum(lengths)
        blocks.append(Block(prompt, slice(tail, end), _runs(tail, lengths)))
        kept_blocks.append(
            Block(prompt, slice(kept_count, kept_count + 1 + sum(lengths)), _runs(kept_count + 1, lengths))
        )
        kept += [torch.tensor([prompt_end - 1]), torch.arange(tail, end) + prompt_tokens]
        predicting += _predicting(kept_count, lengths, order)
        tail, kept_count = end, kept_count + 1 + sum(lengths)
    return PackedRow(
        torch.cat([*(prompt.embeddings for prompt in prompts), reasoner.embed_tokens(torch.cat(ids))[None]], dim=1),
        torch.cat(positions, dim=2),
        Layout(prompt_tokens, tuple(blocks)),
        torch.cat(kept).to(device),
        Layout(prompt_tokens, tuple(kept_blocks)),
        torch.cat(predicting).to(device),
    )


def _runs(start: int, lengths: Sequence[int]) -> tuple[Run, ...]:
    """Completions of the same length as one run each, from a first row on; those without rows are left out."""
    runs = []
    for length, same in groupby(sorted(lengths)):
        count = len(list(same))
        if length:
            runs.append(Run(start, count, length))
        start += count * length
    return tuple(runs)


def _predicting(first: int, lengths: Sequence[int], order: Sequence[int]) -> list[Int64[Tensor, "_"]]:
    """Per completion in the order given, the kept tokens that predict its own: the prompt's last one, then its rows."""
    starts, start = [0] * len(lengths), first + 1
    for index in order:
        starts[index], start = start, start + lengths[index]
    return [
        torch.cat([torch.tensor([first]), torch.arange(start, start + length)])
        for start, length in zip(starts, lengths, strict=True)
    ]
