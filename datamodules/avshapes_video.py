"""The propagator's recipe reads from here: a batch of windows per training step, and held-out cases to be judged by.

The batch of a step is a pure function of (seed, step), so a run that is continued sees what it would have seen. A
held-out case is a real `Clip` for the real predictor, at the size of the benchmark's frames. Everything is rendered on
the fly; training and held-out scenes never coincide.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import lightning as L
import numpy as np
import torch
from jaxtyping import UInt8
from torch.utils.data import DataLoader, Dataset

from datamodules.avshapes.render import render_frames
from datamodules.avshapes.scene import Scene, sample_scene
from datamodules.avshapes_windows import WORLDS, WindowBatch, WindowShape, draw_windows, jitter_box
from datamodules.errors import ConfigError
from datamodules.masks import MaskTrack
from datamodules.records import Clip, FrameGrounding, Frames, Grounding

_TRAIN, _HELD_OUT = 0, 1
"""Second number of a scene's key; the first is the seed."""


@dataclass(frozen=True)
class TrackingCase:
    """One thing to follow through a held-out clip.

    Attributes:
        clip: The clip, with the thing's true masks.
        grounding: Its slightly wrong box on the frame where most of it is visible.
    """

    clip: Clip
    grounding: Grounding


class SceneFrames(Frames):
    """A scene's frames, rendered when read.

    Args:
        scene: The scene.
        size: Side in pixels.
    """

    def __init__(self, scene: Scene, *, size: int) -> None:
        self.count = scene.world.frames
        self.fps = scene.world.fps
        self._scene = scene
        self._side = size

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self._side, self._side

    def read(
        self, indices: Sequence[int], *, max_pixels: int | None = None
    ) -> UInt8[np.ndarray, "frames height width 3"]:
        """RGB frames in the given order, rendered at a smaller size if `max_pixels` asks for it."""
        side = self._side if max_pixels is None else min(self._side, int(max_pixels**0.5))
        return render_frames(self._scene, frames=indices, size=side)[0]


def tracking_case(key: tuple[int, ...], *, size: int, jitter: float) -> TrackingCase:
    """A held-out clip and one of its things, chosen by the key.

    Args:
        key: Names the scene and the choice.
        size: Side of the frames in pixels.
        jitter: Largest move of a side of the box, share of its extent.
    """
    rng = np.random.default_rng(key)
    scene = sample_scene(key, WORLDS[rng.integers(len(WORLDS))])
    masks = render_frames(scene, size=size)[1]
    thing = int(rng.integers(len(scene.things)))
    keyframe = int(masks[:, thing].sum(axis=(1, 2)).argmax())
    box = jitter_box(rng, masks[keyframe, thing], jitter)
    truth = MaskTrack.from_dense(masks[:, [thing]])
    name = "/".join(map(str, key))
    clip = Clip(
        id=f"avshapes/{name}",
        task="video",
        split="held_out",
        kind="seen",
        expression=f"the {scene.things[thing].name}",
        frames=SceneFrames(scene, size=size),
        video=name,
        mask_source=lambda: truth,
    )
    found = FrameGrounding(keyframe, box[None], np.ones(1, dtype=np.float32))
    return TrackingCase(clip, Grounding((found,)))


class TrainWindows(Dataset[WindowBatch]):
    """The batch of every training step: pairs of frames and single frames in turns, then windows and some of both.

    Args:
        seed: With the step, decides everything.
        pair_steps: Steps of the first stage, pairs of frames and single frames in turns: a decoder that has learned
            boxes alone is slow to take memories in, and the other way round. The frames of a pair are neighbors at
            first, and as far apart as the clip is long once half of the stage is over.
        video_steps: Steps of the second stage.
        side: Side of the frames in pixels.
        images: Pairs in a batch of pairs, frames in a batch of single frames.
        window_clips: Clips in a batch of windows.
        window_frames: Frames of a window in the first half of the second stage; the whole clip in the second half.
        image_share: Every so many steps of the second stage are single frames, and as many pairs, so that neither boxes
            nor looking back are forgotten.
        jitter: Largest move of a box's side, share of its extent.
        first_step: Step that item 0 belongs to, when a run is continued.
    """

    def __init__(
        self,
        seed: int,
        *,
        pair_steps: int,
        video_steps: int,
        side: int,
        images: int,
        window_clips: int,
        window_frames: int,
        image_share: int,
        jitter: float,
        first_step: int = 0,
    ) -> None:
        self._seed = seed
        self._pair_steps = pair_steps
        self._video_steps = video_steps
        self._side = side
        self._images = images
        self._window_clips = window_clips
        self._window_frames = window_frames
        self._image_share = image_share
        self._jitter = jitter
        self._first_step = first_step

    def __len__(self) -> int:
        return self._pair_steps + self._video_steps - self._first_step

    def __getitem__(self, index: int) -> WindowBatch:
        if not 0 <= index < len(self):
            raise IndexError(f"step {self._first_step + index} of {self._first_step + len(self)}")
        step = self._first_step + index
        rng = np.random.default_rng((self._seed, _TRAIN, step))
        key = (self._seed, _TRAIN, step)
        return draw_windows(rng, key, self.shape(rng, step), side=self._side, jitter=self._jitter)

    def shape(self, rng: np.random.Generator, step: int) -> WindowShape:
        """What the windows of a step look like.

        Args:
            rng: Decides how many prompts they have.
            step: 0-based.
        """
        longest = WORLDS[0].frames
        taught = step - self._pair_steps
        if taught < 0:
            farthest = 1 + round((longest - 2) * min(1.0, 2 * step / self._pair_steps))
            return WindowShape(self._images, frames=1 + (step + 1) % 2, stride=farthest)
        still = self._image_share - 1 - taught % self._image_share
        if still < 2:
            return WindowShape(self._images, frames=1 + still, stride=longest)
        prompts = 1 + int(rng.random() < 0.25)
        if taught < self._video_steps // 2:
            return WindowShape(self._window_clips, self._window_frames, prompts, stride=longest)
        clips = max(1, round(self._window_clips * self._window_frames / longest))
        return WindowShape(clips, longest, prompts)


