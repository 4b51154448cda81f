"""Turn a scene into sound: one timbre per shape, pitch and loudness from the scene, over a faint noise floor.

Circles sing a pure tone, squares buzz (odd harmonics), triangles howl like a siren (octaves under vibrato), stars
rattle (tone and noise, gated). Every sound is scaled to the root mean square of its loudness level, so loudness does
not depend on timbre or pitch.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float32

from datamodules.avshapes.world import LOUDNESS, PITCHES, Scene, Sound, Stream, generator

_FADE_S = 0.02
_BUZZ_CEILING_HZ = 7000.0
_VIBRATO_HZ = 4.0
_VIBRATO_DEPTH = 0.12
_RATTLE_HZ = 7.0


def render_audio(scene: Scene) -> Float32[np.ndarray, "samples"]:
    """Mono sound of the whole clip.

    Args:
        scene: The scene.

    Returns:
        ``round(duration_s * sample_rate)`` samples in -1..1; only the noise floor where nothing sounds.
    """
    rate = scene.world.sample_rate
    rng = generator(scene.key, Stream.NOISE)
    samples = rng.standard_normal(round(scene.world.duration_s * rate)) * scene.world.floor
    for thing in scene.things:
        if thing.sound is None:
            continue
        start, end = round(thing.sound.start_s * rate), round(thing.sound.end_s * rate)
        noise = rng.standard_normal(end - start)
        samples[start:end] += _voice(thing.shape, thing.sound, noise, rate)
    return np.clip(samples, -1, 1).astype(np.float32)


def render_silence(scene: Scene) -> Float32[np.ndarray, "samples"]:
    """The noise floor of a muted clip: as long as its sound, nothing sounds."""
    count = round(scene.world.duration_s * scene.world.sample_rate)
    return (generator(scene.key, Stream.NOISE).standard_normal(count) * scene.world.floor).astype(np.float32)


def _voice(shape: str, sound: Sound, noise: Float[np.ndarray, "samples"], rate: int) -> Float[np.ndarray, "samples"]:
    """One sound at its loudness level, faded in and out."""
    count = len(noise)
    time = np.arange(count) / rate
    wave = _timbre(shape, PITCHES[sound.pitch], time, noise, rate)
    edge = np.minimum(np.arange(count), np.arange(count)[::-1]) / (_FADE_S * rate)
    wave = wave * np.minimum(edge, 1)
    return np.asarray(wave * (LOUDNESS[sound.loudness] / np.sqrt(np.mean(wave**2))))


def _timbre(
    shape: str, pitch_hz: float, time: Float[np.ndarray, "samples"], noise: Float[np.ndarray, "samples"], rate: int
) -> Float[np.ndarray, "samples"]:
    """The waveform of a shape, unscaled."""
    phase = 2 * np.pi * pitch_hz * time
    if shape == "circle":
        return np.asarray(np.sin(phase))
    if shape == "square":
        ceiling = min(_BUZZ_CEILING_HZ, 0.45 * rate)
        return np.asarray(sum(np.sin(k * phase) / k for k in (1, 3, 5, 7, 9, 11) if k * pitch_hz < ceiling))
    if shape == "triangle":
        swing = _VIBRATO_DEPTH * pitch_hz / _VIBRATO_HZ * np.sin(2 * np.pi * _VIBRATO_HZ * time)
        return np.asarray(np.sin(phase + swing) + 0.7 * np.sin(2 * (phase + swing)) + 0.4 * np.sin(4 * (phase + swing)))
    gate = np.clip(20 * np.sin(2 * np.pi * _RATTLE_HZ * time), 0, 1)
    return np.asarray((np.sin(phase) + 0.5 * noise) * gate)
