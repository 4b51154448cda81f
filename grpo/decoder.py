"""Prompts and the rows that continue them, one token at a time.

The keys and values of a prompt exist once, however many completions it gets. Every completion has a small cache of its
own, in memory that is reserved ahead and grows by doubling. A row's attention is that over its prompt, computed for all
rows of the prompt in one product, merged with that over its own tokens (`grpo.attention_kernels`)::

    keys and values of the prompt      P     read once for all rows        \\
                                                                             merged by log-sum-exp
    keys and values of a row's tokens  t     one small cache per row       /
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from grpo.attention_kernels import attend
from grpo.packed_layers import rotate
from grpo.prefix_attention import merge_
from grpo.rollout_weights import RolloutLayer, RolloutWeights
from models.processing import EncodedPrompt

FIRST_CAPACITY = 64
"""Tokens that a row's cache has room for at first."""


class Decoder(ABC):
    """Rows that are being written, in the order in which they were admitted."""

    @abstractmethod
    def admit(self, encoded: EncodedPrompt, rows: int) -> Float[Tensor, "1 vocab"]:
        """Read a prompt and add rows behind the others; the logits of their first token."""

    @abstractmethod
    def keep(self, rows: Bool[Tensor, "rows"]) -> None:
        """Drop all other rows."""

    @abstractmethod
    def step(self, tokens: Int64[Tensor, "rows"]) -> Float[Tensor, "rows vocab"]:
        """Append one token to every row; the logits of the next."""


@dataclass
class Group:
    """One prompt and the rows that are still written.

    Attributes:
        prompt: Keys and values of each layer, (key heads, 1, prompt, width).
        own: Keys and values of the rows' tokens, (layers, 2, rows, key heads, capacity, width).
        rows: How many rows.
        written: Tokens of each so far.
        next_position: M-RoPE position of the first of them.
    """

    prompt: list[tuple[Tensor, Tensor]]
    own: Float[Tensor, "layers 2 rows key_heads capacity width"]
    rows: int
    written: int
    next_position: int


class ExactDecoder(Decoder):
    """Computes what is needed and nothing else: every prompt in its own length, finished rows dropped."""

    def __init__(self, weights: RolloutWeights, *, max_new_tokens: int) -> None:
        """Start without rows.

        Args:
            weights: The policy.
            max_new_tokens: Longest completion.
        """
        self.weights = weights
        self.capacity = min(FIRST_CAPACITY, max_new_tokens)
        self.groups: list[Group] = []

    def admit(self, encoded: EncodedPrompt, rows: int) -> Float[Tensor, "1 vocab"]:
        """See `Decoder`."""
        prompt, logits = prefill(self.weights, encoded)
        keys = prompt[0][0]
        own = keys.new_empty(len(prompt), 2, rows, len(keys), self.capacity, keys.shape[-1])
        self.groups.append(Group(prompt, own, rows, 0, encoded.next_position))
        return logits

    def keep(self, rows: Bool[Tensor, "rows"]) -> None:
        """See `Decoder`."""
        for group, mine in zip(self.groups, rows.split([group.rows for group in self.groups]), strict=True):
            group.rows = int(mine.sum())
            if group.rows < len(mine):
                group.own = group.own[:, :, mine]
        self.groups = [group for group in self.groups if group.rows]

    def step(self, tokens: Int64[Tensor, "rows"]) -> Float[Tensor, "rows vocab"]:
        """See `Decoder`."""
        counted = [group.next_position + group.written for group in self.groups for _ in range(group.rows)]
        cos, sin = self.weights.cos_sin(torch.tensor(counted, device=tokens.device).expand(3, 1, -1))
        for group in self.groups:
            _make_room(group)
        hidden = self.weights.embedding(tokens)
        for index, layer in enumerate(self.weights.layers):
            q, k, v = _heads(self.weights, layer.qkv(layer.before_attention(hidden)), cos, sin)
            hidden = layer.after_attention(hidden, self._attend(index, q, k, v).flatten(1))
        for group in self.groups:
            group.written += 1
        return self.weights.logits(hidden)

    def _attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Float[Tensor, "rows heads width"]:
        outputs, start = [], 0
        for group in self.groups:
            rows, start = slice(start, start + group.rows), start + group.rows
            outputs.append(_attend_group(group, layer, q[rows], k[rows], v[rows], self.weights.scale))
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


