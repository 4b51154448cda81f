"""What a player sees and hears of a film."""

from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np


@dataclass
class Film:
    """A film, decoded: pictures, sound as (channels, samples), and how both are stored."""

    path: Path
    frames: list[np.ndarray] = field(default_factory=list)
    times_s: list[float] = field(default_factory=list)
    sound: np.ndarray | None = None
    rate: int = 0
    codecs: tuple[str, ...] = ()
    pixels: str = ""

    def __post_init__(self) -> None:
        with av.open(str(self.path)) as film:
            self.codecs = tuple(stream.codec_context.name for stream in film.streams)
            self.pixels = film.streams.video[0].codec_context.pix_fmt
            for frame in film.decode(video=0):
                self.frames.append(frame.to_ndarray(format="rgb24"))
                self.times_s.append(float(frame.time))
        with av.open(str(self.path)) as film:
            if film.streams.audio:
                self.rate = film.streams.audio[0].rate
                self.sound = np.concatenate([frame.to_ndarray() for frame in film.decode(audio=0)], axis=1)

    @property
    def seconds(self) -> float:
        """Length of the sound."""
        return 0.0 if self.sound is None else self.sound.shape[1] / self.rate
