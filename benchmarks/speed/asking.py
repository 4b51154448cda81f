"""The base model as grounder with random weights, for measuring what asking it costs."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence

import torch

from models.box_grounder import ReasonerGrounder
from models.image_answers import ImageQuestion, Images
from models.reasoner import LoRA, Reasoner
from speed.shapes import SHAPES, build_model


class BoxTeller(Reasoner):
    """Answers like any reasoner, and then says a box of its own per question, so that there is something to follow.

    Random weights write tokens at random and up to the limit; what they cost is what counts.
    """

    def generate_text(
        self, images: Images, questions: Sequence[ImageQuestion], *, max_new_tokens: int = 256, shared: bool = True
    ) -> list[str]:
        """See `Reasoner.generate_text`; the box depends on the words of the question alone."""
        super().generate_text(images, questions, max_new_tokens=max_new_tokens, shared=shared)
        height, width = images[0].shape[:2]
        return [_box(text, height, width) for _, text in questions]


def build_grounder(
    shape: str, *, device: torch.device, dtype: torch.dtype, answer_tokens: int, shared: bool
) -> ReasonerGrounder:
    """A grounder that asks random weights.

    Args:
        shape: One of `SHAPES`.
        device: Where the weights are made.
        dtype: Their type.
        answer_tokens: Of every answer.
        shared: A keyframe is read once for all questions about it.
    """
    reasoner = BoxTeller(lora=LoRA())
    reasoner.attach(*build_model("omni", SHAPES[shape], device=device, dtype=dtype))
    grounder = ReasonerGrounder(max_new_tokens=answer_tokens, max_boxes=1, shared=shared)
    grounder.load(reasoner.to(device).eval())
    return grounder


def _box(text: str, height: int, width: int) -> str:
    chosen = random.Random(text)
    x, y = chosen.randrange(width // 2), chosen.randrange(height // 2)
    return json.dumps([{"bbox_2d": [x, y, x + width // 3, y + height // 3], "label": "disc"}])
