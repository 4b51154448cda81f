"""Films: what is drawn, what is heard, and that a browser can play them."""

import os
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from films import Film
from stage import plan_of, rollout_of

from callbacks import drawing
from callbacks.captions import CaptionBar
from callbacks.film import write_film
from callbacks.film_sound import sound_layout
from datamodules.masks import MaskTrack
from datamodules.records import Rollout
from datamodules.video import video_clip


def about(path: Path, *, fps: float | None = 2.0) -> Rollout:
    """Keyframes and empty masks for a video file."""
    clip = video_clip(path, "the loud one", fps=fps)
    masks = MaskTrack.empty(clip.frames.count, clip.frames.size)
    return replace(rollout_of(), clip=clip, plan=plan_of([0, 1]), grounding=None, masks=masks)


def write_source(
    path: Path, *, rate: int = 44_100, layout: str = "stereo", codec: str = "aac", delay_s: float = 0.0
) -> Path:
    """Three seconds of gray at 10 frames per second; a tone of 440 Hz left and 880 Hz right, which may start late."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=10)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        sound = container.add_stream(codec, rate=rate, layout=layout)
        for index in range(30):
            image = np.full((48, 64, 3), 5 * index, np.uint8)
            container.mux(video.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(video.encode())
        time = np.arange(round((3 - delay_s) * rate)) / rate
        tones = [0.5 * np.sin(2 * np.pi * hertz * time) for hertz in ((440, 880) if layout == "stereo" else (440,))]
        block = av.AudioFrame.from_ndarray(np.array(tones, np.float32), format="fltp", layout=layout)
        block.sample_rate, block.time_base, block.pts = rate, Fraction(1, rate), round(delay_s * rate)
        resampler = av.AudioResampler(format=sound.format.name, layout=layout, rate=rate)
        for part in [*resampler.resample(block), *resampler.resample(None)]:
            container.mux(sound.encode(part))
        container.mux(sound.encode())
    return path


def strongest(samples: np.ndarray, rate: int) -> float:
    """Frequency of the loudest tone in hertz."""
    return float(np.abs(np.fft.rfft(samples)).argmax() * rate / len(samples))


def test_a_browser_can_play_it(tmp_path: Path) -> None:
    """H.264 with 4:2:0 colors, AAC, and the index before the media, so that playing can begin at once."""
    write_film(rollout_of(), tmp_path / "film.mp4")
    film = Film(tmp_path / "film.mp4")
    assert film.codecs == ("h264", "aac")
    assert film.pixels == "yuv420p"
    assert film.times_s == pytest.approx([0, 1, 2, 3])
    data = (tmp_path / "film.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    with av.open(str(tmp_path / "film.mp4")) as container:
        starts = [packet.dts * packet.time_base for packet in container.demux() if packet.dts is not None]
    assert starts == sorted(starts), "picture and sound are interleaved"


def test_keyframes_are_framed(tmp_path: Path) -> None:
    """Video coding blurs colors, so the border only has to be much redder than the border of a frame without."""
    write_film(rollout_of(frames=(1,)), tmp_path / "film.mp4", captions=False)
    red = [float(frame[:2, :, 0].mean() - frame[:2, :, 1].mean()) for frame in Film(tmp_path / "film.mp4").frames]
    assert red[1] > 80
    assert max(red[0], *red[2:]) < 60


def test_a_tinted_frame_differs_where_the_mask_is(tmp_path: Path) -> None:
    write_film(rollout_of(frames=()), tmp_path / "film.mp4")
    frame = Film(tmp_path / "film.mp4").frames[0]
    inside = frame[10:22, 10:22].mean(axis=(0, 1))
    outside = frame[30:50, 30:50].mean(axis=(0, 1))
    assert inside[0] - inside[2] > outside[0] - outside[2] + 40, f"{drawing.PREDICTED} pulls red up and blue down"


def test_odd_sizes_and_silence_are_fine(tmp_path: Path) -> None:
    rollout = rollout_of(frames=(), has_audio=False)
    frames = rollout.clip.frames
    frames.pixels = frames.pixels[:, :55, :53]
    write_film(replace(rollout, masks=None, grounding=None), tmp_path / "film.mp4", captions=False)
    film = Film(tmp_path / "film.mp4")
    assert film.frames[0].shape == (56, 54, 3)
    assert film.sound is None


def test_the_caption_stands_under_the_frame(tmp_path: Path) -> None:
    write_film(rollout_of(), tmp_path / "film.mp4")
    bar = CaptionBar(rollout_of())
    assert Film(tmp_path / "film.mp4").frames[0].shape[0] == 56 + bar.height + bar.height % 2


def bar_of(rollout: Rollout) -> CaptionBar:
    """On a picture that is wide enough for text."""
    frames = rollout.clip.frames
    frames.pixels = np.zeros((4, 360, 640, 3), np.uint8)
    return CaptionBar(replace(rollout, masks=None))


def status(rollout: Rollout, frame: int) -> tuple[str, drawing.Color]:
    return bar_of(rollout)._status(frame)


def test_captions_follow_the_plan() -> None:
    rollout = rollout_of(frames=(1, 3))
    assert status(rollout, 0)[0] == "first keyframe at 1.0 s"
    assert status(rollout, 1) == ("keyframe 1 of 2, 1.0 s: the red circle", drawing.PICKED)
    text, color = status(rollout, 2)
    assert (text, color != drawing.PICKED) == ("keyframe 1 of 2, 1.0 s: the red circle", True)
    assert status(rollout, 3)[0].startswith("keyframe 2 of 2")
    assert status(rollout_of(frames=()), 0)[0] == "said to be absent"
    unusable = replace(rollout, plan=replace(plan_of([]), is_absent=False))
    assert status(unusable, 0)[0] == "no usable answer"


def test_the_play_head_moves_and_long_descriptions_are_cut() -> None:
    long = "word " * 200
    rollout = replace(rollout_of(), plan=plan_of([0], text=long))
    bar = bar_of(rollout)
    pictures = [bar.draw(frame) for frame in range(4)]
    assert {picture.shape for picture in pictures} == {(bar.height, 640, 3)}
    heads = [int((picture[-bar.strip // 2] >= 230).all(axis=1).argmax()) for picture in pictures]
    assert heads == sorted(set(heads))
    lines = bar._wrapped(long, 600, 2)
    assert len(lines) == 2
    assert lines[1].endswith("...")
    assert all(bar._width(line) <= 600 for line in lines)


def test_the_sound_of_a_file_is_its_own(tmp_path: Path) -> None:
    """Two channels at 44.1 kHz, each with its tone, as long as the picture; the models heard 16 kHz in one."""
    write_film(about(write_source(tmp_path / "source.mp4")), tmp_path / "film.mp4")
    film = Film(tmp_path / "film.mp4")
    assert (film.rate, len(film.sound)) == (44_100, 2)
    assert film.seconds == pytest.approx(3.0, abs=0.06)
    middle = film.sound[:, 44_100 : 2 * 44_100]
    assert [strongest(channel, 44_100) for channel in middle] == [440, 880]
    assert film.times_s == pytest.approx([0, 0.5, 1, 1.5, 2, 2.5])


def test_sound_that_starts_late_starts_late_in_the_film(tmp_path: Path) -> None:
    write_film(about(write_source(tmp_path / "source.mp4", delay_s=1.0)), tmp_path / "film.mp4")
    film = Film(tmp_path / "film.mp4")
    loud = np.flatnonzero(np.abs(film.sound[0]) > 0.1) / film.rate
    assert loud[0] == pytest.approx(1.0, abs=0.08)
    assert film.seconds == pytest.approx(3.0, abs=0.06)


@pytest.mark.parametrize(
    ("name", "codec", "rate", "layout", "stored"),
    [
        ("source.mkv", "pcm_s16le", 96_000, "stereo", (48_000, "stereo")),
        ("source.mkv", "flac", 22_050, "mono", (22_050, "mono")),
    ],
)
def test_other_codecs_and_rates_become_what_browsers_play(
    tmp_path: Path, name: str, codec: str, rate: int, layout: str, stored: tuple[int, str]
) -> None:
    source = write_source(tmp_path / name, codec=codec, rate=rate, layout=layout)
    rollout = about(source)
    assert sound_layout(rollout.clip) == stored
    write_film(rollout, tmp_path / "film.mp4")
    film = Film(tmp_path / "film.mp4")
    assert film.codecs == ("h264", "aac")
    half = film.rate // 2
    assert strongest(film.sound[0, half : 3 * half], film.rate) == pytest.approx(440, abs=2)


def test_a_file_without_sound_gives_a_film_without(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "mute.mp4"), "w") as container:
        video = container.add_stream("libx264", rate=10)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        for _ in range(10):
            container.mux(video.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")))
        container.mux(video.encode())
    rollout = about(tmp_path / "mute.mp4")
    assert sound_layout(rollout.clip) is None
    write_film(rollout, tmp_path / "film.mp4")
    assert Film(tmp_path / "film.mp4").codecs == ("h264",)


@pytest.mark.skipif("OMNI_R1_SAMPLE_VIDEO" not in os.environ, reason="OMNI_R1_SAMPLE_VIDEO names no video file")
def test_a_real_video_keeps_its_length_and_sound(tmp_path: Path) -> None:
    path = Path(os.environ["OMNI_R1_SAMPLE_VIDEO"])
    write_film(about(path, fps=1.0), tmp_path / "film.mp4")
    film = Film(tmp_path / "film.mp4")
    with av.open(str(path)) as source:
        duration_s = source.duration / av.time_base
        channels = source.streams.audio[0].channels if source.streams.audio else 0
    assert film.times_s[-1] == pytest.approx(duration_s, abs=1.1)
    assert (0 if film.sound is None else len(film.sound)) == min(channels, 2)
    assert film.seconds == 0 or film.seconds == pytest.approx(duration_s, abs=1.1)
