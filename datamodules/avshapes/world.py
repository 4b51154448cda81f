"""The vocabulary of AVShapes: what may be in a clip (`World`) and what is in one (`Scene`).

Records and constants only; `datamodules.avshapes.scene` draws scenes, `render` and `sound` turn them into pixels and
samples, `expressions` into text. Positions and radii are fractions of the frame's side with the origin in the upper
left corner, x to the right and y down, so that a scene can be rendered at any size. Times are seconds from the start
of the clip; frame i is shown at ``i / fps`` seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

import numpy as np

from datamodules.errors import ConfigError

COLORS: dict[str, tuple[int, int, int]] = {
    "red": (225, 40, 40),
    "green": (40, 185, 60),
    "blue": (50, 90, 240),
    "yellow": (240, 215, 40),
    "purple": (170, 60, 205),
    "white": (240, 240, 240),
}
"""RGB of every color word."""

SHAPES: tuple[str, ...] = ("circle", "square", "triangle", "star")

PITCHES: tuple[float, ...] = (240.0, 400.0, 660.0, 1100.0)
"""Fundamental frequency of every pitch level in hertz, low to high."""

LOUDNESS: tuple[float, ...] = (0.02, 0.055, 0.15)
"""Root mean square of every loudness level, full scale 1, quiet to loud; 8.7 dB apart whatever the timbre or pitch."""

UNSEEN_LOOKS: frozenset[tuple[str, str]] = frozenset(
    {
        ("red", "star"),
        ("green", "circle"),
        ("blue", "triangle"),
        ("yellow", "square"),
        ("purple", "circle"),
        ("white", "triangle"),
    }
)
"""(color, shape) pairs that only "unseen" scenes hold; every color and shape keeps three or more seen partners."""

UNSEEN_TONES: frozenset[tuple[str, int]] = frozenset({("circle", 3), ("square", 1), ("triangle", 0), ("star", 2)})
"""(shape, pitch level) pairs that only "unseen" scenes hold: one per shape and one per pitch level."""

EVIDENCE: tuple[str, ...] = (
    "looks",
    "order",
    "time",
    "pitch",
    "loudness",
    "silence",
    "motion",
    "plural",
    "size",
    "position",
)
"""What an expression may ask for."""

Presence = Literal["stay", "enter", "leave"]


class Stream(IntEnum):
    """What random numbers are drawn for; every purpose has a stream of its own."""

    SCENE = 0
    BACKGROUND = 1
    NOISE = 2
    TEXT = 3
    NAMES = 4


@dataclass(frozen=True, kw_only=True)
class World:
    """Every dial of the generator.

    Attributes:
        size: Side of the square frames in pixels.
        frames: Number of frames.
        fps: Frames per second; ``frames / fps`` is the duration in seconds.
        min_things: Fewest things in a clip.
        max_things: Most things in a clip; at most 4 when the shapes are distinct.
        distinct_shapes: Whether no shape repeats within a clip, so that a timbre names one thing. When it may repeat,
            the (color, shape) pairs are still distinct.
        shared_color: Probability that a thing copies the color of an earlier one.
        min_radius: Smallest base radius, fraction of the side.
        max_radius: Largest base radius, fraction of the side.
        enter_share: Share of the things that slide in after the start.
        leave_share: Share of the things that slide out before the end.
        moving_share: Share of the things that move all the time; the others keep their place.
        min_speed: Slowest speed of a moving thing, sides per second.
        max_speed: Fastest speed of a moving thing, sides per second.
        scaling_share: Share of the things that grow, shrink or do one after the other.
        smallest_scale: Smallest radius of a scaling thing, as a multiple of its base radius.
        sounding: Probabilities that 0, 1, 2, ... things sound; a count above the number of things means all of them.
        min_sound_s: Shortest sound in seconds.
        max_sound_s: Longest sound in seconds.
        overlapping_sounds: Whether two sounds may overlap in time.
        sample_rate: Samples per second of the sound.
        floor: Root mean square of the noise under all sounds, full scale 1.
        grain: Half range of the background's noise, gray levels out of 255.
        evidence: What expressions may ask for, out of `EVIDENCE`. The three that the default leaves out compare things
            over the whole clip or by place, which is hard for a very small model.
    """

    size: int = 224
    frames: int = 10
    fps: float = 1.0
    min_things: int = 2
    max_things: int = 4
    distinct_shapes: bool = True
    shared_color: float = 0.5
    min_radius: float = 0.13
    max_radius: float = 0.19
    enter_share: float = 0.25
    leave_share: float = 0.25
    moving_share: float = 0.5
    min_speed: float = 0.08
    max_speed: float = 0.14
    scaling_share: float = 0.5
    smallest_scale: float = 0.5
    sounding: tuple[float, ...] = (0.0, 0.2, 0.4, 0.4)
    min_sound_s: float = 1.0
    max_sound_s: float = 2.5
    overlapping_sounds: bool = False
    sample_rate: int = 16_000
    floor: float = 0.001
    grain: float = 7.0
    evidence: tuple[str, ...] = ("looks", "order", "time", "pitch", "loudness", "motion", "plural")

    def __post_init__(self) -> None:
        """Refuse settings that no clip can satisfy, all of them in one message."""
        problems = [text for holds, text in self._rules() if not holds]
        if problems:
            raise ConfigError("This AVShapes world cannot be drawn: " + " ".join(problems))

    @property
    def duration_s(self) -> float:
        """Length of a clip in seconds."""
        return self.frames / self.fps

    def _rules(self) -> list[tuple[bool, str]]:
        """Every condition with the sentence to say when it does not hold."""
        most = len(SHAPES) if self.distinct_shapes else 8
        shares = (self.shared_color, self.moving_share, self.scaling_share)
        rising = "world.{0} must satisfy {2}, found min_{1} {3} and max_{1} {4}.".format
        return [
            (self.size >= 32, f"world.size must be at least 32 pixels, found {self.size}."),
            (self.frames >= 8, f"world.frames must be at least 8, found {self.frames}."),
            (
                self.fps > 0 and self.frames / self.fps >= 4 * self.max_sound_s,
                f"frames / fps must be at least 4 x world.max_sound_s = {4 * self.max_sound_s:g} s, found "
                f"{self.frames} / {self.fps:g}; change world.frames, world.fps or world.max_sound_s.",
            ),
            (
                2 <= self.min_things <= self.max_things <= most,
                rising("max_things", "things", f"2 <= min <= max <= {most}", self.min_things, self.max_things),
            ),
            (
                0.05 <= self.min_radius <= self.max_radius <= 0.25,
                rising("max_radius", "radius", "0.05 <= min <= max <= 0.25", self.min_radius, self.max_radius),
            ),
            (
                0.03 <= self.min_speed <= self.max_speed <= 0.5,
                rising("max_speed", "speed", "0.03 <= min <= max <= 0.5", self.min_speed, self.max_speed),
            ),
            (
                0.2 <= self.min_sound_s <= self.max_sound_s,
                rising("max_sound_s", "sound_s", "0.2 <= min <= max", self.min_sound_s, self.max_sound_s),
            ),
            (
                self.enter_share >= 0 and self.leave_share >= 0 and self.enter_share + self.leave_share <= 1,
                f"world.enter_share and world.leave_share must be >= 0 and add up to at most 1, "
                f"found {self.enter_share} and {self.leave_share}.",
            ),
            (all(0 <= share <= 1 for share in shares), "shared_color, moving_share and scaling_share must be in 0..1."),
            (
                0.2 <= self.smallest_scale <= 1,
                f"world.smallest_scale must be in 0.2..1, found {self.smallest_scale}.",
            ),
            (
                1 <= len(self.sounding) <= 5 and min(self.sounding) >= 0 and abs(sum(self.sounding) - 1) < 1e-6,
                f"world.sounding must be 1 to 5 probabilities that add up to 1, found {self.sounding}.",
            ),
            (
                "looks" in self.evidence and set(self.evidence) <= set(EVIDENCE),
                f"world.evidence must hold looks and may hold {', '.join(EVIDENCE[1:])}; found {self.evidence}.",
            ),
            (
                self.sample_rate >= 8000,
                f"world.sample_rate must be at least 8000, found {self.sample_rate}.",
            ),
        ]


@dataclass(frozen=True)
class Sound:
    """The one sound of a thing; its timbre is a function of the thing's shape.

    Attributes:
        start_s: Start in seconds.
        end_s: End in seconds.
        pitch: Index into `PITCHES`.
        loudness: Index into `LOUDNESS`.
    """

    start_s: float
    end_s: float
    pitch: int
    loudness: int


@dataclass(frozen=True)
class Thing:
    """One shape of a clip.

    Attributes:
        shape: One of `SHAPES`.
        color: A key of `COLORS`.
        radius: Per frame, fraction of the side.
        path: Per frame, center (x, y), fractions of the side; outside 0..1 while the thing is away.
        presence: Whether it stays throughout, enters after the start, or leaves before the end.
        moves: Whether it moves all the time (bouncing off the borders); sliding in or out does not count.
        sound: Its sound, or None for a silent thing.
    """

    shape: str
    color: str
    radius: tuple[float, ...]
    path: tuple[tuple[float, float], ...]
    presence: Presence
    moves: bool
    sound: Sound | None = None

    @property
    def name(self) -> str:
        """Color and shape, such as "red circle"."""
        return f"{self.color} {self.shape}"

    @property
    def in_motion(self) -> bool:
        """Whether it changes its place at any time, be it only to slide in or out."""
        return self.moves or self.presence != "stay"

    @property
    def is_held_out(self) -> bool:
        """Whether its look or its tone is one of the held-out pairs."""
        tone = self.sound is not None and (self.shape, self.sound.pitch) in UNSEEN_TONES
        return tone or (self.color, self.shape) in UNSEEN_LOOKS


@dataclass(frozen=True)
class Scene:
    """Everything that a clip shows and lets hear.

    Attributes:
        key: The integers that the scene was drawn from; its noise is drawn from them too.
        world: The dials that it was drawn with.
        things: In draw order: a later thing covers an earlier one.
        background: Mean RGB of the background.
        visible: Per thing, per frame: share of its own full outline at that frame that lies inside the frame and is
            not covered, 0..1, measured on a coarse grid.
    """

    key: tuple[int, ...]
    world: World
    things: tuple[Thing, ...]
    background: tuple[int, int, int]
    visible: tuple[tuple[float, ...], ...]


def generator(key: tuple[int, ...], stream: Stream, attempt: int = 0) -> np.random.Generator:
    """Random numbers for one purpose of one clip, the same on every machine and in every process.

    Args:
        key: Non-negative integers that name the clip.
        stream: The purpose.
        attempt: Which try, for rejection sampling.
    """
    # A seed sequence pads short keys with zeros, so (1,) and (1, 0) would be the same without their length in front.
    return np.random.default_rng(np.random.SeedSequence((len(key), *key), spawn_key=(int(stream), attempt)))
