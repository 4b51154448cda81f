"""A clip as a small video file, with masks, keyframes and sound."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from jaxtyping import Float32, UInt8

from callbacks import drawing
from datamodules.records import SAMPLE_RATE, Rollout

_CHUNK = 16
_CRF = "20"


def write_film(rollout: Rollout, path: Path) -> None:
    """Write the clip with its masks tinted and its keyframes framed.

    Frames are shown at the rate at which the clip was sampled, so that picture and sound stay together. H.264 wants
    even sizes; an odd row or column is repeated.

    Args:
        rollout: With masks; without them the bare frames are written.
        path: An .mp4 file.
    """
    clip = rollout.clip
    boxes = {} if rollout.grounding is None else {one.frame: one.boxes for one in rollout.grounding.keyframes}
    picks = {keyframe.frame: keyframe.description for keyframe in rollout.plan.keyframes}
    height, width = (side + side % 2 for side in clip.frames.size)
    with av.open(str(path), "w") as film:
        pictures = film.add_stream(
            "libx264", rate=Fraction(clip.frames.fps).limit_denominator(1001), options={"crf": _CRF}
        )
        pictures.width, pictures.height, pictures.pix_fmt = width, height, "yuv420p"
        sound = None if clip.audio is None else film.add_stream("aac", rate=SAMPLE_RATE)
        for start in range(0, clip.frames.count, _CHUNK):
            indices = range(start, min(start + _CHUNK, clip.frames.count))
            for index, frame in zip(indices, clip.frames.read(indices), strict=True):
                shown = frame
                if rollout.masks is not None:
                    shown = drawing.tint(shown, rollout.masks.union([index])[0], drawing.PREDICTED)
                if index in picks:
                    shown = _framed(drawing.with_boxes(shown, boxes.get(index, np.zeros((0, 4))), drawing.PREDICTED))
                picture = av.VideoFrame.from_ndarray(_even(shown), format="rgb24")
                film.mux(pictures.encode(picture))
        film.mux(pictures.encode())
        if sound is not None and clip.audio is not None:
            _write_sound(film, sound, clip.audio)


def _write_sound(
    film: av.container.OutputContainer, stream: av.AudioStream, samples: Float32[np.ndarray, "samples"]
) -> None:
    """Encode mono sound; the encoder cuts it into frames of its own length."""
    frame = av.AudioFrame.from_ndarray(
        np.ascontiguousarray(samples[None], dtype=np.float32), format="fltp", layout="mono"
    )
    frame.sample_rate = SAMPLE_RATE
    frame.time_base = Fraction(1, SAMPLE_RATE)
    frame.pts = 0
    film.mux(stream.encode(frame))
    film.mux(stream.encode())


def _framed(frame: UInt8[np.ndarray, "height width 3"]) -> UInt8[np.ndarray, "height width 3"]:
    """A border that marks a keyframe."""
    thickness = max(2, frame.shape[0] // 100)
    out = np.empty_like(frame)
    out[:] = np.array(drawing.PICKED, dtype=np.uint8)
    inner = slice(thickness, -thickness)
    out[inner, inner] = frame[inner, inner]
    return out


def _even(frame: UInt8[np.ndarray, "height width 3"]) -> UInt8[np.ndarray, "even_height even_width 3"]:
    height, width = frame.shape[:2]
    return np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
