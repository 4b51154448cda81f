import numpy as np
import pytest
import soundfile
from benchmark_trees import write_video

from datamodules.audio import read_audio
from datamodules.errors import MediaError


def pitch(samples):
    """Frequency of the strongest part, in Hz at 16 kHz."""
    return int(np.abs(np.fft.rfft(samples)).argmax() * 16_000 / len(samples))


def tone(rate, seconds=1.0, channels=1):
    wave = 0.5 * np.sin(2 * np.pi * 440 * np.arange(int(rate * seconds)) / rate)
    return np.stack([wave] * channels, axis=1)


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_any_rate_and_channels_become_mono_at_16_khz(tmp_path, rate, channels):
    soundfile.write(tmp_path / "a.wav", tone(rate, channels=channels), rate)

    samples = read_audio(tmp_path / "a.wav", clip_id="c")

    assert samples is not None
    assert samples.dtype == np.float32
    assert samples.ndim == 1
    assert abs(len(samples) - 16_000) <= 1
    assert abs(pitch(samples) - 440) <= 2
    assert abs(np.abs(samples[2000:-2000]).max() - 0.5) < 0.01


def test_channels_are_averaged(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.array([[0.5, 0.0], [0.25, -0.25]]), 16_000, subtype="FLOAT")

    samples = read_audio(tmp_path / "a.wav", clip_id="c")

    assert samples is not None
    assert samples.tolist() == [0.25, 0.0]


def test_loud_samples_are_cut_to_the_range(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.array([1.5, -2.0, 0.5]), 16_000, subtype="FLOAT")

    samples = read_audio(tmp_path / "a.wav", clip_id="c")

    assert samples is not None
    assert samples.tolist() == [1.0, -1.0, 0.5]


@pytest.mark.parametrize("suffix", ["flac", "ogg", "mp3"])
def test_compressed_sound_is_read(tmp_path, suffix):
    soundfile.write(tmp_path / f"a.{suffix}", tone(16_000), 16_000)

    samples = read_audio(tmp_path / f"a.{suffix}", clip_id="c")

    assert samples is not None
    assert abs(pitch(samples) - 440) <= 2


def test_the_sound_of_a_video_is_read(tmp_path):
    samples = read_audio(write_video(tmp_path / "v.mp4", sound_s=3.0), clip_id="c")

    assert samples is not None
    assert abs(len(samples) - 48_000) < 3200
    assert abs(pitch(samples) - 440) <= 2
    assert np.abs(samples).max() <= 1


def test_no_sound_is_none(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros((0, 1)), 44_100)

    assert read_audio(tmp_path / "a.wav", clip_id="c") is None
    assert read_audio(write_video(tmp_path / "v.mp4", frames=3), clip_id="c") is None


@pytest.mark.parametrize("name", ["a.wav", "v.mp4"])
def test_a_missing_file_is_named(tmp_path, name):
    with pytest.raises(MediaError, match=rf"refavs/x: sound .*{name} is missing"):
        read_audio(tmp_path / name, clip_id="refavs/x")


@pytest.mark.parametrize("name", ["a.wav", "v.mp4"])
def test_a_broken_file_is_named(tmp_path, name):
    (tmp_path / name).write_bytes(b"RIFF and nothing else")

    with pytest.raises(MediaError, match=rf"c: sound .*{name} cannot be decoded"):
        read_audio(tmp_path / name, clip_id="c")


def test_a_video_whose_sound_is_damaged_is_named(tmp_path):
    """The stream is declared in the header; its bytes are wiped out."""
    path = write_video(tmp_path / "v.mp4", frames=2, sound_s=10.0)
    data = bytearray(path.read_bytes())
    body = data.index(b"mdat")
    end = data.index(b"moov")
    data[body + 4 : end - 4] = bytes([255]) * (end - 8 - body)
    path.write_bytes(data)

    with pytest.raises(MediaError, match=r"sound .* cannot be decoded"):
        read_audio(path, clip_id="c")


def test_samples_that_are_no_numbers_are_refused(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.array([0.1, np.nan]), 16_000, subtype="FLOAT")

    with pytest.raises(MediaError, match="NaN or infinite"):
        read_audio(tmp_path / "a.wav", clip_id="c")
