r"""Prompts and the rows that continue them, one token at a time.

The keys and values of a prompt exist once, however many completions it gets. Every completion has a small cache of its
own, in memory that is reserved ahead and grows by doubling. A row's attention is that over its prompt, computed for all
rows of the prompt in one product, merged with that over its own tokens (`grpo.attention_kernels`)::

    keys and values of the prompt      P     read once for all rows        \
                                                                             merged by log-sum-exp
    keys and values of a row's tokens  t     one small cache per row       /
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from grpo.attention_kernels import attend, merged
from grpo.packed_layers import rotate
from grpo.rollout_layers import RolloutLayer
from grpo.rollout_weights import RolloutWeights
from models.processing import EncodedPrompt

FIRST_CAPACITY = 64
"""Tokens that a row's cache has room for at first."""


class Decoder(ABC):
    """Rows that are being written, in the order in which they were admitted."""

    @abstractmethod
    def has_room(self, rows: int) -> bool:
        """Whether so many rows of one prompt can be admitted now; always True while there are none."""

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
class Wave:
    """Prompts that were admitted at the same step, and their rows that are still written.

    Attributes:
        prompts: Keys and values of each prompt, layer by layer, (key heads, 1, prompt, width).
        rows: How many rows each prompt has left.
        starts: M-RoPE position of each prompt's first completion token.
        own: Keys and values of the rows' tokens.
        written: Tokens of each row so far.
    """

    prompts: list[list[tuple[Tensor, Tensor]]]
    rows: list[int]
    starts: list[int]
    own: Float[Tensor, "layers 2 rows key_heads capacity width"]
    written: int = 0

    @property
    def positions(self) -> list[int]:
        """M-RoPE position of the next token of each row."""
        return [start + self.written for start, rows in zip(self.starts, self.rows, strict=True) for _ in range(rows)]

    def keep(self, rows: Bool[Tensor, "rows"]) -> None:
        """Drop all other rows, and the prompts that have none left."""
        if rows.all():
            return
        left = [int(mine.sum()) for mine in torch.split(rows, self.rows)]
        self.own = self.own[:, :, rows]
        self.prompts = [prompt for prompt, count in zip(self.prompts, left, strict=True) if count]
        self.starts = [start for start, count in zip(self.starts, left, strict=True) if count]
        self.rows = [count for count in left if count]

    def make_room(self) -> None:
        """Double the memory of the rows' tokens when it is full."""
        capacity = self.own.shape[-2]
        if self.written == capacity:
            larger = self.own.new_empty(*self.own.shape[:-2], 2 * capacity, self.own.shape[-1])
            larger[..., :capacity, :] = self.own
            self.own = larger

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, *, scale: float) -> Float[Tensor, "rows heads width"]:
        """Attention of the next token of each row; its keys and values, (rows, heads, width), are kept."""
        keys, values = self.own[layer]
        keys[:, :, self.written], values[:, :, self.written] = k, v
        grouped = torch.unflatten(q, 1, (k.shape[1], -1))  # (rows, key heads, queries per key head, width)
        seen = slice(self.written + 1)
        near = attend(grouped, keys[:, :, seen], values[:, :, seen], causal=False, scale=scale)
        far = [
            self._attend_prompt(prompt[layer], mine, scale)
            for prompt, mine in zip(self.prompts, torch.split(grouped, self.rows), strict=True)
        ]
        out, lse = far[0] if len(far) == 1 else map(torch.cat, zip(*far, strict=True))
        return merged(out, lse, *near).flatten(1, 2)

    @staticmethod
    def _attend_prompt(prompt: tuple[Tensor, Tensor], grouped: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        """All rows as if they were queries of one sequence, so that the prompt is read once."""
        rows, key_heads, share, width = grouped.shape
        queries = grouped.transpose(0, 1).reshape(key_heads, 1, rows * share, width)
        out, lse = attend(queries, *prompt, causal=False, scale=scale)
        out, lse = out.view(key_heads, rows, share, width), lse.view(key_heads, rows, share)
        return out.transpose(0, 1), lse.transpose(0, 1)


class ExactDecoder(Decoder):
    """Computes what is needed and nothing else: every prompt in its own length, finished rows dropped."""

    def __init__(self, weights: RolloutWeights, *, max_rows: int, max_new_tokens: int) -> None:
        """Start without rows.

        Args:
            weights: The policy.
            max_rows: Most rows at a time.
            max_new_tokens: Longest completion.
        """
        self.weights = weights
        self.max_rows = max_rows
        self.capacity = min(FIRST_CAPACITY, max_new_tokens)
        self.waves: list[Wave] = []

    def has_room(self, rows: int) -> bool:
        """See `Decoder`."""
        return not self.waves or rows + sum(sum(wave.rows) for wave in self.waves) <= self.max_rows

    def admit(self, encoded: EncodedPrompt, rows: int) -> Float[Tensor, "1 vocab"]:
        """See `Decoder`."""
        prompt, logits = prefill(self.weights, encoded)
        if not self.waves or self.waves[-1].written:
            keys = prompt[0][0]
            own = keys.new_empty(len(prompt), 2, 0, len(keys), self.capacity, keys.shape[-1])
            self.waves.append(Wave([], [], [], own))
        wave = self.waves[-1]
        wave.prompts.append(prompt)
        wave.rows.append(rows)
        wave.starts.append(encoded.next_position)
        wave.own = wave.own.new_empty(*wave.own.shape[:2], sum(wave.rows), *wave.own.shape[3:])
        return logits

    def keep(self, rows: Bool[Tensor, "rows"]) -> None:
        """See `Decoder`."""
        sizes = [sum(wave.rows) for wave in self.waves]
        for wave, mine in zip(self.waves, torch.split(rows.cpu(), sizes), strict=True):
            wave.keep(mine)
        self.waves = [wave for wave in self.waves if wave.rows]

    def step(self, tokens: Int64[Tensor, "rows"]) -> Float[Tensor, "rows vocab"]:
        """See `Decoder`."""
        counted = [position for wave in self.waves for position in wave.positions]
        cos, sin = self.weights.cos_sin(torch.tensor(counted, device=tokens.device).expand(3, 1, -1))
        for wave in self.waves:
            wave.make_room()
        hidden = self.weights.embedding(tokens)
        for index, layer in enumerate(self.weights.layers):
            heads = split_heads(self.weights, layer.qkv(layer.before_attention(hidden)), cos, sin)
            hidden = layer.after_attention(hidden, self._attend(index, *heads).flatten(1))
        for wave in self.waves:
            wave.written += 1
        return self.weights.logits(hidden)

    def _attend(self, layer: int, *heads: Tensor) -> Float[Tensor, "rows heads width"]:
        sizes = [sum(wave.rows) for wave in self.waves]
        parts = zip(self.waves, *(torch.split(x, sizes) for x in heads), strict=True)
        outputs = [wave.attend(layer, *mine, scale=self.weights.scale) for wave, *mine in parts]
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
        q, k, v = split_heads(weights, layer.qkv(layer.before_attention(hidden)), cos, sin)
        cache.append((_by_head(k), _by_head(v)))
        hidden = layer.after_attention(hidden, _attend_prompt(weights, q, k, v, causal=True))
    last = weights.layers[-1]
    k, v = _last_keys(weights, last, hidden, cos, sin)
    cache.append((_by_head(k), _by_head(v)))
    q, _, _ = split_heads(weights, last.qkv(last.before_attention(hidden[-1:])), cos[-1:], sin[-1:])
    hidden = last.after_attention(hidden[-1:], _attend_prompt(weights, q, k, v, causal=False))
    return cache, weights.logits(hidden)


def _last_keys(
    weights: RolloutWeights, layer: RolloutLayer, hidden: Tensor, cos: Tensor, sin: Tensor
) -> tuple[Tensor, Tensor]:
    kv = torch.unflatten(layer.kv(layer.before_attention(hidden)), -1, (-1, weights.width))
    k, v = kv.chunk(2, dim=1)
    return rotate(k, cos, sin).to(weights.dtype), v.to(weights.dtype)


def split_heads(
    weights: RolloutWeights, qkv: Float[Tensor, "rows heads"], cos: Tensor, sin: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Rotated queries, rotated keys and values, (rows, heads, width)."""
    heads = torch.unflatten(qkv, -1, (-1, weights.width))
    turning = weights.heads + weights.key_heads
    turned = rotate(heads[:, :turning], cos, sin).to(weights.dtype)  # mixed precision turns in float32
    return turned[:, : weights.heads], turned[:, weights.heads :], heads[:, turning:].to(weights.dtype)


def _by_head(x: Float[Tensor, "prompt key_heads width"]) -> Float[Tensor, "key_heads 1 prompt width"]:
    return x.transpose(0, 1).contiguous()[:, None]


def _attend_prompt(
    weights: RolloutWeights, q: Tensor, k: Tensor, v: Tensor, *, causal: bool
) -> Float[Tensor, "rows heads"]:
    out, _ = attend(*(x.transpose(0, 1)[None] for x in (q, k, v)), causal=causal, scale=weights.scale)
    return out[0].transpose(0, 1).flatten(1)
