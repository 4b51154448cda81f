"""A grounder that is the base model itself: asked for boxes in JSON, with the adapter switched off.

This is the paper's System 2 during training: the frozen copy of the model that is being trained, at the cost of no
second copy. All questions of a pass are answered together, and each keyframe is read once, by the vision tower and by
the language model, however many descriptions ask about it (`models.image_reading`). It decodes greedily and gives no
confidence, so every box scores 1.

Reference:
    Omni-R1, arXiv:2505.20256, section 3 (System 2). The wording of the question is our own.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import UInt8

from datamodules.errors import ConfigError
from models.box_answers import BOX_QUESTION, Box, Coordinates, parse_boxes, resized_size, to_image_pixels
from models.grounder import Candidates, Grounder, TextGenerator
from models.image_answers import rows_in_passes


class ReasonerGrounder(Grounder):
    """Grounds by asking the frozen base model behind the reasoner's adapter.

    Args:
        coordinates: What the numbers in the base model's answers count: resized_pixels for Qwen2.5-Omni and
            Qwen2.5-VL, normalized_1000 for models that answer in thousandths of the image.
        max_new_tokens: Longest answer in tokens; a longer one keeps the boxes that it finished.
        max_boxes: Most boxes per description and keyframe.
        nms_iou: Of two boxes that overlap by more than this IoU, only the one named first stays.
        batch_size: Most keyframes read, and most questions answered, at a time.
        shared: Read a keyframe once for all questions about it, which then always go together; False reads it with each
            question, and gives the same boxes. An attention of the reasoner other than sdpa takes False anyway.

    Raises:
        ConfigError: Settings out of range.
    """

    def __init__(
        self,
        *,
        coordinates: Coordinates = "resized_pixels",
        max_new_tokens: int = 256,
        max_boxes: int = 5,
        nms_iou: float = 0.5,
        batch_size: int = 16,
        shared: bool = True,
    ) -> None:
        super().__init__(batch_size=batch_size, max_boxes=max_boxes, nms_iou=nms_iou)
        if max_new_tokens < 1:
            raise ConfigError(
                f"model.grounder.max_new_tokens is {max_new_tokens}; expected at least 1. "
                "Set --model.grounder.max_new_tokens 256."
            )
        self.coordinates: Coordinates = coordinates
        self.max_new_tokens = max_new_tokens
        self.shared = shared
        # A tuple keeps the reasoner from being registered, and saved, as a part of the grounder.
        self._reasoner: tuple[TextGenerator, ...] = ()

    def load(self, reasoner: TextGenerator | None = None) -> None:
        """Take the reasoner whose base model is asked; it is not copied.

        Args:
            reasoner: System 1.

        Raises:
            ConfigError: There is no reasoner.
        """
        if reasoner is None:
            raise ConfigError(
                "model.grounder is ReasonerGrounder, which asks the reasoner's base model, and there is no reasoner. "
                "Set --model.reasoner, or --model.grounder DetectorGrounder."
            )
        self._reasoner = (reasoner,)

    def find(
        self, images: UInt8[np.ndarray, "images height width 3"], descriptions: Sequence[Sequence[str]]
    ) -> list[list[Candidates]]:
        """Ask about every description on every image; see `Grounder.find`.

        Raises:
            RuntimeError: `load` has not been called.
        """
        if not self._reasoner:
            raise RuntimeError("ReasonerGrounder is used before it has a reasoner; call load(reasoner) first.")
        reasoner, found, counts = self._reasoner[0], {}, [len(row) for row in descriptions]
        # A question is little beside its keyframe, which a second pass would read again.
        most = max(self.batch_size, *counts) if self.shared else self.batch_size
        with reasoner.reference():
            for rows in rows_in_passes(counts, most):
                questions = [
                    (image, BOX_QUESTION.render(descriptions[image][number].strip())) for image, number in rows
                ]
                texts = reasoner.generate_text(
                    list(images), questions, max_new_tokens=self.max_new_tokens, shared=self.shared
                )
                for row, text in zip(rows, texts, strict=True):
                    found[row] = self._read(text, (images.shape[1], images.shape[2]))
        return [[found[image, number] for number in range(len(row))] for image, row in enumerate(descriptions)]

    def _read(self, text: str, image: tuple[int, int]) -> Candidates:
        resized = resized_size(self._reasoner[0].builder.processor.image_processor, image)
        boxes: list[Box] = [
            to_image_pixels(box, coordinates=self.coordinates, image=image, resized=resized)
            for box in parse_boxes(text)
        ]
        return Candidates(boxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), scores=torch.ones(len(boxes)))
