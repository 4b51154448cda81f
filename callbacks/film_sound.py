"""The sound of a film, in frames that an AAC encoder takes."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from jaxtyping import Float32

from datamodules.records import SAMPLE_RATE, Clip
from datamodules.video import VideoFrames

_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
"""Rates that AAC has and every browser plays."""
_USUAL_RATE = 48_000


class Layout(NamedTuple):
    """How sound is stored: samples per second, and "mono" or "stereo"."""

    rate: int
    name: str


_HEARD = Layout(SAMPLE_RATE, "mono")
"""What the models hear."""


def sound_layout(clip: Clip) -> Layout | None:
    """How the sound of a clip's film is stored; None for a film without sound.

    Args:
        clip: Of a video file, which is opened, or of any other source.
    """
    if not isinstance(clip.frames, VideoFrames):
        return None if clip.audio is None else _HEARD
    with av.open(str(clip.frames.path)) as container:
        stream = _sound_stream(container)
        return None if stream is None else _layout_of(stream)


def sound_frames(clip: Clip) -> Iterator[av.AudioFrame]:
    """The sound of a clip, from its first picture to its last, as planar floats; nothing for a clip without sound.

    Args:
        clip: Of a video file, which is decoded, or of any other source.
    """
    if isinstance(clip.frames, VideoFrames):
        yield from _from_file(clip.frames.path, clip.duration_s)
    elif clip.audio is not None:
        yield _frame(clip.audio[None], _HEARD, 0)


def _from_file(path: Path, duration_s: float) -> Iterator[av.AudioFrame]:
    """Decoded, to be encoded anew: not every codec may be in an MP4, and the sound must end with the last picture."""
    with av.open(str(path)) as container:
        stream = _sound_stream(container)
        if stream is None:
            return
        layout = _layout_of(stream)
        resampler = av.AudioResampler(format="fltp", layout=layout.name, rate=layout.rate)
        delay = round((_start_s(stream) - _start_s(container.streams.video[0])) * layout.rate)
        end, written, skipped = round(duration_s * layout.rate), max(0, delay), max(0, -delay)
        if written:
            yield _frame(np.zeros((1 if layout.name == "mono" else 2, written), dtype=np.float32), layout, 0)
        for decoded in _decoded(container, stream):
            for part in resampler.resample(decoded):
                samples = part.to_ndarray()[:, skipped:]
                skipped -= part.samples - samples.shape[1]
                samples = samples[:, : max(0, end - written)]
                if samples.shape[1]:
                    yield _frame(samples, layout, written)
                    written += samples.shape[1]


def _sound_stream(container: av.container.InputContainer) -> av.AudioStream | None:
    """The first stream that can be decoded."""
    return next((stream for stream in container.streams.audio if stream.codec_context is not None), None)


def _layout_of(stream: av.AudioStream) -> Layout:
    """The stream's own rate and channels, as far as any browser plays them."""
    rate = stream.rate if stream.rate in _RATES else _USUAL_RATE
    return Layout(rate, "mono" if stream.channels == 1 else "stereo")


def _decoded(container: av.container.InputContainer, stream: av.AudioStream) -> Iterator[av.AudioFrame | None]:
    yield from container.decode(stream)
    yield None  # Lets the resampler hand out what it holds back.


def _start_s(stream: av.AudioStream | av.VideoStream) -> Fraction:
    return Fraction(stream.start_time or 0) * (stream.time_base or 1)


def _frame(samples: Float32[np.ndarray, "channels samples"], layout: Layout, position: int) -> av.AudioFrame:
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples, np.float32), format="fltp", layout=layout.name)
    frame.sample_rate, frame.time_base, frame.pts = layout.rate, Fraction(1, layout.rate), position
    return frame
