"""Sample completions of many prompts together, every prompt read once.

Rows of different prompts go through the layers in one batch, and each token drawn moves every row one step on. Prompts
of any lengths can be in flight at the same time, because attention is computed prompt by prompt (`grpo.decoder`).
A row that ends leaves the batch at once, and when there is room for a whole group the next prompt is read and its rows
take the free places::

    step      1  2  3  4  5  6  7  8  9
    a, row 1  .  .  .  .  ■                        ■ end of turn, or the token limit
    a, row 2  .  .  ■
    b, row 1  .  .  .  .  .  .  ■
    b, row 2  .  ■
    c, row 1              .  .  .  ■               c is read after step 4: two rows are free
    c, row 2              .  .  .  .  ■

What a row draws depends on its own key and position alone (`grpo.noise`), so neighbours that leave or join change
nothing. Log-probabilities are recorded as they are drawn, and the update uses them as they are.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import torch
from torch import Tensor

from grpo.decoder import Decoder
from grpo.engine import SampleRequest
from grpo.rollout import Completion
from grpo.sampling import Sampling, draw_tokens


@torch.no_grad()
def shared_rollout(
    decoder: Decoder,
    requests: Sequence[SampleRequest],
    sampling: Sampling,
    *,
    end_ids: Sequence[int],
    device: torch.device,
) -> list[list[Completion]]:
    """Sample all completions of all requests.

    Args:
        decoder: Holds the rows; without any yet. How many there is room for is up to it.
        requests: Prompts and the keys of their completions, at least one each.
        sampling: Temperature, top-p and the token limit.
        end_ids: Tokens that end a completion.
        device: Where the weights are.

    Returns:
        One list per request, in the order of its keys.
    """
    names = torch.tensor([key for request in requests for key in request.keys], dtype=torch.long, device=device)
    ends = torch.tensor(list(end_ids), device=device)
    ids = torch.zeros(len(names), sampling.max_new_tokens, dtype=torch.long, device=device)
    logprobs = torch.zeros(len(names), sampling.max_new_tokens, dtype=torch.float32, device=device)
    lengths, has_ended = torch.zeros_like(names), torch.zeros(len(names), dtype=torch.bool, device=device)
    waiting, admitted = deque(requests), 0
    writing = positions = torch.zeros(0, dtype=torch.long, device=device)
    logits: list[Tensor] = []
    while waiting or len(writing):
        while waiting and decoder.has_room(len(waiting[0].keys)):
            request = waiting.popleft()
            count = len(request.keys)
            logits.append(decoder.admit(request.encoded, count).expand(count, -1))
            writing = torch.cat([writing, torch.arange(admitted, admitted := admitted + count, device=device)])
            positions = torch.cat([positions, torch.zeros(count, dtype=torch.long, device=device)])
        tokens, values = draw_tokens(torch.cat(logits), names[writing], positions, sampling)
        ids[writing, positions], logprobs[writing, positions] = tokens, values
        positions = positions + 1
        lengths[writing], has_ended[writing] = positions, torch.isin(tokens, ends)
        goes_on = ~has_ended[writing] & (positions < sampling.max_new_tokens)
        if not goes_on.all():
            writing, positions, tokens = writing[goes_on], positions[goes_on], tokens[goes_on]
            decoder.keep(goes_on)
        logits = [decoder.step(tokens)] if len(writing) else []
    rows = zip(ids.cpu(), logprobs.cpu(), lengths.tolist(), has_ended.tolist(), strict=True)
    flat = iter([Completion(row[:n].clone(), values[:n].clone(), not is_over) for row, values, n, is_over in rows])
    return [[next(flat) for _ in request.keys] for request in requests]
