"""Frames that are decoded where a clip is read, so that nobody waits for them later.

System 2 needs frames at their own size: keyframes for the grounder, all of them for the propagator. Without this they
are decoded in the middle of a step; with it, by the loader's workers while the model works on another batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import UInt8

from datamodules.media import FolderFrames, check_indices, fit_size, shrink
from datamodules.records import Clip, Frames

MOST_BYTES = 2**26
"""Largest clip that is decoded as a whole: 24 frames of 720p. Larger ones are decoded frame by frame when asked."""


class KeptFrames(Frames):
    """Frames of a folder, all in memory; they read as they would from the folder."""

    def __init__(self, frames: FolderFrames) -> None:
        """Decode all frames.

        Args:
            frames: The folder's.

        Raises:
            MediaError: A frame is missing or cannot be decoded.
        """
        self.count = frames.count
        self.fps = frames.fps
        self._clip_id = frames.clip_id
        self._pixels = frames.read(range(frames.count))

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the frames in pixels."""
        return self._pixels.shape[1], self._pixels.shape[2]

    def read(
        self, indices: Sequence[int], *, max_pixels: int | None = None
    ) -> UInt8[np.ndarray, "frames height width 3"]:
        """See `FolderFrames.read`."""
        check_indices(indices, self.count, self._clip_id)
        target = fit_size(self.size, max_pixels)
        out = np.empty((len(indices), *target, 3), dtype=np.uint8)
        for frame, index in zip(out, indices, strict=True):
            frame[:] = shrink(self._pixels[index], target)
        return out


def with_frames_kept(clip: Clip) -> Clip:
    """The clip with its frames decoded, or as it is where they are no folder's or take more than `MOST_BYTES`.

    Args:
        clip: Of which nothing was read yet; what was is forgotten.

    Raises:
        MediaError: A frame is missing or cannot be decoded.
    """
    frames = clip.frames
    if not isinstance(frames, FolderFrames) or 3 * frames.count * frames.size[0] * frames.size[1] > MOST_BYTES:
        return clip
    return replace(clip, frames=KeptFrames(frames))
