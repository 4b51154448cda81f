"""Log-probabilities of right answers, in two forms that agree.

`answers_in_rows` reads answers as GRPO scores completions: every clip of a batch once, in one row with all that is
asked about it. That is one pass through the decoder, whatever the lengths of media, questions and answers are, and no
cache: so activations can be computed again in the backward pass, and processes that gather layers as they run all call
them equally often. The output head has to be frozen. `answers_with_marks` takes any model, and reads marks as well.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32
from torch import Tensor

from datamodules.lessons import Lesson
from grpo.engine import ScoreRequest
from grpo.packing import packed_logprobs
from lightning_modules.marks import mark_loss
from models.processing import EncodedPrompt
from models.reasoner import Reasoner
from models.rows import TurnIds, read_turns


def answers_in_rows(
    reasoner: Reasoner, media: Sequence[EncodedPrompt], turns: Sequence[Sequence[TurnIds]]
) -> Float32[Tensor, "tokens"]:
    """Log-probabilities of the answers of all turns.

    Args:
        reasoner: The model, its adapter on.
        media: One per clip, as `PromptBuilder.media_only` and `Reasoner.encode_all` make them.
        turns: Per clip, at least one turn.

    Returns:
        Of every answer token, in nats, turn after turn, with gradient.

    Raises:
        ValueError: The output head is trained.
    """
    requests = [
        ScoreRequest(encoded, [torch.tensor(turn.question + turn.answer) for turn in own])
        for encoded, own in zip(media, turns, strict=True)
    ]
    scores = packed_logprobs(reasoner, requests, temperature=1.0)
    is_answer = scores.mask.clone()
    for row, turn in enumerate(turn for own in turns for turn in own):
        is_answer[row, : len(turn.question)] = False
    return scores.logprobs[is_answer]


def answers_with_marks(
    reasoner: Reasoner,
    lessons: Sequence[Lesson],
    media: Sequence[EncodedPrompt],
    turns: Sequence[Sequence[TurnIds]],
    *,
    mark_layer: int | None,
) -> tuple[Float32[Tensor, "tokens"], Float[Tensor, ""]]:
    """Log-probabilities of the answers of all turns, and the loss of the marks.

    Args:
        reasoner: The model.
        lessons: The clips.
        media: One per clip.
        turns: Per clip, any number of turns.
        mark_layer: Decoder layers after which the marks are read; None reads none.

    Returns:
        Of every answer token, in nats, in some order; and the marks' mean cross-entropy, 0 without any.
    """
    states, answers = read_turns(reasoner, media, turns)
    marks = answers[0].logits.new_zeros(())
    if mark_layer is not None:
        losses = [
            mark_loss(
                reasoner,
                group.layers[mark_layer],
                [media[clip] for clip in group.clips],
                [lessons[clip] for clip in group.clips],
            )
            for group in states
        ]
        marks = torch.stack(losses).mean()
    logits, labels = torch.cat([part.logits for part in answers]), torch.cat([part.labels for part in answers])
    return -F.cross_entropy(logits.float(), labels, reduction="none"), marks
