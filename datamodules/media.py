"""Frames and masks from disk: image folders, video files, PNG masks.

Everything is read when asked and closed again; what is kept between two reads is numbers and paths, so every object
here can be sent to another process. Frames come out as RGB at the original size or shrunk, never enlarged. Sound is
read by `datamodules.audio`.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Shaped, UInt8
from PIL import Image

from datamodules.errors import MediaError
from datamodules.masks import MaskTrack
from datamodules.records import Frames

# What Pillow raises on broken files, depending on the format and on where the file is broken.
BROKEN_IMAGE = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)


def fit_size(size: tuple[int, int], max_pixels: int | None) -> tuple[int, int]:
    """The largest size of the same shape that stays within a pixel budget.

    Args:
        size: (height, width) in pixels.
        max_pixels: Most pixels, height x width, at least 1; None sets no limit.

    Returns:
        (height, width), each at least 1 and never larger than `size`. Rounding down changes the aspect ratio by less
        than one pixel per side.
    """
    height, width = size
    if max_pixels is None or height * width <= max_pixels:
        return size
    scale = math.sqrt(max_pixels / (height * width))
    rows, columns = max(1, math.floor(height * scale)), max(1, math.floor(width * scale))
    # Very long shapes: where one side was lifted to a single pixel, the other has the whole budget.
    return min(rows, max(1, max_pixels // columns)), min(columns, max(1, max_pixels // rows))


def shrink(image: UInt8[np.ndarray, "height width 3"], size: tuple[int, int]) -> UInt8[np.ndarray, "rows columns 3"]:
    """Bring an image to a (height, width) in pixels by antialiased bicubic interpolation."""
    if image.shape[:2] == size:
        return image
    return np.asarray(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BICUBIC))


class FolderFrames(Frames):
    """Frames kept as one image file each."""

    def __init__(self, files: Sequence[Path], *, fps: float, clip_id: str) -> None:
        """Name the files; none is opened.

        Args:
            files: One image per frame, in time order, at least one.
            fps: Frames per second that the files stand for.
            clip_id: What error messages call the clip.
        """
        self.files = tuple(files)
        self.count = len(self.files)
        self.fps = fps
        self.clip_id = clip_id

    @cached_property
    def size(self) -> tuple[int, int]:
        """(height, width) of the first frame in pixels; only the file's header is read.

        Raises:
            MediaError: The file is missing or is no image.
        """
        try:
            with Image.open(self.files[0]) as image:
                return image.height, image.width
        except BROKEN_IMAGE as error:
            raise _unreadable("frame", self.files[0], self.clip_id, error) from error

    def read(
        self, indices: Sequence[int], *, max_pixels: int | None = None
    ) -> UInt8[np.ndarray, "frames height width 3"]:
        """RGB frames in the given order, shrunk with antialiased bicubic interpolation where needed.

        Args:
            indices: 0-based into the clip.
            max_pixels: Shrink so that height x width is at most this, aspect ratio kept; None keeps the original.

        Returns:
            Values in 0..255; shape (0, height, width, 3) for no indices.

        Raises:
            IndexError: An index is outside the clip.
            MediaError: A frame is missing, cannot be decoded, or has another size than the first.
        """
        check_indices(indices, self.count, self.clip_id)
        target = fit_size(self.size, max_pixels)
        out = np.empty((len(indices), *target, 3), dtype=np.uint8)
        for frame, index in zip(out, indices, strict=True):
            image = _open_image(self.files[index], "frame", self.clip_id).convert("RGB")
            if (image.height, image.width) != self.size:
                raise MediaError(
                    f"{self.clip_id}: frame {self.files[index]} is {image.height}x{image.width} pixels, the first frame"
                    f" of the clip is {self.size[0]}x{self.size[1]}. Restore the file or set --data.on_bad_sample skip."
                )
            frame[:] = shrink(np.asarray(image), target)
        return out

    def subset(self, indices: Sequence[int], *, fps: float) -> FolderFrames:
        """A clip of some of the frames.

        Args:
            indices: 0-based into this clip, in time order.
            fps: Frames per second of the new clip.
        """
        check_indices(indices, self.count, self.clip_id)
        return FolderFrames([self.files[index] for index in indices], fps=fps, clip_id=self.clip_id)


def read_mask(path: Path, size: tuple[int, int] | None, *, clip_id: str) -> Bool[np.ndarray, "height width"]:
    """Read one mask image.

    A pixel belongs to the target when any of its color channels is above 0; palette images count by the color that an
    index stands for, and transparency is ignored.

    Args:
        path: A PNG, of any mode.
        size: (height, width) of the frame; a mask of another size is brought to it by nearest-neighbor sampling. None
            keeps the mask's own.
        clip_id: What error messages call the clip.

    Raises:
        MediaError: The file is missing or cannot be decoded.
    """
    image = _open_image(path, "mask", clip_id)
    # Converting 16- and 32-bit images to RGB would clip or scale their values.
    wide = image.mode.startswith(("I", "F"))
    pixels: Shaped[np.ndarray, "height width channels"] = np.atleast_3d(
        np.asarray(image if wide else image.convert("RGB"))
    )
    mask = np.asarray((pixels > 0).any(axis=2))
    return mask if size is None else resize_mask(mask, size)


def resize_mask(mask: Bool[np.ndarray, "height width"], size: tuple[int, int]) -> Bool[np.ndarray, "rows columns"]:
    """Bring a mask to a (height, width) in pixels by nearest-neighbor sampling."""
    if mask.shape == size:
        return mask
    resized = Image.fromarray(mask.astype(np.uint8)).resize((size[1], size[0]), Image.Resampling.NEAREST)
    return np.asarray(resized).astype(bool)


def read_mask_track(files: Sequence[Path], size: tuple[int, int], *, clip_id: str) -> MaskTrack:
    """Read the masks of one object, one file per frame.

    Args:
        files: In time order.
        size: (height, width) of the frames in pixels.
        clip_id: What error messages call the clip.

    Returns:
        A track with one object; a frame without a foreground pixel has no mask. Files of another size than the frames
        are brought to it as by `read_mask`, and kept as they are in `MaskTrack.stored`.

    Raises:
        MediaError: A file is missing or cannot be decoded.
    """
    masks = [read_mask(path, None, clip_id=clip_id) for path in files]
    track = MaskTrack.from_dense(np.stack([resize_mask(mask, size) for mask in masks])[:, None])
    if all(mask.shape == size for mask in masks):
        return track
    return replace(track, stored=tuple(MaskTrack.from_dense(mask[None, None]) for mask in masks))


def check_indices(indices: Sequence[int], count: int, clip_id: str) -> None:
    """Refuse frame indices outside a clip; negative ones do not count from the end.

    Args:
        indices: What was asked for.
        count: Frames of the clip.
        clip_id: What the message calls the clip.

    Raises:
        IndexError: Some are outside; names them.
    """
    outside = [index for index in indices if not 0 <= index < count]
    if outside:
        raise IndexError(f"{clip_id}: frames {outside} were asked for; the clip has frames 0 to {count - 1}.")


def unreadable(kind: str, path: Path, clip_id: str, reason: str) -> MediaError:
    """The error for a file that is missing or cannot be decoded.

    Args:
        kind: What the file holds, such as "frame".
        path: The file.
        clip_id: What the message calls the clip.
        reason: What went wrong.
    """
    problem = "cannot be decoded" if path.is_file() else "is missing"
    return MediaError(
        f"{clip_id}: {kind} {path} {problem} ({reason}). Restore the file or set --data.on_bad_sample skip."
    )


def _unreadable(kind: str, path: Path, clip_id: str, error: BaseException) -> MediaError:
    return unreadable(kind, path, clip_id, f"{type(error).__name__}: {error}")


def _open_image(path: Path, kind: str, clip_id: str) -> Image.Image:
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except BROKEN_IMAGE as error:
        raise _unreadable(kind, path, clip_id, error) from error
