"""Sample completions of an encoded prompt, every row on its own: the plain path that any faster one must agree with.

The prompt goes through the language model once and its keys and values are copied to one row per completion. Then all
rows that still write take one token after the other. A row ends with an end-of-turn token, which belongs to the
completion and is trained like any other token, or at the token limit, which makes it truncated; either way it leaves
the batch. Which token is drawn depends on the row's key and the position alone (`grpo.noise`), so leaving rows and
neighbours change nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor, nn
from transformers import DynamicCache

from grpo.sampling import Sampling, draw_tokens
from models.processing import EncodedPrompt
from models.reasoner import Reasoner


@dataclass(frozen=True)
class Completion:
    """One sampled answer, on the CPU.

    Attributes:
        ids: Token ids, the end-of-turn token included when it was sampled; at least one token.
        logprobs: Natural log-probability of each, under the temperature-scaled, untruncated distribution.
        is_truncated: The token limit cut it off.
    """

    ids: Int64[Tensor, "tokens"]
    logprobs: Float32[Tensor, "tokens"]
    is_truncated: bool


@torch.no_grad()
def rollout(reasoner: Reasoner, encoded: EncodedPrompt, keys: Sequence[int], sampling: Sampling) -> list[Completion]:
    """Sample one completion per key.

    The reasoner is in evaluation mode meanwhile and afterwards as it was.

    Args:
        reasoner: The policy.
        encoded: The prompt after the towers.
        keys: `noise_key` of each completion; with temperature 0 only their number matters.
        sampling: Temperature, top-p and the token limit.

    Returns:
        Completions in the order of the keys.
    """
    device = reasoner.device
    names = torch.tensor(keys, dtype=torch.long, device=device)
    ends = torch.tensor(reasoner.end_of_turn_ids, device=device)
    ids = torch.zeros(len(keys), sampling.max_new_tokens, dtype=torch.long, device=device)
    logprobs = torch.zeros(len(keys), sampling.max_new_tokens, dtype=torch.float32, device=device)
    lengths = torch.zeros(len(keys), dtype=torch.long, device=device)
    writing = torch.arange(len(keys), device=device)
    with evaluation_mode(reasoner):
        cache, logits = _prefill(reasoner, encoded)
        cache.batch_repeat_interleave(len(keys))
        logits = logits.expand(len(keys), -1)
        for position in range(sampling.max_new_tokens):
            tokens, values = draw_tokens(logits, names[writing], torch.full_like(writing, position), sampling)
            ids[writing, position], logprobs[writing, position] = tokens, values
            lengths[writing] += 1
            goes_on = ~torch.isin(tokens, ends)
            writing = writing[goes_on]
            if not len(writing) or position + 1 == sampling.max_new_tokens:
                break
            if not goes_on.all():
                cache.batch_select_indices(goes_on.nonzero().squeeze(1))
            logits = _next_logits(reasoner, tokens[goes_on], encoded.next_position + position, cache)
    truncated = set(writing.tolist())
    return [
        Completion(row[:length].cpu(), values[:length].cpu(), index in truncated)
        for index, (row, values, length) in enumerate(zip(ids, logprobs, lengths.tolist(), strict=True))
    ]


@contextlib.contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Dropout and gradient checkpointing off inside the block; every submodule's mode is restored afterwards.

    Gradient checkpointing would drop the cache, and dropout would sample from another policy than the trained one.
    """
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode


def _prefill(reasoner: Reasoner, encoded: EncodedPrompt) -> tuple[DynamicCache, Float[Tensor, "1 vocab"]]:
    """Keys and values of the prompt, and the logits of the first completion token."""
    cache = DynamicCache(config=reasoner.thinker.config.get_text_config())
    hidden = reasoner.language_model(
        inputs_embeds=encoded.embeddings, position_ids=encoded.positions, past_key_values=cache, use_cache=True
    ).last_hidden_state
    return cache, reasoner.lm_head(hidden[:, -1])


def _next_logits(
    reasoner: Reasoner, tokens: Int64[Tensor, "rows"], position: int, cache: DynamicCache
) -> Float[Tensor, "rows vocab"]:
    """Feed one token per row; completions count on from the prompt on all three axes of M-RoPE alike."""
    hidden = reasoner.language_model(
        inputs_embeds=reasoner.embed_tokens(tokens)[:, None],
        position_ids=torch.full((3, len(tokens), 1), position, device=tokens.device),
        past_key_values=cache,
        use_cache=True,
    ).last_hidden_state
    logits: Tensor = reasoner.lm_head(hidden[:, -1])
    return logits
