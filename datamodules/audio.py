"""Sound from audio and video files, as mono float32 at 16 kHz.

What a clip sounds like is decided elsewhere: this module reads one file, whatever its rate and channels.
"""

from __future__ import annotations

from pathlib import Path

import av
import librosa
import numpy as np
import soundfile
from decord import AudioReader
from decord._ffi.base import DECORDError
from jaxtyping import Float32

from datamodules.media import unreadable
from datamodules.records import SAMPLE_RATE

AUDIO_SUFFIXES = frozenset({".wav", ".flac", ".mp3", ".ogg", ".opus", ".aif", ".aiff", ".au"})
"""File names read as pure sound; every other file is opened as a video container."""


def read_audio(path: Path, *, clip_id: str) -> Float32[np.ndarray, "samples"] | None:
    """Read a file's sound.

    Args:
        path: An audio file, or a video file with or without sound.
        clip_id: What error messages call the clip.

    Returns:
        Mono samples in -1..1 at 16 kHz, channels averaged; None when the file holds no sound at all (a video without
        an audio stream, or no samples).

    Raises:
        MediaError: The file is missing, cannot be decoded, or holds samples that are no numbers.
    """
    read = _from_audio_file if path.suffix.lower() in AUDIO_SUFFIXES else _from_video_file
    samples = read(path, clip_id)
    if samples is None or not samples.size:
        return None
    if not np.isfinite(samples).all():
        raise unreadable("sound", path, clip_id, "it holds NaN or infinite samples")
    # Resampling may overshoot by a little.
    return np.asarray(np.clip(samples, -1.0, 1.0), dtype=np.float32)


def _from_audio_file(path: Path, clip_id: str) -> Float32[np.ndarray, "samples"]:
    try:
        channels, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, OSError) as error:
        raise unreadable("sound", path, clip_id, str(error)) from error
    mono: Float32[np.ndarray, "samples"] = channels.mean(axis=1)
    if rate == SAMPLE_RATE or not mono.size:
        # librosa's functions take seconds to load on first use, in every worker.
        return mono
    return np.asarray(librosa.resample(mono, orig_sr=rate, target_sr=SAMPLE_RATE))


def _from_video_file(path: Path, clip_id: str) -> Float32[np.ndarray, "samples"] | None:
    try:
        with av.open(str(path)) as container:
            is_silent = not container.streams.audio
    except (av.FFmpegError, OSError) as error:
        raise unreadable("sound", path, clip_id, str(error)) from error
    if is_silent:
        return None
    try:
        samples = AudioReader(str(path), sample_rate=SAMPLE_RATE, mono=True)[:].asnumpy()
    except (DECORDError, RuntimeError) as error:
        raise unreadable("sound", path, clip_id, str(error).strip().split("\n")[0]) from error
    mono: Float32[np.ndarray, "samples"] = samples.reshape(-1)
    return mono