def prefill(
    weights: RolloutWeights, encoded: EncodedPrompt
) -> tuple[list[tuple[Tensor, Tensor]], Float[Tensor, "1 vocab"]]:
    """Read a prompt.

    In the last layer everything but the last token is done with once its keys and values are there.

    Returns:
        Keys and values of each layer, both (key heads, 1, prompt, width), and the logits of the first completion token.
    """
    cos, sin = weights.cos_sin(encoded.positions)
    hidden, cache = encoded.embeddings[0], []
    for layer in weights.layers[:-1]:
        q, k, v = _heads(weights, layer.qkv(layer.before_attention(hidden)), cos, sin)
        cache.append((_by_head(k), _by_head(v)))
        hidden = layer.after_attention(hidden, _attend_prompt(weights, q, k, v, causal=True))
    last = weights.layers[-1]
    k, v = _last_keys(weights, last, hidden, cos, sin)
    cache.append((_by_head(k), _by_head(v)))
    q, _, _ = _heads(weights, last.qkv(last.before_attention(hidden[-1:])), cos[-1:], sin[-1:])
    hidden = last.after_attention(hidden[-1:], _attend_prompt(weights, q, k, v, causal=False))
    return cache, weights.logits(hidden)


def _last_keys(
    weights: RolloutWeights, layer: RolloutLayer, hidden: Tensor, cos: Tensor, sin: Tensor
) -> tuple[Tensor, Tensor]:
    k, v = layer.kv(layer.before_attention(hidden)).unflatten(-1, (-1, weights.width)).chunk(2, dim=1)
    return rotate(k, cos, sin), v


def _heads(
    weights: RolloutWeights, qkv: Float[Tensor, "rows heads"], cos: Tensor, sin: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Rotated queries, rotated keys and values, (rows, heads, width)."""
    heads = qkv.unflatten(-1, (-1, weights.width))
    turning = weights.heads + weights.key_heads
    turned = rotate(heads[:, :turning], cos, sin)
    return turned[:, : weights.heads], turned[:, weights.heads :], heads[:, turning:]


def _by_head(x: Float[Tensor, "prompt key_heads width"]) -> Float[Tensor, "key_heads 1 prompt width"]:
    return x.transpose(0, 1).contiguous()[:, None]


def _attend_prompt(
    weights: RolloutWeights, q: Tensor, k: Tensor, v: Tensor, *, causal: bool
) -> Float[Tensor, "rows heads"]:
    states = (x.transpose(0, 1)[None].to(v.dtype) for x in (q, k, v))
    out, _ = attend(*states, causal=causal, scale=weights.scale)
    return out[0].transpose(0, 1).flatten(1)


def _attend_group(
    group: Group, layer: int, q: Tensor, k: Tensor, v: Tensor, scale: float
) -> Float[Tensor, "rows heads width"]:
    """Attention of a group's new tokens; their keys and values are added to the cache."""
    keys, values = group.own[layer]
    keys[:, :, group.written], values[:, :, group.written] = k, v
    (rows, heads, width), key_heads = q.shape, k.shape[1]
    q = q.to(keys.dtype).view(rows, key_heads, -1, width)
    # All rows of the group as if they were queries of one sequence: the prompt is read once for all of them.
    far, far_lse = attend(q.transpose(0, 1).reshape(key_heads, 1, -1, width), *group.prompt[layer], causal=False, scale=scale)
    seen = slice(group.written + 1)
    near, near_lse = attend(q, keys[:, :, seen], values[:, :, seen], causal=False, scale=scale)
    far = far.view(key_heads, rows, -1, width).transpose(0, 1)
    far_lse = far_lse.view(key_heads, rows, -1).transpose(0, 1)
    merge_(near, near_lse, far, far_lse)
    return near.reshape(rows, heads, width)


def _make_room(group: Group) -> None:
    capacity = group.own.shape[-2]
    if group.written == capacity:
        larger = group.own.new_empty(*group.own.shape[:-2], 2 * capacity, group.own.shape[-1])
        larger[..., :capacity, :] = group.own
        group.own = larger
