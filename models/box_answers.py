"""Boxes as text: what the base model is asked, how its answer is read, and what its numbers mean.

Pure functions. Model text is data: any text gives a list of boxes, possibly empty, and never an exception. Boxes are
found by their key (or, failing that, as bare lists of four numbers) instead of by parsing the whole answer as JSON, so
that an answer cut off by the token limit, or wrapped in prose, still gives the boxes that it finished.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

Coordinates = Literal["resized_pixels", "normalized_1000"]
"""What the numbers of an answer count: pixels of the image as the processor resized it (Qwen2.5-VL, Qwen2.5-Omni), or
thousandths of the image's width and height (Qwen2-VL, Qwen3-VL, InternVL)."""

Box = tuple[float, float, float, float]

_NUMBER = r"\s{0,8}[\"']?(-?\d{1,7}(?:\.\d{1,9})?)[\"']?\s{0,8}"
_FOUR = r"\[" + ",".join([_NUMBER] * 4) + r"\]"
_KEYED = re.compile(r"bbox(?:_2d)?[\"']?\s{0,8}[:=]\s{0,8}\[?\s{0,8}" + _FOUR, re.IGNORECASE)
_BARE = re.compile(_FOUR)


@dataclass(frozen=True)
class BoxQuestion:
    """A way of asking for boxes.

    Attributes:
        version: Raised whenever the wording changes, because scores depend on it.
        text: User text after the image, with the field {description}.
    """

    version: int
    text: str

    def render(self, description: str) -> str:
        """The user text for one description."""
        return self.text.replace("{description}", description)


BOX_QUESTION = BoxQuestion(
    version=1,
    text=(
        "Find in this image: {description}. Answer with a JSON list, one entry per matching object, each of the form "
        '{"bbox_2d": [x1, y1, x2, y2], "label": "..."}. Answer [] when there is no such object.'
    ),
)


def parse_boxes(text: str, *, max_boxes: int = 20, max_characters: int = 20_000) -> list[Box]:
    """Read the boxes out of an answer.

    Args:
        text: Anything.
        max_boxes: Most boxes read.
        max_characters: Where reading stops.

    Returns:
        (x1, y1, x2, y2) with x1 < x2 and y1 < y2, in the answer's own coordinates and order, without repeats; empty
        when there are none. Swapped corners are put right, boxes without area are left out.
    """
    text = text[:max_characters]
    boxes: dict[Box, None] = {}
    for match in [*_KEYED.finditer(text)] or [*_BARE.finditer(text)]:
        xa, ya, xb, yb = (float(number) for number in match.groups())
        box = (min(xa, xb), min(ya, yb), max(xa, xb), max(ya, yb))
        if box[0] < box[2] and box[1] < box[3]:
            boxes[box] = None
        if len(boxes) == max_boxes:
            break
    return list(boxes)


def to_image_pixels(box: Box, *, coordinates: Coordinates, image: tuple[int, int], resized: tuple[int, int]) -> Box:
    """Turn a box of an answer into pixels of the image that was asked about.

    Args:
        box: (x1, y1, x2, y2) as the model wrote it.
        coordinates: What its numbers count.
        image: (height, width) of the image in pixels.
        resized: (height, width) in pixels after the processor; used by `resized_pixels` only.

    Returns:
        (x1, y1, x2, y2) in pixels of the image, not clipped.
    """
    height, width = resized if coordinates == "resized_pixels" else (1000, 1000)
    x, y = image[1] / width, image[0] / height
    return (box[0] * x, box[1] * y, box[2] * x, box[3] * y)


def from_image_pixels(box: Box, *, coordinates: Coordinates, image: tuple[int, int], resized: tuple[int, int]) -> Box:
    """Turn a box in pixels of an image into what the model would write, not rounded; undoes `to_image_pixels`."""
    return to_image_pixels(
        box,
        coordinates="resized_pixels",
        image=resized if coordinates == "resized_pixels" else (1000, 1000),
        resized=image,
    )


def resized_size(image_processor: Any, size: tuple[int, int]) -> tuple[int, int]:  # noqa: ANN401 (a transformers class)
    """The size that a Qwen image processor gives an image.

    Args:
        image_processor: A Qwen2VLImageProcessor.
        size: (height, width) of the image in pixels.

    Returns:
        (height, width) in pixels, both multiples of a merged patch.
    """
    limits = image_processor.size
    height, width = smart_resize(
        size[0],
        size[1],
        factor=image_processor.patch_size * image_processor.merge_size,
        min_pixels=limits["shortest_edge"],
        max_pixels=limits["longest_edge"],
    )
    return int(height), int(width)
