"""Draw a picture of AVShapes for the documentation: film strips, outlined targets, spectrograms and expressions.

Frame i of a strip is above second i of its spectrogram. Every expression has the color in which its targets are
outlined; expressions without a target are gray.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from datamodules.avshapes.expressions import (
    Expression,
    choose_balanced,
    refavs_expressions,
    refavs_null_expressions,
    revos_expressions,
)
from datamodules.avshapes.render import render_frames
from datamodules.avshapes.scene import PITCHES, UNSEEN_LOOKS, UNSEEN_TONES, Scene, sample_scene
from datamodules.avshapes.settings import WORLDS
from datamodules.avshapes.sound import render_audio

_PAGE, _INK, _FAINT = "#ffffff", "#20242c", "#7b8494"
_ACCENTS = ("#00b8d4", "#ff7f11", "#e0218a")
_TEXT_IN, _STRIP_IN, _SOUND_IN, _TICKS_IN, _LEFT_IN = 0.92, 1.25, 0.85, 0.36, 0.5
"""Inches: height of the text, side of a frame, height of a spectrogram and of its time axis, left margin."""
_TOP_HZ = 4000.0
_LABEL_BOX = {"facecolor": "black", "alpha": 0.6, "linewidth": 0, "pad": 1.5}
_CANDIDATES = 400


@dataclass(frozen=True)
class _Panel:
    """One clip of the picture and what is asked about it."""

    title: str
    scene: Scene
    expressions: tuple[Expression, ...]
    has_sound: bool


def draw_picture(out: Path, *, seed: int = 0) -> None:
    """Draw three clips: a seen and an unseen one of RefAVS, and one of ReVOS.

    Args:
        out: The file; its suffix names the format, such as .png.
        seed: Chooses the clips.
    """
    panels = [_refavs_panel(seed, unseen=False), _refavs_panel(seed, unseen=True), _revos_panel(seed)]
    heights = [_TEXT_IN + _STRIP_IN + (_SOUND_IN + _TICKS_IN if panel.has_sound else 0) for panel in panels]
    figure = Figure(figsize=(_LEFT_IN + 10 * _STRIP_IN + 0.15, sum(heights) + 0.15), facecolor=_PAGE)
    top = 0.0
    for panel, height in zip(panels, heights, strict=True):
        _write_text(_place(figure, top, _TEXT_IN), panel)
        _draw_strip(_place(figure, top + _TEXT_IN, _STRIP_IN), panel)
        if panel.has_sound:
            _draw_spectrogram(_place(figure, top + _TEXT_IN + _STRIP_IN + 0.06, _SOUND_IN), panel.scene)
        top += height
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=90)


def _place(figure: Figure, top: float, height: float) -> Axes:
    """Axes as wide as a strip, so many inches below the upper edge."""
    width, full = figure.get_size_inches()
    return figure.add_axes((_LEFT_IN / width, 1 - (top + height) / full, 10 * _STRIP_IN / width, height / full))


def _refavs_panel(seed: int, *, unseen: bool) -> _Panel:
    """The first clip with three things, two sounds and questions of three kinds about different things."""
    for index in range(_CANDIDATES):
        scene = sample_scene((seed, 0, int(unseen), index), unseen=unseen)
        rng = np.random.default_rng(index)
        valid = refavs_expressions(scene, rng)
        if unseen:
            valid = [item for item in valid if scene.things[item.targets[0]].is_held_out]
        asked = _differing(choose_balanced(valid, 6, rng))
        if len(scene.things) >= 3 and len(asked) >= 3 and all(max(row[5:]) > 0 for row in scene.visible):
            break
    absent = choose_balanced(refavs_null_expressions(scene, rng, audio="own"), 1, rng)
    if unseen:
        title = f"RefAVS test_u (held out: {', '.join(_held_out(scene))})"
        return _Panel(title, scene, tuple(asked[:3]), has_sound=True)
    return _Panel("RefAVS train", scene, (*asked[:3], absent[0]), has_sound=True)


def _revos_panel(seed: int) -> _Panel:
    for index in range(_CANDIDATES):
        scene = sample_scene((seed, 1, 0, index), WORLDS["revos"])
        rng = np.random.default_rng(index)
        valid = revos_expressions(scene, rng)
        asked = _differing(choose_balanced([item for item in valid if item.kind == "reasoning"], 6, rng))
        if len(scene.things) == 4 and len(asked) >= 3 and any(len(item.targets) > 1 for item in asked[:3]):
            break
    absent = [item for item in valid if item.kind == "non-existent" and item.text.endswith("?")]
    return _Panel("ReVOS train", scene, (*asked[:3], absent[0]), has_sound=False)


def _differing(expressions: list[Expression]) -> list[Expression]:
    """Expressions no two of which have the same targets or evidence."""
    chosen: list[Expression] = []
    for item in expressions:
        if all(item.targets != other.targets and item.evidence != other.evidence for other in chosen):
            chosen.append(item)
    return chosen


def _held_out(scene: Scene) -> list[str]:
    """The looks and tones of a scene that are held out."""
    looks = [thing.name for thing in scene.things if (thing.color, thing.shape) in UNSEEN_LOOKS]
    tones = [
        f"{thing.shape} at {PITCHES[thing.sound.pitch]:.0f} Hz"
        for thing in scene.things
        if thing.sound is not None and (thing.shape, thing.sound.pitch) in UNSEEN_TONES
    ]
    return looks + tones


def _write_text(axes: Axes, panel: _Panel) -> None:
    axes.axis("off")
    axes.set(xlim=(0, 10), ylim=(0, 1))
    axes.text(0, 0.68, panel.title, fontsize=12, fontweight="bold", color=_INK)
    for number, (item, color) in enumerate(_colored(panel)):
        label = item.text + ("" if item.targets else "  (nothing fits)")
        axes.text(4.6 * (number % 2), 0.4 - 0.27 * (number // 2), label, fontsize=9.5, color=color, fontweight="bold")


def _colored(panel: _Panel) -> list[tuple[Expression, str]]:
    """Each expression with its color: an accent, or gray where it has no target."""
    return [(item, _ACCENTS[number] if item.targets else _FAINT) for number, item in enumerate(panel.expressions)]


def _draw_strip(axes: Axes, panel: _Panel) -> None:
    """All frames side by side, the targets outlined."""
    frames, masks = render_frames(panel.scene)
    size = frames.shape[1]
    axes.imshow(np.concatenate(list(frames), axis=1), extent=(0, len(frames), 1, 0), aspect="auto")
    for item, color in _colored(panel):
        union: Bool[np.ndarray, "frames height width"] = np.any(masks[:, list(item.targets)], axis=1)
        strip = np.concatenate(list(union), axis=1).astype(float)
        if strip.any():
            across = (np.arange(strip.shape[1]) + 0.5) / size
            down = (np.arange(size) + 0.5) / size
            axes.contour(across, down, strip, levels=[0.5], colors=[color], linewidths=2)
    for edge in range(1, len(frames)):
        axes.axvline(edge, color=_PAGE, linewidth=3)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def _draw_spectrogram(axes: Axes, scene: Scene) -> None:
    """Energy over time and frequency, every sound labelled with its thing."""
    rate = scene.world.sample_rate
    axes.specgram(render_audio(scene), NFFT=1024, Fs=rate, noverlap=768, cmap="magma", vmin=-100, vmax=-35)
    axes.set(xlim=(0, scene.world.duration_s), ylim=(0, _TOP_HZ))
    for thing in scene.things:
        if thing.sound is not None:
            sound = thing.sound
            axes.axvspan(sound.start_s, sound.end_s, color="white", alpha=0.12, linewidth=0)
            level = ("soft", "medium", "loud")[sound.loudness]
            text = f"{thing.shape}, {PITCHES[sound.pitch]:.0f} Hz, {level}"
            center = (sound.start_s + sound.end_s) / 2
            axes.text(
                center, 0.87 * _TOP_HZ, text, color="white", fontsize=8, ha="center", va="center", bbox=_LABEL_BOX
            )
    axes.set_yticks([0, 2000, 4000], ["0", "2", "4"], fontsize=8, color=_INK)
    axes.set_ylabel("kHz", fontsize=8, color=_INK)
    axes.set_xticks(range(11), [f"{second} s" for second in range(11)], fontsize=8, color=_INK)
    axes.spines[:].set_visible(False)
