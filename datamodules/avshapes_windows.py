"""Windows of AVShapes clips with the things to follow in them: what the tiny propagator is trained on.

A batch holds a few clips cut to the same number of frames, every thing that is visible on the prompted frames as one
row, a jittered box on each of these frames and the true mask on every frame. A window of one frame teaches
box -> mask, longer ones teach memory. Only scenes without held-out looks are drawn (the *seen* world).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8

from datamodules.avshapes.render import render_frames
from datamodules.avshapes.scene import World, sample_scene

WORLDS = (World(), World(distinct_shapes=False))
"""The worlds of both benchmarks, drawn equally often."""

_LIVELY = tuple(replace(world, moving_share=0.85) for world in WORLDS)
"""The same with more motion: what stands still is easy to follow, and teaches to look where the thing was."""

_LEAST_AREA = 0.0025
"""Least visible area of a prompted thing, share of the frame: 41 of 128 x 128 pixels, about 6 x 7."""

_PRESENT_SHARE = 0.5
"""Share of the things that are visible throughout a window which become rows; all others do, being rarer."""


@dataclass(frozen=True)
class WindowBatch:
    """Windows of several clips and the things to follow in them.

    Attributes:
        frames: RGB, 0..255.
        clip: Which clip a row belongs to.
        boxes: Jittered boxes of every row on the prompted frames, xyxy in pixels of the window's side.
        masks: True masks of the visible pixels; all False where the thing is away or covered.
        prompted: Positions of the prompted frames in the window, the same for every row, ascending.
        clip_frames: Length of the clip that the window is taken to be cut from; scales the pointers' time encoding.
    """

    frames: UInt8[torch.Tensor, "clips frames 3 side side"]
    clip: Int[torch.Tensor, "rows"]
    boxes: Float[torch.Tensor, "rows prompts 4"]
    masks: Bool[torch.Tensor, "rows frames side side"]
    prompted: tuple[int, ...]
    clip_frames: int

    def to(self, device: torch.device | str, non_blocking: bool = False) -> WindowBatch:
        """The same batch with its tensors on a device."""
        names = ("frames", "clip", "boxes", "masks")
        return replace(self, **{name: getattr(self, name).to(device, non_blocking=non_blocking) for name in names})


@dataclass(frozen=True)
class WindowShape:
    """What the windows of one batch look like.

    Attributes:
        clips: Number of clips.
        frames: Frames of each window.
        prompts: Prompted frames of each window.
        stride: Largest distance between neighboring frames of a window, as far as the clip is long enough; every
            window draws its own from 1..stride.
    """

    clips: int
    frames: int
    prompts: int = 1
    stride: int = 1


def jitter_box(
    rng: np.random.Generator, mask: Bool[np.ndarray, "height width"], largest: float
) -> Float[np.ndarray, "4"]:
    """The tight box of a mask with every side moved at random.

    Args:
        rng: Source of randomness.
        mask: At least one pixel.
        largest: Largest move of a side, as a share of the box's width or height. 0.15 gives boxes like a detector's,
            with a mean IoU of about 0.75.

    Returns:
        xyxy in pixels, half-open, within the frame, at least one pixel wide and high.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    tight = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], dtype=np.float64)
    extent = np.tile(tight[2:] - tight[:2], 2)
    low, high = np.split(tight + rng.uniform(-largest, largest, size=4) * extent, 2)
    height, width = mask.shape
    low = np.clip(low, 0, [width - 1, height - 1])
    return np.concatenate([low, np.clip(high, low + 1, [width, height])]).astype(np.float32)


def draw_windows(
    rng: np.random.Generator, key: tuple[int, ...], shape: WindowShape, *, side: int, jitter: float
) -> WindowBatch:
    """Draw a batch of windows.

    Args:
        rng: Decides on scenes' worlds, where windows begin, time reversal, prompted positions and box jitter.
        key: What the scenes are keyed by.
        shape: Clips, frames and prompts.
        side: Side of the rendered frames in pixels.
        jitter: Largest move of a box's side, share of its extent; every box draws its own largest from 0..jitter.

    Returns:
        Windows with at least one row each; windows in which nothing could be prompted are drawn again.
    """
    prompted = _draw_prompted(rng, shape)
    frames: list[UInt8[np.ndarray, "frames side side 3"]] = []
    masks: list[Bool[np.ndarray, "things frames side side"]] = []
    boxes: list[list[Float[np.ndarray, "4"]]] = []
    clip: list[int] = []
    attempt = 0
    while len(frames) < shape.clips:
        scene = sample_scene((*key, attempt), _LIVELY[rng.integers(len(_LIVELY))])
        attempt += 1
        pixels, truth = render_frames(scene, frames=_draw_span(rng, scene.world.frames, shape), size=side)
        visible = truth[list(prompted)].mean(axis=(2, 3)) >= _LEAST_AREA
        things = _choose(rng, truth, visible.all(axis=0))
        if not len(things):
            continue
        clip.extend([len(frames)] * len(things))
        frames.append(pixels)
        masks.append(truth[:, things].transpose(1, 0, 2, 3))
        boxes.extend(
            [jitter_box(rng, truth[frame, thing], rng.uniform(0, jitter)) for frame in prompted] for thing in things
        )
    return WindowBatch(
        frames=torch.from_numpy(np.stack(frames)).permute(0, 1, 4, 2, 3),
        clip=torch.tensor(clip),
        boxes=torch.from_numpy(np.array(boxes)),
        masks=torch.from_numpy(np.concatenate(masks)),
        prompted=prompted,
        # Clips of 16 frames and more look alike to SAM2, which keeps 16 object pointers at most.
        clip_frames=int(rng.choice([10, 10, 10, 16])),
    )


def _choose(
    rng: np.random.Generator, truth: Bool[np.ndarray, "frames things side side"], usable: Bool[np.ndarray, "things"]
) -> Int[np.ndarray, "rows"]:
    """The usable things that become rows; windows with absent frames are kept more often, to learn absence from."""
    is_away = ~truth.any(axis=(2, 3)).all(axis=0)
    is_kept = is_away | (rng.random(len(usable)) < _PRESENT_SHARE) | (len(truth) == 1)
    return np.flatnonzero(usable & is_kept)


def _draw_prompted(rng: np.random.Generator, shape: WindowShape) -> tuple[int, ...]:
    """Positions of the prompted frames; half of the time the window begins with one."""
    positions = rng.permutation(shape.frames)[: shape.prompts]
    if rng.random() < 0.5 and 0 not in positions:
        positions[0] = 0
    return tuple(sorted(int(position) for position in positions))


def _draw_span(rng: np.random.Generator, clip_frames: int, shape: WindowShape) -> list[int]:
    """Frames at equal distances, half of the time backward."""
    steps = shape.frames - 1
    stride = int(rng.integers(1, max(1, min(shape.stride, (clip_frames - 1) // max(1, steps))) + 1))
    start = int(rng.integers(clip_frames - stride * steps))
    span = list(range(start, start + stride * steps + 1, stride))
    return span[::-1] if rng.random() < 0.5 else span
