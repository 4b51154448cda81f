"""A grounder made of a released zero-shot object detector: OWL-ViT, OWLv2 or (MM) Grounding DINO.

Loads any of these families by path through `transformers`, and hides what differs between them: OWL models score many
descriptions per image in one pass, and OWLv2 pads the image to a square; Grounding DINO mixes text and image early, so
every description is a pass of its own (the image backbone still runs once), and wants its text as "a red circle.".
It does not train; the tiny detector is made in `models.tiny.detector`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor, nn
from transformers import AutoModelForZeroShotObjectDetection, AutoProcessor

from datamodules.errors import ConfigError
from models.grounder import Candidates, Grounder, TextGenerator
from models.image_answers import rows_in_passes
from models.loading import check_model_type, find_weights, read_model, reading

OWL_TYPES = ("owlvit", "owlv2")
DINO_TYPES = ("grounding-dino", "mm-grounding-dino")

_REQUIRED_FILES = (
    ("config.json",),
    ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json"),
    ("preprocessor_config.json", "processor_config.json"),
    ("tokenizer.json", "vocab.json", "vocab.txt"),
)


class DetectorGrounder(Grounder):
    """Grounds with a frozen zero-shot detector read from a folder or from the Hugging Face Hub.

    Args:
        path: Folder written by `save_pretrained` with model, image processor and tokenizer, or a Hub id.
        threshold: Lowest score of a box that counts, 0..1; every released model has its own good value.
        keep_best: Return the best box even when it is below `threshold`; the alternative is none.
        max_boxes: Most boxes per description and keyframe.
        nms_iou: Of two boxes that overlap by more than this IoU, only the better one stays.
        batch_size: Most keyframes per forward pass (Grounding DINO: keyframe-description pairs).
        prompt_template: Text around the description, which takes the place of `{}`; released OWL models were
            trained with "a photo of a {}".

    Raises:
        ConfigError: Settings out of range, or a template without exactly one `{}`.
    """

    def __init__(
        self,
        path: str = "weights/tiny/grounder",
        *,
        threshold: float = 0.3,
        keep_best: bool = False,
        max_boxes: int = 5,
        nms_iou: float = 0.5,
        batch_size: int = 8,
        prompt_template: str = "{}",
    ) -> None:
        super().__init__(
            batch_size=batch_size, threshold=threshold, keep_best=keep_best, max_boxes=max_boxes, nms_iou=nms_iou
        )
        if prompt_template.count("{}") != 1:
            raise ConfigError(
                f"model.grounder.prompt_template is {prompt_template!r}; expected exactly one {{}} where the "
                "description goes. Set --model.grounder.prompt_template '{}'."
            )
        self.path = path
        self.prompt_template = prompt_template
        self.model: Any = None
        self._processor: Any = None

    def load(self, reasoner: TextGenerator | None = None) -> None:
        """Read processor and weights and freeze them; calling it again changes nothing.

        Args:
            reasoner: Not used.

        Raises:
            ConfigError: The folder does not exist, lacks files or weights, or holds a model that is no zero-shot
                detector.
        """
        if self.model is not None:
            return
        flag = "model.grounder.path"
        folder = find_weights(self.path, flag=flag, required=_REQUIRED_FILES)
        check_model_type(folder, OWL_TYPES + DINO_TYPES, flag=flag, expected="a zero-shot object detector")
        processor_class: Any = AutoProcessor
        with reading(folder, flag=flag):
            processor = processor_class.from_pretrained(folder)
        self.use(read_model(AutoModelForZeroShotObjectDetection, folder, flag=flag), processor)

    def use(self, model: Any, processor: Any) -> None:  # noqa: ANN401 (transformers classes without useful types)
        """Take a detector that is already there instead of loading one; it is frozen.

        Args:
            model: A zero-shot detector of one of the families.
            processor: Its processor.
        """
        self.model, self._processor = model.requires_grad_(False).eval(), processor

    def train(self, mode: bool = True) -> DetectorGrounder:
        """Stay in evaluation mode: the detector is frozen."""
        super().train(mode)
        if self.model is not None:
            self.model.eval()
        return self

    def find(
        self, images: UInt8[np.ndarray, "images height width 3"], descriptions: Sequence[Sequence[str]]
    ) -> list[list[Candidates]]:
        """Look for several descriptions on each image; see `Grounder.find`.

        Raises:
            RuntimeError: `load` has not been called.
        """
        if self.model is None:
            raise RuntimeError("DetectorGrounder is used before its weights are read; call load() first.")
        texts = [[self.prompt_template.replace("{}", text.strip()) for text in texts] for texts in descriptions]
        device = next(self.model.parameters()).device
        find = self._find_owl if self.model.config.model_type in OWL_TYPES else self._find_dino
        # Reduced precision would round normalized coordinates to whole pixels and worse.
        with torch.autocast(device.type, enabled=False):
            return find(images, texts)

    def _find_owl(self, images: UInt8[np.ndarray, "..."], texts: list[list[str]]) -> list[list[Candidates]]:
        """One pass for all images; images with fewer descriptions repeat their last one, and drop the answer."""
        most = max(len(row) for row in texts)
        padded = [text for row in texts for text in row + row[-1:] * (most - len(row))]
        inputs = self._inputs(images, padded)
        outputs = self._forward(inputs)
        rows = [(image, query) for image, row in enumerate(texts) for query in range(len(row))]
        picked = torch.tensor([image for image, _ in rows], device=outputs.logits.device)
        queries = torch.tensor([query for _, query in rows], device=outputs.logits.device)
        # The library's own post-processing gives a box to its best description only; one row per description keeps
        # them independent of each other.
        single = type(outputs)(
            logits=outputs.logits[picked, :, queries][..., None], pred_boxes=outputs.pred_boxes[picked]
        )
        found = self._post_process(single, images.shape[1:3], rows=len(rows))
        return _regroup(found, [len(row) for row in texts])

    def _find_dino(self, images: UInt8[np.ndarray, "..."], texts: list[list[str]]) -> list[list[Candidates]]:
        """One row per image and description, at most `batch_size` rows per pass, those of an image together."""
        found: list[Candidates] = []
        for rows in rows_in_passes([len(row) for row in texts], self.batch_size):
            chunk = [(image, texts[image][number]) for image, number in rows]
            distinct = sorted({image for image, _ in chunk})
            inputs = self._inputs(images[distinct], [dino_text(text) for _, text in chunk])
            row_to_image = torch.tensor([distinct.index(image) for image, _ in chunk])
            pixels = inputs["pixel_values"]
            row_to_image = row_to_image.to(pixels.device)
            for name in ("pixel_values", "pixel_mask"):
                inputs[name] = inputs[name][row_to_image]
            with shared_backbone(self.model.model.backbone, row_to_image):
                outputs = self._forward(inputs)
            # No token passes a text threshold of 1, so the unused phrases are not decoded.
            found += self._post_process(
                outputs, images.shape[1:3], rows=len(chunk), input_ids=inputs["input_ids"], text_threshold=1.0
            )
        return _regroup(found, [len(row) for row in texts])

    def _inputs(self, images: UInt8[np.ndarray, "..."], texts: list[str]) -> dict[str, Tensor]:
        config, first = self.model.config, next(self.model.parameters())
        is_owl = config.model_type in OWL_TYPES
        longest = config.text_config.max_position_embeddings if is_owl else config.max_text_len
        inputs = self._processor(
            images=list(images),
            text=texts,
            return_tensors="pt",
            padding="max_length" if is_owl else True,
            truncation=True,
            max_length=longest,
        )
        tensors = {name: value.to(first.device) for name, value in inputs.items()}
        tensors["pixel_values"] = tensors["pixel_values"].to(first.dtype)
        return tensors

    def _forward(self, inputs: dict[str, Tensor]) -> Any:  # noqa: ANN401 (a transformers output class)
        return self.model(**inputs)

    def _post_process(self, outputs: Any, size: Sequence[int], *, rows: int, **options: Any) -> list[Candidates]:  # noqa: ANN401
        results = self._processor.post_process_grounded_object_detection(
            outputs, threshold=-1.0, target_sizes=[(int(size[0]), int(size[1]))] * rows, **options
        )
        return [Candidates(boxes=result["boxes"], scores=result["scores"]) for result in results]


def dino_text(description: str) -> str:
    """Write a description the way Grounding DINO was trained: lower case, one phrase, one closing period.

    Args:
        description: Any text; periods inside would split it into phrases that are scored apart.

    Returns:
        The phrase with exactly one period, at its end.
    """
    return " ".join(description.lower().replace(".", " ").split()) + "."


@contextmanager
def shared_backbone(backbone: nn.Module, row_to_image: Int[Tensor, "rows"]) -> Iterator[None]:
    """Run an image backbone once per image inside the context, although its caller passes one image per row.

    Args:
        backbone: Called with tensors whose first axis is rows; returns tensors nested in lists and tuples.
        row_to_image: Image of each row, numbered from 0 without gaps; rows of one image hold equal pixels.
    """
    images = int(row_to_image.max()) + 1
    first = torch.stack([(row_to_image == image).nonzero()[0, 0] for image in range(images)])

    def take_distinct(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(tensor[first] for tensor in inputs)

    def give_rows(_: nn.Module, __: tuple[Tensor, ...], outputs: Any) -> Any:  # noqa: ANN401 (nested tensors)
        return _nested(outputs, lambda tensor: tensor[row_to_image])

    handles = backbone.register_forward_pre_hook(take_distinct), backbone.register_forward_hook(give_rows)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _nested(value: Any, change: Callable[[Tensor], Tensor]) -> Any:  # noqa: ANN401 (nested tensors)
    if isinstance(value, Tensor):
        return change(value)
    return type(value)(_nested(item, change) for item in value)


def _regroup(found: list[Candidates], counts: Sequence[int]) -> list[list[Candidates]]:
    rest = iter(found)
    return [[next(rest) for _ in range(count)] for count in counts]
