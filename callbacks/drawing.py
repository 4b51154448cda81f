"""Pictures of masks, boxes and time lines, as plain RGB arrays.

Nothing here knows a trainer or a logger. Colors are chosen to stay apart for color-blind readers: the prediction is
orange, the ground truth blue.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import binary_erosion

Color = tuple[int, int, int]

PREDICTED: Color = (255, 140, 0)
TRUE: Color = (0, 150, 255)
PICKED: Color = (230, 30, 90)
_PAPER: Color = (24, 24, 28)
_INK: Color = (235, 235, 235)
_LINE = 16
"""Height of a line of text in pixels."""


def tint(
    frame: UInt8[np.ndarray, "height width 3"],
    mask: Bool[np.ndarray, "height width"],
    color: Color,
    *,
    share: float = 0.45,
) -> UInt8[np.ndarray, "height width 3"]:
    """Color the pixels of a mask, with a solid outline.

    Args:
        frame: RGB.
        mask: Which pixels; an empty mask leaves the frame as it is.
        color: RGB.
        share: How much of the color covers the picture inside the outline, 0..1.
    """
    out = frame.astype(np.float32)
    out[mask] = (1 - share) * out[mask] + share * np.array(color, dtype=np.float32)
    outline = mask & ~binary_erosion(mask, iterations=max(1, frame.shape[0] // 200))
    out[outline] = color
    return out.astype(np.uint8)


def with_boxes(
    frame: UInt8[np.ndarray, "height width 3"], boxes: Float[np.ndarray, "boxes 4"], color: Color
) -> UInt8[np.ndarray, "height width 3"]:
    """Draw box outlines.

    Args:
        frame: RGB.
        boxes: xyxy in pixels of the frame, half-open.
        color: RGB.
    """
    image = Image.fromarray(frame)
    draw = ImageDraw.Draw(image)
    for left, top, right, bottom in boxes.tolist():
        corners = [left, top, max(left, right - 1), max(top, bottom - 1)]
        draw.rectangle(corners, outline=color, width=max(1, frame.shape[0] // 150))
    return np.asarray(image).copy()


def captioned(
    frame: UInt8[np.ndarray, "height width 3"], lines: Sequence[str], *, above: bool = False
) -> UInt8[np.ndarray, "taller width 3"]:
    """Put lines of text under a picture; a line that is too wide is cut.

    Args:
        frame: RGB.
        lines: One string per line.
        above: Put them over the picture instead.
    """
    height, width = frame.shape[:2]
    page = Image.new("RGB", (width, height + _LINE * len(lines)), _PAPER)
    page.paste(Image.fromarray(frame), (0, _LINE * len(lines) if above else 0))
    draw, font = ImageDraw.Draw(page), ImageFont.load_default()
    for index, line in enumerate(lines):
        while line and draw.textlength(line, font=font) > width - 6:
            line = line[:-2].rstrip(".") + "." if len(line) > 2 else ""
        draw.text((3, (0 if above else height) + _LINE * index + 2), line, fill=_INK, font=font)
    return np.asarray(page).copy()


def beside(images: Sequence[UInt8[np.ndarray, "_ _ 3"]], *, gap: int = 4) -> UInt8[np.ndarray, "height width 3"]:
    """Put pictures side by side, aligned at the top."""
    return _stack(images, axis=1, gap=gap)


def below(images: Sequence[UInt8[np.ndarray, "_ _ 3"]], *, gap: int = 4) -> UInt8[np.ndarray, "height width 3"]:
    """Put pictures under each other, aligned at the left."""
    return _stack(images, axis=0, gap=gap)


def fitted(frame: UInt8[np.ndarray, "_ _ 3"], height: int) -> UInt8[np.ndarray, "height width 3"]:
    """Scale a picture to a height in pixels, aspect ratio kept."""
    width = max(1, round(frame.shape[1] * height / frame.shape[0]))
    method = Image.Resampling.LANCZOS if height < frame.shape[0] else Image.Resampling.NEAREST
    return np.asarray(Image.fromarray(frame).resize((width, height), method)).copy()


def timeline(
    areas: Float[np.ndarray, "frames"],
    picks: Sequence[int],
    *,
    width: int = 480,
    height: int = 72,
    color: Color = TRUE,
) -> UInt8[np.ndarray, "height width 3"]:
    """Visible area of the target over time, with the picked frames marked.

    Args:
        areas: Visible pixels of the target per frame; all 0 for a target that is not there.
        picks: Picked frames, 0-based.
        width: Of the picture, pixels.
        height: Of the picture, pixels.
        color: Of the bars; the color of the ground truth unless told otherwise.

    Returns:
        One bar per frame, as high as its share of the largest area; picked frames stand on a red field.
    """
    page = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(page)
    frames, most = len(areas), max(float(areas.max(initial=0.0)), 1.0)
    for frame, area in enumerate(areas.tolist()):
        left, right = round(frame * width / frames), round((frame + 1) * width / frames) - 1
        if frame in picks:
            draw.rectangle([left, 0, right, height - 1], fill=tuple(channel // 2 for channel in PICKED))
            draw.rectangle([left, height - 4, right, height - 1], fill=PICKED)
        if not area:
            continue
        top = height - 6 - round((height - 10) * area / most)
        draw.rectangle([left + 1, top, max(left + 1, right - 1), height - 6], fill=color)
    return np.asarray(page).copy()


def _stack(images: Sequence[UInt8[np.ndarray, "_ _ 3"]], *, axis: int, gap: int) -> UInt8[np.ndarray, "height width 3"]:
    if not images:
        return np.full((_LINE, _LINE, 3), _PAPER, dtype=np.uint8)
    across = 1 - axis
    size = max(image.shape[across] for image in images)
    padded = []
    for index, image in enumerate(images):
        margin = [(0, 0), (0, 0), (0, 0)]
        margin[across] = (0, size - image.shape[across])
        margin[axis] = (0, gap if index < len(images) - 1 else 0)
        channels = [np.pad(image[..., channel], margin[:2], constant_values=_PAPER[channel]) for channel in range(3)]
        padded.append(np.stack(channels, axis=-1))
    return np.concatenate(padded, axis=axis)
