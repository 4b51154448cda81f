from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from datamodules.avshapes.scene import LOUDNESS, PITCHES, SHAPES, Scene, Sound, Thing, sample_scene
from datamodules.avshapes.sound import render_audio, render_silence

RATE = 16_000


def solo(scene: Scene, shape: str, pitch: int, loudness: int = 2) -> np.ndarray:
    """Two seconds of one sound."""
    thing = Thing(
        shape, "red", (0.1,) * 10, ((0.5, 0.5),) * 10, "stay", moves=False, sound=Sound(1.0, 3.0, pitch, loudness)
    )
    return render_audio(replace(scene, things=(thing,)))[RATE : 3 * RATE]


def power(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies in hertz and their power."""
    window = np.hanning(len(samples))
    return np.fft.rfftfreq(len(samples), 1 / RATE), np.abs(np.fft.rfft(samples * window)) ** 2


def share(samples: np.ndarray, low: float, high: float) -> float:
    """Share of the power between two frequencies."""
    hertz, energy = power(samples)
    return float(energy[(hertz >= low) & (hertz <= high)].sum() / energy.sum())


def voices(scenes: list[Scene]) -> Iterator[tuple[Thing, Sound, np.ndarray]]:
    for scene in scenes:
        samples = render_audio(scene)
        for thing in scene.things:
            if thing.sound is not None:
                start, end = round(thing.sound.start_s * RATE), round(thing.sound.end_s * RATE)
                yield thing, thing.sound, samples[start:end]


def test_sound_is_a_pure_function_of_the_scene(seen_scenes):
    samples = render_audio(seen_scenes[4])

    assert samples.tobytes() == render_audio(sample_scene(seen_scenes[4].key)).tobytes()
    assert samples.dtype == np.float32
    assert samples.shape == (160_000,)
    assert np.abs(samples).max() < 1


def test_there_is_energy_where_something_sounds_and_only_there(seen_scenes):
    """Noise floor 0.001 where nothing sounds; the quietest sound is twenty times as strong."""
    for scene in seen_scenes[:15]:
        samples = render_audio(scene).astype(np.float64)
        silent = np.ones(len(samples), dtype=bool)
        for thing in scene.things:
            if thing.sound is not None:
                start, end = round(thing.sound.start_s * RATE), round(thing.sound.end_s * RATE)
                silent[start:end] = False
                level = np.sqrt(np.mean(samples[start:end] ** 2))
                assert level == pytest.approx(LOUDNESS[thing.sound.loudness], rel=0.01)
        assert np.sqrt(np.mean(samples[silent] ** 2)) == pytest.approx(0.001, rel=0.05)


def test_the_strongest_frequency_is_the_pitch(seen_scenes, unseen_scenes):
    """Within 14 %: the siren swings by 12 %; the next pitch level is more than 60 % away."""
    for thing, sound, samples in voices(seen_scenes[:20] + unseen_scenes[:20]):
        hertz, energy = power(samples)
        assert hertz[np.argmax(energy)] == pytest.approx(PITCHES[sound.pitch], rel=0.14), thing.name


@pytest.mark.parametrize("pitch", range(4))
def test_timbres_are_clearly_different(seen_scenes, pitch):
    """Sine: all power at f. Odd harmonics 1/k: none at 2f, 1/9 of f's at 3f. Siren: much at 2f. Rattle: noise, gaps."""
    base = PITCHES[pitch]
    circle, square, triangle, star = (solo(seen_scenes[0], shape, pitch) for shape in SHAPES)
    near = {
        name: share(wave, 0.8 * base, 1.2 * base)
        for name, wave in zip(SHAPES, (circle, square, triangle, star), strict=True)
    }

    assert near["circle"] > 0.99
    assert share(square, 2.9 * base, 3.1 * base) == pytest.approx(near["square"] / 9, rel=0.05)
    assert share(square, 1.7 * base, 2.3 * base) < 0.001
    assert share(triangle, 1.7 * base, 2.3 * base) > 0.2
    assert share(triangle, 0.98 * base, 1.02 * base) < 0.6 * near["triangle"]
    assert share(star, 4500, 8000) > 0.1
    assert np.mean(np.abs(star) < 0.01) > 0.4


@pytest.mark.parametrize("shape", SHAPES)
def test_loudness_does_not_depend_on_timbre_or_pitch(seen_scenes, shape):
    for pitch in range(4):
        for loudness, expected in enumerate(LOUDNESS):
            level = np.sqrt(np.mean(solo(seen_scenes[0], shape, pitch, loudness).astype(np.float64) ** 2))
            assert level == pytest.approx(expected, rel=0.01)


def test_loudness_levels_are_log_spaced():
    steps = np.diff(20 * np.log10(LOUDNESS))

    assert steps == pytest.approx([8.7, 8.7], abs=0.15)


def test_a_muted_clip_has_the_noise_floor_alone(seen_scenes):
    samples = render_silence(seen_scenes[3])

    assert samples.shape == (160_000,)
    assert np.abs(samples).max() < 0.01
    assert np.sqrt(np.mean(samples.astype(np.float64) ** 2)) == pytest.approx(0.001, rel=0.02)
