"""Ask several questions about one clip while reading the clip once.

The media of a clip are one prefix; every turn (a question with its answer) is a row that continues it, as if it were
asked alone: it attends to the media and to itself, and its positions go on where the media end. Turns of similar
length share a batch, so that little is padded, and no attention mask over all turns of a clip is ever made.

    media   ████████            once per clip
    turn 1          ▓▓▓▓▒▒      ▓ question, ▒ answer: only these are learned
    turn 2          ▓▓▒
    turn 3          ▓▓▓▒▒▒▒
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache

from models.processing import EncodedPrompt
from models.reasoner import Reasoner

_MOST_PADDING = 1.3
"""Most tokens of a batch of turns, padding included, per token that is no padding."""


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
class MediaStates:
    """What the language model makes of the media of some clips of the same length.

    Attributes:
        clips: Which clips.
        layers: The input, then the states after every layer; the last is normed.
    """

    clips: list[int]
    layers: tuple[Float[Tensor, "clips prompt hidden"], ...]


@dataclass(frozen=True)
class TurnLogits:
    """What is predicted for the answer tokens of some turns.

    Attributes:
        turns: (clip, number of its turn) for every turn.
        lengths: Answer tokens of every turn.
        logits: Next-token logits, turn after turn.
        labels: The right tokens.
    """

    turns: list[tuple[int, int]]
    lengths: list[int]
    logits: Float[Tensor, "answers vocabulary"]
    labels: Int[Tensor, "answers"]


def read_turns(
    reasoner: Reasoner, media: Sequence[EncodedPrompt], turns: Sequence[Sequence[TurnIds]]
) -> tuple[list[MediaStates], list[TurnLogits]]:
    """Predict the answers of all turns of some clips.

    Args:
        reasoner: The model.
        media: One per clip, as `PromptBuilder.media_only` and `Reasoner.encode_all` make them.
        turns: Per clip, any number of turns.

    Returns:
        States of the media, a batch for every length of media among the clips; and logits of the answers in some
        order of the turns, each of which is in exactly one batch.
    """
    lengths = [prompt.embeddings.shape[1] for prompt in media]
    states, answers = [], []
    for length in sorted(set(lengths)):
        clips = [index for index, own in enumerate(lengths) if own == length]
        read, cache = _read_media(reasoner, [media[index] for index in clips])
        states.append(MediaStates(clips, read))
        own = [(index, number) for index in clips for number in range(len(turns[index]))]
        for batch in _of_similar_length(own, turns):
            prefix = _select(cache, [clips.index(index) for index, _ in batch])
            starts = [media[index].next_position for index, _ in batch]
            answers.append(_read_batch(reasoner, prefix, starts, batch, turns))
    return states, answers


def _read_media(
    reasoner: Reasoner, prompts: Sequence[EncodedPrompt]
) -> tuple[tuple[Float[Tensor, "clips prompt hidden"], ...], DynamicCache]:
    cache = DynamicCache(config=reasoner.thinker.config.get_text_config())
    output = reasoner.language_model(
        inputs_embeds=torch.cat([prompt.embeddings for prompt in prompts]),
        position_ids=torch.cat([prompt.positions for prompt in prompts], dim=1),
        past_key_values=cache,
        use_cache=True,
        output_hidden_states=True,
    )
    return output.hidden_states, cache


def _of_similar_length(
    turns: list[tuple[int, int]], ids: Sequence[Sequence[TurnIds]]
) -> Iterator[list[tuple[int, int]]]:
    """Cut turns into batches that are hardly padded, longest first."""
    sizes = {turn: len(ids[turn[0]][turn[1]].question) + len(ids[turn[0]][turn[1]].answer) for turn in turns}
    batch: list[tuple[int, int]] = []
    filled = 0
    for turn in sorted(turns, key=lambda turn: sizes[turn], reverse=True):
        if batch and sizes[batch[0]] * (len(batch) + 1) > _MOST_PADDING * (filled + sizes[turn]):
            yield batch
            batch, filled = [], 0
        batch.append(turn)
        filled += sizes[turn]
    if batch:
        yield batch


def _select(cache: DynamicCache, clips: list[int]) -> DynamicCache:
    """Keys and values of some clips, one row for every mention."""
    chosen = DynamicCache()
    layers: list[Any] = cache.layers  # of a union of types, most of which have neither keys nor values
    for index, layer in enumerate(layers):
        rows = torch.tensor(clips, device=layer.keys.device)
        chosen.update(layer.keys[rows], layer.values[rows], index)
    return chosen


def _read_batch(
    reasoner: Reasoner,
    prefix: DynamicCache,
    starts: list[int],
    batch: list[tuple[int, int]],
    turns: Sequence[Sequence[TurnIds]],
) -> TurnLogits:
    """Turns behind their media, and the logits at every token before an answer's."""
    chosen = [turns[index][number] for index, number in batch]
    device = reasoner.device
    ids = pad_sequence([torch.tensor(turn.question + turn.answer) for turn in chosen], batch_first=True).to(device)
    labels = torch.full_like(ids, -100)
    for row, turn in enumerate(chosen):
        start, end = len(turn.question), len(turn.question) + len(turn.answer)
        labels[row, start - 1 : end - 1] = ids[row, start:end]
    positions = torch.tensor(starts, device=device)[:, None] + torch.arange(ids.shape[1], device=device)
    hidden = reasoner.language_model(
        inputs_embeds=reasoner.embed_tokens(ids),
        position_ids=positions.expand(3, -1, -1),
        past_key_values=prefix,
        use_cache=True,
    ).last_hidden_state
    learned = labels != -100
    lengths = [len(turn.answer) for turn in chosen]
    return TurnLogits(batch, lengths, reasoner.lm_head(hidden[learned]), labels[learned])
