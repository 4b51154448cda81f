"""A clip as a small video file that any browser plays, with masks, keyframes, captions and sound.

H.264 (yuv420p) and AAC in MP4, with the index in front. The sound of a clip that was cut from a video file is the
file's own, at its own rate and with up to two channels; other clips have the mono sound that the models heard.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from jaxtyping import UInt8

from callbacks import drawing
from callbacks.captions import CaptionBar
from callbacks.film_sound import sound_frames, sound_layout
from datamodules.records import Rollout

_CHUNK = 16
_CRF = "20"
_BT709 = 1
_LIMITED = 1
"""Codes of the color space that players assume for high definition, and of its range of 16 to 235."""


def write_film(rollout: Rollout, path: Path, *, captions: bool = True) -> None:
    """Write the clip with its masks tinted and its keyframes framed.

    Frames are shown at the rate at which the clip was sampled, so that picture and sound stay together. H.264 wants
    even sizes; an odd row or column is repeated.

    Args:
        rollout: With masks; without them the bare frames are written.
        path: An .mp4 file.
        captions: Write the question, the descriptions and a time line under the frames.
    """
    bar = CaptionBar(rollout) if captions else None
    layout = sound_layout(rollout.clip)
    with av.open(str(path), "w", options={"movflags": "+faststart"}) as film:
        rate = Fraction(rollout.clip.frames.fps).limit_denominator(1001)
        pictures = film.add_stream("libx264", rate=rate, options={"crf": _CRF})
        height, width = rollout.clip.frames.size
        height += bar.height if bar else 0
        pictures.width, pictures.height, pictures.pix_fmt = width + width % 2, height + height % 2, "yuv420p"
        context = pictures.codec_context
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = _LIMITED
        tracks = [_picture_packets(rollout, pictures, bar)]
        if layout is not None:
            sound = film.add_stream("aac", rate=layout.rate, layout=layout.name)
            tracks.append(_sound_packets(rollout, sound))
        # Both tracks in order of time, so that a player need not jump within the file.
        for packet in heapq.merge(*tracks, key=_packet_time):
            film.mux(packet)


def _packet_time(packet: av.Packet) -> Fraction:
    return Fraction(packet.dts) * Fraction(packet.time_base)


def _picture_packets(rollout: Rollout, stream: av.VideoStream, bar: CaptionBar | None) -> Iterator[av.Packet]:
    for index, shown in _shown_frames(rollout):
        page = shown if bar is None else np.concatenate([shown, bar.draw(index)])
        picture = av.VideoFrame.from_ndarray(_even(page), format="rgb24")
        yield from stream.encode(picture.reformat(format="yuv420p", dst_colorspace="ITU709"))
    yield from stream.encode()


def _sound_packets(rollout: Rollout, stream: av.AudioStream) -> Iterator[av.Packet]:
    for frame in sound_frames(rollout.clip):
        yield from stream.encode(frame)
    yield from stream.encode()


def _shown_frames(rollout: Rollout) -> Iterator[tuple[int, UInt8[np.ndarray, "height width 3"]]]:
    """Every frame of the clip with what was predicted on it."""
    clip = rollout.clip
    boxes = {} if rollout.grounding is None else {one.frame: one.boxes for one in rollout.grounding.keyframes}
    picks = {keyframe.frame for keyframe in rollout.plan.keyframes}
    for start in range(0, clip.frames.count, _CHUNK):
        indices = range(start, min(start + _CHUNK, clip.frames.count))
        for index, frame in zip(indices, clip.frames.read(indices), strict=True):
            shown = frame
            if rollout.masks is not None:
                shown = drawing.tint(shown, rollout.masks.union([index])[0], drawing.PREDICTED)
            if index in picks:
                shown = _framed(drawing.with_boxes(shown, boxes.get(index, np.zeros((0, 4))), drawing.PICKED))
            yield index, shown


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
