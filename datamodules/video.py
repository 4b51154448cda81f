"""Frames from a video file, and a clip made of one video file and an expression.

A file is opened for each read and closed again. Which frames are served is fixed when the file is first looked at:
those on screen at times 0, 1/fps, 2/fps, ... by the file's own time stamps, so variable frame rates are right too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from decord import VideoReader
from decord._ffi.base import DECORDError
from jaxtyping import Float, UInt8

from datamodules.audio import read_audio
from datamodules.clean import clean_expression
from datamodules.errors import ConfigError, MediaError
from datamodules.media import check_indices, fit_size, shrink, unreadable
from datamodules.reader import ClipReader
from datamodules.records import Clip, FrameBudget, Frames
from datamodules.thinning import spread

_Result = TypeVar("_Result")

_SAFE_WIDTH = 256
"""Narrowest picture, in pixels, that decord is asked for. It mistakes the padding of a row for color channels where the
padded row is a multiple of the width, which happens below 128; narrower frames are decoded larger and shrunk."""


class VideoFrames(Frames):
    """Some frames of a video file; `open` makes one."""

    def __init__(self, path: Path, indices: Sequence[int], *, fps: float, size: tuple[int, int], clip_id: str) -> None:
        """Name the frames; the file is not opened.

        Args:
            path: The video file.
            indices: Frames of the file that make up the clip, in time order.
            fps: Frames per second of the clip.
            size: (height, width) of the video in pixels.
            clip_id: What error messages call the clip.
        """
        self.path = path
        self.indices = tuple(indices)
        self.count = len(self.indices)
        self.fps = fps
        self.clip_id = clip_id
        self._size = size

    @classmethod
    def open(cls, path: Path, *, clip_id: str, fps: float | None = None, max_frames: int | None = None) -> VideoFrames:
        """Look at a video file and choose its frames.

        Args:
            path: The video file.
            clip_id: What error messages call the clip.
            fps: Frames per second to serve; None, or more than the file has, serves every frame.
            max_frames: Most frames of the clip; a longer video is thinned out evenly and its `fps` lowered to match.

        Raises:
            MediaError: The file is missing, has no picture or cannot be decoded.
        """
        starts, rate, size = _decode(path, clip_id, _look)
        wanted = rate if fps is None else min(fps, rate)
        times = np.arange(max(1, math.ceil(len(starts) / rate * wanted - 1e-6))) / wanted
        # Half a millisecond of slack: time stamps are rounded to the container's time base.
        shown = np.searchsorted(starts, times + 5e-4, side="right") - 1
        kept = spread(len(times), max_frames)
        indices = [int(index) for index in np.clip(shown, 0, len(starts) - 1)[list(kept)]]
        return cls(path, indices, fps=wanted * len(kept) / len(times), size=size, clip_id=clip_id)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the video in pixels."""
        return self._size

    def read(
        self, indices: Sequence[int], *, max_pixels: int | None = None
    ) -> UInt8[np.ndarray, "frames height width 3"]:
        """RGB frames in the given order, shrunk where needed, while decoding as far as possible.

        Args:
            indices: 0-based into the clip.
            max_pixels: Shrink so that height x width is at most this, aspect ratio kept; None keeps the original.

        Returns:
            Values in 0..255; shape (0, height, width, 3) for no indices.

        Raises:
            IndexError: An index is outside the clip.
            MediaError: The file is gone or a frame cannot be decoded.
        """
        check_indices(indices, self.count, self.clip_id)
        height, width = target = fit_size(self.size, max_pixels)
        if not indices:
            return np.empty((0, *target, 3), dtype=np.uint8)
        chosen = [self.indices[index] for index in indices]
        times = math.ceil(_SAFE_WIDTH / width)
        decoded = (height * times, width * times) if width * times < self.size[1] else self.size
        resize = {} if decoded == self.size else {"height": decoded[0], "width": decoded[1]}
        frames = _decode(self.path, self.clip_id, partial(_batch, chosen=chosen), **resize)
        return frames if decoded == target else np.stack([shrink(frame, target) for frame in frames])

    def subset(self, indices: Sequence[int], *, fps: float) -> VideoFrames:
        """A clip of some of the frames.

        Args:
            indices: 0-based into this clip, in time order.
            fps: Frames per second of the new clip.
        """
        check_indices(indices, self.count, self.clip_id)
        chosen = [self.indices[index] for index in indices]
        return VideoFrames(self.path, chosen, fps=fps, size=self.size, clip_id=self.clip_id)


