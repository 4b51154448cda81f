"""The same rows in memory of fixed shape, so that a step is one CUDA graph.

A decoding step of a large model is hundreds of small kernels, and launching them one by one takes longer than running
them. A graph launches all of them at once, but it repeats the very same kernels on the very same memory. So here every
group has a fixed place: room for the longest prompt and for all of its rows, filled as far as counters say. Finished
rows compute on unnoticed until their group is done and the next prompt takes its place. What grows with time, the
tokens of a row, is read in a few sizes, each four times the one before; each size has its own graph.

Attention is plain products with one softmax over prompt and own tokens together. It runs without graphs as well, on any
device, with the same results.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from grpo.decoder import FIRST_CAPACITY, Decoder, prefill, split_heads
from grpo.rollout_weights import RolloutWeights
from models.processing import EncodedPrompt


class StaticDecoder(Decoder):
    """Every group has a place of fixed size."""

    def __init__(
        self, weights: RolloutWeights, *, groups: int, rows_per_group: int, max_prompt: int, max_new_tokens: int
    ) -> None:
        """Reserve the memory.

        Args:
            weights: The policy.
            groups: Places, each for one prompt.
            rows_per_group: Most rows of a prompt.
            max_prompt: Longest prompt in tokens.
            max_new_tokens: Longest completion.
        """
        self.weights = weights
        self.places = groups, rows_per_group
        device, dtype = weights.embedding.weight.device, weights.dtype
        heads, width = weights.key_heads, weights.width
        shape = len(weights.layers), 2, groups
        # Zeros, because whatever stands in an unused place is multiplied by a weight of 0.
        self.prompt = torch.zeros(*shape, heads, max_prompt, width, device=device, dtype=dtype)
        self.own = torch.zeros(*shape, heads, rows_per_group, max_new_tokens, width, device=device, dtype=dtype)
        self.lengths, self.starts, self.written, self.moving = torch.zeros(4, groups, dtype=torch.long, device=device)
        self.counted = [0] * groups  # `written` once more, to be read without waiting for the device
        self.tokens = torch.zeros(groups * rows_per_group, dtype=torch.long, device=device)
        self.embedded = weights.embedding.weight.new_zeros(len(self.tokens), weights.embedding.embedding_dim)
        self.alive = torch.zeros(0, dtype=torch.long, device=device)
        self.free = list(range(groups))
        self.graphs: dict[int, Callable[[], Tensor] | None] = {}

    def has_room(self, rows: int) -> bool:
        """See `Decoder`."""
        return bool(self.free)

    def admit(self, encoded: EncodedPrompt, rows: int) -> Float[Tensor, "1 vocab"]:
        """See `Decoder`."""
        place, (cache, logits) = self.free.pop(0), prefill(self.weights, encoded)
        for layer, states in enumerate(cache):
            for kind, state in enumerate(states):
                self.prompt[layer, kind, place, :, : state.shape[2]] = state[:, 0]
        self.lengths[place], self.starts[place] = encoded.embeddings.shape[1], encoded.next_position
        self.written[place], self.moving[place] = 0, 1
        first = place * self.places[1]
        self.alive = torch.cat([self.alive, torch.arange(first, first + rows, device=self.alive.device)])
        return logits

    def keep(self, rows: Bool[Tensor, "rows"]) -> None:
        """See `Decoder`."""
        self.alive = self.alive[rows]
        taken = set((self.alive // self.places[1]).tolist())
        self.free = [place for place in range(self.places[0]) if place not in taken]
        # Places whose group is done stand still, so that they never point behind the end of the memory.
        for place in self.free:
            self.written[place] = self.moving[place] = self.counted[place] = 0

    def step(self, tokens: Int64[Tensor, "rows"]) -> Float[Tensor, "rows vocab"]:
        """See `Decoder`."""
        self.tokens[self.alive] = tokens
        # Before the graph, whose replays call no module: whoever counts passes listens to this one.
        self.embedded.copy_(self.weights.embedding(self.tokens))
        capacity, needed = FIRST_CAPACITY, max(self.counted) + 1
        while capacity < needed:
            capacity *= 4  # capturing a graph costs more than reading some keys that are masked
        capacity = min(capacity, self.own.shape[-2])
        if capacity not in self.graphs:
            self.graphs[capacity] = self._captured(capacity)
        replay = self.graphs[capacity]
        logits = (replay() if replay else self._compute(capacity))[self.alive]
        self.written += self.moving
        self.counted = [0 if place in self.free else count + 1 for place, count in enumerate(self.counted)]
        return logits

    def _captured(self, capacity: int) -> Callable[[], Tensor] | None:
        """The step as a graph on a CUDA device; None anywhere else, and where it cannot be captured.

        Nothing that is kept here may hold the decoder: in a ring of references its memory would outlive the rollout.
        """
        device = self.tokens.device
        if device.type != "cuda":
            return None
        graph, side = torch.cuda.CUDAGraph(), torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(side):
            self._compute(capacity)  # what libraries set up at their first call must not be captured
        torch.cuda.current_stream(device).wait_stream(side)
        try:
            with torch.cuda.graph(graph):
                logits = self._compute(capacity)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            warnings.warn(f"sampling without CUDA graphs, which is slower: {error}", stacklevel=2)
            return None

        def replay() -> Tensor:
            graph.replay()
            return logits

        return replay

    def _compute(self, capacity: int) -> Float[Tensor, "places vocab"]:
        """One step of all places; running it twice changes nothing."""
        kind, dtype = self.tokens.device.type, self.weights.dtype
        is_mixed = torch.is_autocast_enabled(kind)
        # A graph must not remember weights that mixed precision has converted for it.
        with torch.autocast(kind, dtype, cache_enabled=False) if is_mixed else contextlib.nullcontext():
            positions = (self.starts + self.written).repeat_interleave(self.places[1])
            cos, sin = self.weights.cos_sin(positions.expand(3, 1, -1))
            hidden = self.embedded
            for index, layer in enumerate(self.weights.layers):
                q, k, v = split_heads(self.weights, layer.qkv(layer.before_attention(hidden)), cos, sin)
                attended = self._attend(index, q, k, v, capacity)
                hidden = layer.after_attention(hidden, attended)
            return self.weights.logits(hidden)

    def _attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, capacity: int) -> Float[Tensor, "places heads"]:
        (groups, rows), key_heads = self.places, k.shape[1]
        place, row = torch.arange(groups, device=q.device)[:, None], torch.arange(rows, device=q.device)
        for kind, new in enumerate((k, v)):
            self.own[layer, kind][place, :, row, self.written[:, None]] = torch.unflatten(new, 0, self.places)
        grouped = torch.unflatten(q, 0, self.places)
        grouped = torch.unflatten(grouped, 2, (key_heads, -1)).transpose(
            1, 2
        )  # (groups, key heads, rows, share, width)
        prompt_k, prompt_v = self.prompt[layer]  # (groups, key heads, prompt, width)
        own_k, own_v = self.own[layer, ..., :capacity, :]  # (groups, key heads, rows, capacity, width)
        far = torch.unflatten(_product(grouped.flatten(2, 3), prompt_k.mT), 2, (rows, -1))
        near = _product(grouped, own_k.mT)
        unread = torch.arange(far.shape[-1], device=q.device) >= self.lengths[:, None]
        unwritten = torch.arange(capacity, device=q.device) > self.written[:, None]
        hidden = torch.cat([unread, unwritten], dim=1)[:, None, None, None]
        scores = (torch.cat([far, near], dim=-1) * self.weights.scale).masked_fill(hidden, float("-inf"))
        shares = scores.softmax(dim=-1).to(v.dtype)
        seen = torch.unflatten(shares[..., : far.shape[-1]].flatten(2, 3) @ prompt_v, 2, (rows, -1))
        output: Tensor = (seen + shares[..., far.shape[-1] :] @ own_v).transpose(1, 2).flatten(0, 1).flatten(1)
        return output


def _product(left: Float[Tensor, "*batch rows width"], right: Float[Tensor, "*batch width columns"]) -> Tensor:
    """Matrix product with float32 results, whatever the inputs are."""
    if left.device.type == "cuda" and left.dtype != torch.float32:
        flat = torch.bmm(left.flatten(0, -3), right.flatten(0, -3), out_dtype=torch.float32)
        return torch.unflatten(flat, 0, left.shape[:-2])
    product: Tensor = left.float() @ right.float()
    return product