class HeldOutCases(Dataset[TrackingCase]):
    """Held-out clips with one thing each.

    Args:
        seed: Names the set.
        count: Number of cases.
        size: Side of the frames in pixels.
        jitter: Largest move of a side of the box, share of its extent.
    """

    def __init__(self, seed: int, *, count: int, size: int, jitter: float) -> None:
        self._seed = seed
        self._count = count
        self._size = size
        self._jitter = jitter

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> TrackingCase:
        if not 0 <= index < self._count:
            raise IndexError(f"case {index} of {self._count}")
        return tracking_case((self._seed, _HELD_OUT, index), size=self._size, jitter=self._jitter)


class AVShapesVideoDataModule(L.LightningDataModule):
    """Windows of AVShapes clips for the propagator's recipe, rendered on the fly; nothing is read or written.

    Args:
        seed: With the step, decides every training batch; with an index, every held-out case.
        pair_steps: Training steps on pairs of frames (one look back) and single frames (box -> mask) in turns.
        video_steps: Training steps after that, on windows.
        side: Side of the training frames in pixels; the model's image size.
        images: Pairs in a batch of pairs, frames in a batch of single frames.
        window_clips: Clips in a batch of windows.
        window_frames: Frames of a window in the first half of the video steps; the whole clip of 10 frames after.
        image_share: Every so many video steps are single frames, and as many are pairs; at least 2.
        jitter: Largest move of a training box's side, share of the box's extent.
        val_cases: Held-out clips of a validation round.
        case_size: Side of the held-out frames in pixels; the benchmark's.
        case_jitter: Largest move of a held-out box's side, share of the box's extent.

    Raises:
        ConfigError: A window longer than the clip, or a count below 1.
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        pair_steps: int = 500,
        video_steps: int = 1500,
        side: int = 128,
        images: int = 16,
        window_clips: int = 4,
        window_frames: int = 6,
        image_share: int = 5,
        jitter: float = 0.25,
        val_cases: int = 40,
        case_size: int = 224,
        case_jitter: float = 0.05,
    ) -> None:
        super().__init__()
        counts = {
            "images": images,
            "window_clips": window_clips,
            "val_cases": val_cases,
        }
        problems = [f"data.{name} must be at least 1, found {count}." for name, count in counts.items() if count < 1]
        if image_share < 2:
            problems.append(f"data.image_share must be at least 2, found {image_share}.")
        longest = WORLDS[0].frames
        if not 3 <= window_frames <= longest:
            problems.append(f"data.window_frames must be 3..{longest}, found {window_frames}.")
        if problems:
            raise ConfigError(" ".join(problems))
        self.seed = seed
        self.pair_steps = pair_steps
        self.video_steps = video_steps
        self.side = side
        self.images = images
        self.window_clips = window_clips
        self.window_frames = window_frames
        self.image_share = image_share
        self.jitter = jitter
        self.val_cases = val_cases
        self.case_size = case_size
        self.case_jitter = case_jitter

    def train_dataloader(self) -> DataLoader[WindowBatch]:
        """Batches from the step that training stands at; continued runs go on where they stopped."""
        windows = TrainWindows(
            self.seed,
            pair_steps=self.pair_steps,
            video_steps=self.video_steps,
            side=self.side,
            images=self.images,
            window_clips=self.window_clips,
            window_frames=self.window_frames,
            image_share=self.image_share,
            jitter=self.jitter,
            first_step=self.trainer.global_step if self.trainer is not None else 0,
        )
        return DataLoader(windows, batch_size=None)

    def val_dataloader(self) -> DataLoader[TrackingCase]:
        """Held-out cases, one at a time."""
        cases = HeldOutCases(self.seed, count=self.val_cases, size=self.case_size, jitter=self.case_jitter)
        return DataLoader(cases, batch_size=None)

    def transfer_batch_to_device(
        self, batch: WindowBatch | TrackingCase, device: torch.device, dataloader_idx: int
    ) -> WindowBatch | TrackingCase:
        """Move training batches; a held-out case holds a clip, whose frames the predictor moves."""
        return batch.to(device) if isinstance(batch, WindowBatch) else batch