def video_clip(
    path: Path,
    expression: str,
    *,
    fps: float | None = 1.0,
    max_frames: int | None = None,
    budget: FrameBudget | None = None,
) -> Clip:
    """A clip of any video file, without ground truth.

    Args:
        path: The video file, with or without sound.
        expression: What to look for; cleaned like the expressions of the benchmarks.
        fps: Frames per second to serve; None serves every frame.
        max_frames: Most frames of the clip, spread evenly.
        budget: How much of the clip each system may look at; None takes the defaults.

    Raises:
        MediaError: The file is missing, has no picture or cannot be decoded.
    """
    clip_id = f"video/{path.name}"
    frames = VideoFrames.open(path, clip_id=clip_id, fps=fps, max_frames=max_frames)
    return Clip(
        id=clip_id,
        task="video",
        split="predict",
        kind="video",
        expression=clean_expression(expression),
        frames=frames,
        budget=budget or FrameBudget(),
        video=path.stem,
        expression_id="0",
        audio_source=partial(read_audio, path, clip_id=clip_id),
    )


def video_question(
    video: str | None, expression: str | None, *, fps: float | None, max_frames: int | None, budget: FrameBudget
) -> Clip:
    """The clip that a command line asks about.

    Args:
        video: The video file, as typed.
        expression: What to look for, as typed.
        fps: As in `video_clip`.
        max_frames: As in `video_clip`.
        budget: As in `video_clip`.

    Raises:
        ConfigError: One of the two is missing, or the expression says nothing.
        MediaError: The file is missing, has no picture or cannot be decoded.
    """
    if not video or not clean_expression(expression or ""):
        raise ConfigError(
            f"to predict on a video takes a file and an expression; data.video is {video!r} and data.expression is"
            f' {expression!r}. Set --data.video FILE --data.expression "the red car", or neither for the test splits of'
            " the benchmark."
        )
    return video_clip(Path(video), expression or "", fps=fps, max_frames=max_frames, budget=budget)


class SingleClip(ClipReader):
    """One clip, as a reader."""

    def __init__(self, clip: Clip) -> None:
        """Keep the clip.

        Args:
            clip: The clip.
        """
        self._only = clip

    @property
    def nulls(self) -> tuple[bool, ...]:
        """Whether the target of the clip is known to be absent."""
        return (self._only.is_null,)

    def clip(self, index: int, *, visit: int = 0) -> Clip:
        """The clip, whatever the visit.

        Args:
            index: 0.
            visit: Not used.
        """
        return (self._only,)[index]


def _decode(path: Path, clip_id: str, use: Callable[[VideoReader], _Result], **resize: int) -> _Result:
    """Open a video, use it and close it; the reader holds a file handle and decoder threads."""
    if not path.is_file():
        raise MediaError(f"{clip_id}: there is no video file {path}. Check the path (--data.video).")
    try:
        reader = VideoReader(str(path), num_threads=1, **resize)
        try:
            return use(reader)
        finally:
            del reader
    except (DECORDError, RuntimeError) as error:
        # The first line says what is wrong; the rest is a native stack trace.
        raise unreadable("video", path, clip_id, str(error).strip().split("\n")[0]) from error


def _look(reader: VideoReader) -> tuple[Float[np.ndarray, "frames"], float, tuple[int, int]]:
    stamps = np.asarray(reader.get_frame_timestamp(range(len(reader))), dtype=float).reshape(len(reader), -1)
    height, width = reader[0].shape[:2]
    return stamps[:, 0], float(reader.get_avg_fps()), (int(height), int(width))


def _batch(reader: VideoReader, *, chosen: list[int]) -> UInt8[np.ndarray, "frames height width 3"]:
    frames: UInt8[np.ndarray, "frames height width 3"] = reader.get_batch(chosen).asnumpy()
    return frames
