"""Pack several questions about one clip into one row, so that the clip is read once.

A row is ``[media | question 1, answer 1 | question 2, answer 2 | …]``. Every turn attends to the media and to itself,
never to another turn, and its positions continue where the media end, as if it were asked alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from models.processing import EncodedPrompt
from models.reasoner import Reasoner


@dataclass(frozen=True)
class TurnIds:
    """One turn in tokens.

    Attributes:
        question: Everything between the media and the answer.
        answer: The answer, end of turn included; these tokens are learned.
    """

    question: list[int]
    answer: list[int]


@dataclass(frozen=True)
class Rows:
    """A batch of packed rows, padded on the right.

    Attributes:
        embeddings: What the language model reads.
        positions: M-RoPE positions.
        mask: True where a token (third axis) may look at another (fourth axis).
        labels: The next token to predict after each one; -100 where nothing is learned.
        turns: Which turn of its row a label belongs to; -1 where there is none.
        seconds: Which second of the clip a media token belongs to; -1 at text.
    """

    embeddings: Float[Tensor, "rows tokens hidden"]
    positions: Int[Tensor, "3 rows tokens"]
    mask: Bool[Tensor, "rows 1 tokens tokens"]
    labels: Int[Tensor, "rows tokens"]
    turns: Int[Tensor, "rows tokens"]
    seconds: Int[Tensor, "rows tokens"]


def pack_rows(reasoner: Reasoner, media: Sequence[EncodedPrompt], turns: Sequence[Sequence[TurnIds]]) -> Rows:
    """Pack the turns of every clip behind its encoded media.

    Args:
        reasoner: Gives the embeddings of the text tokens.
        media: One per clip, as `PromptBuilder.media_only` and `Reasoner.encode_all` make them.
        turns: Per clip, at least one turn.
    """
    device = reasoner.device
    texts = [[token for turn in row for token in (*turn.question, *turn.answer)] for row in turns]
    lengths = [prompt.embeddings.shape[1] + len(text) for prompt, text in zip(media, texts, strict=True)]
    size = (len(media), max(lengths))
    positions = torch.zeros(3, *size, dtype=torch.long)
    labels = torch.full(size, -100)
    owner = torch.full(size, -2)  # -2 padding, -1 media, else the turn
    answered = torch.full(size, -1)
    seconds = torch.full(size, -1)
    embeddings = []
    for index, (prompt, row, text) in enumerate(zip(media, turns, texts, strict=True)):
        at = prompt.embeddings.shape[1]
        positions[:, index, :at] = prompt.positions[:, 0].cpu()
        owner[index, :at] = -1
        seconds[index, :at] = _seconds(reasoner, prompt)
        for number, turn in enumerate(row):
            start, end = at + len(turn.question), at + len(turn.question) + len(turn.answer)
            positions[:, index, at:end] = prompt.next_position + torch.arange(end - at)
            owner[index, at:end] = number
            labels[index, start - 1 : end - 1] = torch.tensor(turn.answer)
            answered[index, start - 1 : end - 1] = number
            at = end
        embedded = reasoner.embed_tokens(torch.tensor(text, device=device))
        whole = torch.cat([prompt.embeddings[0], embedded])
        embeddings.append(F.pad(whole, (0, 0, 0, size[1] - lengths[index])))
    mask = torch.ones(size[1], size[1], dtype=torch.bool).tril()
    mask = mask & ((owner[:, :, None] == owner[:, None]) | (owner[:, None] == -1))
    return Rows(
        torch.stack(embeddings),
        positions.to(device),
        mask[:, None].to(device),
        labels.to(device),
        answered.to(device),
        seconds.to(device),
    )


def row_states(reasoner: Reasoner, rows: Rows) -> Float[Tensor, "rows tokens hidden"]:
    """Last hidden states of packed rows."""
    states: Tensor = reasoner.language_model(
        inputs_embeds=rows.embeddings, position_ids=rows.positions, attention_mask=rows.mask, use_cache=False
    ).last_hidden_state
    return states


def answer_logits(reasoner: Reasoner, rows: Rows) -> Float[Tensor, "answers vocabulary"]:
    """Logits at every place whose next token is learned, row by row."""
    logits: Tensor = reasoner.lm_head(row_states(reasoner, rows)[rows.labels != -100])
    return logits


def _seconds(reasoner: Reasoner, prompt: EncodedPrompt) -> Int[Tensor, "prompt"]:
    """Second of the clip of every media token, from its time position; -1 at the text around the media."""
    config = reasoner.thinker.config
    media = torch.isin(prompt.input_ids[0], torch.tensor([config.video_token_id, config.audio_token_id]))
    times = prompt.positions[0, 0].cpu()
    start = int(times[media].min()) if media.any() else 0
    return torch.where(media, (times - start) // int(config.position_id_per_seconds), -1)
