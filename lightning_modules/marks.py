"""Loss of the marks: short labels at the media tokens themselves, read from the middle of the language model.

A model that was never pre-trained finds out very slowly, from questions alone, that positions are times and that a
heard shape and a seen shape belong together; a label at every media token says so directly. The labels are read after
a middle layer, so that the layers above can use them when a question is asked.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from datamodules.lessons import Lesson
from models.processing import EncodedPrompt
from models.reasoner import Reasoner


def mark_loss(
    reasoner: Reasoner,
    states: Float[Tensor, "rows tokens hidden"],
    media: Sequence[EncodedPrompt],
    lessons: Sequence[Lesson],
) -> Float[Tensor, ""]:
    """Cross-entropy among each mark's own options, averaged over the kinds of marks; 0 without marks.

    Args:
        reasoner: Its final norm and output layer read the states.
        states: States of packed rows after some layer; every row begins with its media.
        media: One per row.
        lessons: One per row; as many answers per mark as the prompt has tokens of its media.

    Raises:
        ValueError: A mark has another number of answers than there are tokens, or an option is not one token.
    """
    config = reasoner.thinker.config
    norm = cast(nn.Module, reasoner.language_model.norm)
    placeholder = {"video": config.video_token_id, "audio": config.audio_token_id}
    logits: dict[tuple[str, tuple[str, ...]], list[Tensor]] = defaultdict(list)
    answers: dict[tuple[str, tuple[str, ...]], list[np.ndarray]] = defaultdict(list)
    for row, prompt, lesson in zip(states, media, lessons, strict=True):
        named = reasoner.lm_head(norm(row[: prompt.input_ids.shape[1]]))
        for mark in lesson.marks:
            columns = (prompt.input_ids[0] == placeholder[mark.media]).nonzero()[:, 0]
            if len(columns) != len(mark.answers):
                raise ValueError(
                    f"{prompt.clip_id}: expected one answer per {mark.media} token, found {len(mark.answers)} answers "
                    f"for {len(columns)} tokens"
                )
            said = np.flatnonzero(mark.answers >= 0)
            if len(said):
                key = mark.media, mark.options
                logits[key].append(named[columns[said].to(named.device)][:, option_ids(reasoner, mark.options)])
                answers[key].append(mark.answers[said])
    losses = [
        F.cross_entropy(
            torch.cat(logits[key]).float(), torch.from_numpy(np.concatenate(answers[key])).to(states.device)
        )
        for key in logits
    ]
    return torch.stack(losses).mean() if losses else states.new_zeros(())


def option_ids(reasoner: Reasoner, options: Sequence[str]) -> list[int]:
    """The token of every option.

    Raises:
        ValueError: An option is more than one token.
    """
    ids = [reasoner.builder.tokenizer(option, add_special_tokens=False).input_ids for option in options]
    for option, found in zip(options, ids, strict=True):
        if len(found) != 1:
            raise ValueError(f"expected {option!r} to be one token, found {len(found)}; train the tokenizer on it")
    return [found[0] for found in ids]
