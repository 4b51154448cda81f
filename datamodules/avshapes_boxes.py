"""What the tiny detector learns from and is judged by: single frames of AVShapes scenes with descriptions.

A training item is a whole batch (`DetectionBatch`): frames of several scenes, the things visible on them, and a list
of descriptions that every frame is asked about, so that most answers are "not here". The item of a step is a pure
function of (seed, step): a run that is continued sees what it would have seen. Only scenes without held-out looks are
drawn, and training and validation scenes never coincide. Nothing is read or written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import lightning as L
import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from datamodules.avshapes.render import render_frames
from datamodules.avshapes.scene import Thing, World, sample_scene
from datamodules.avshapes_queries import sample_queries
from datamodules.errors import ConfigError

TRAIN, VALIDATE, GATES = 10, 11, 12
"""Second number of a scene's key; the first is the seed."""
WORLDS = (World(), World(distinct_shapes=False))
_LEAST_PIXELS = 60
"""Things with fewer visible pixels (of 224 x 224) are neither right nor wrong answers."""


@dataclass(frozen=True)
class DetectionBatch:
    """Frames, the things on them, and descriptions that all frames are asked about.

    Attributes:
        images: RGB, 0..255.
        image_of: Frame of each thing.
        boxes: Tight box of each thing's visible pixels, xyxy, half-open, as shares of the frame's side.
        masks: Visible pixels of each thing.
        counts: False for things too small to count as a right or a wrong answer.
        texts: The descriptions.
        matches: Which descriptions are true of which things.
    """

    images: UInt8[Tensor, "images 3 side side"]
    image_of: Int[Tensor, "things"]
    boxes: Float[Tensor, "things 4"]
    masks: Bool[Tensor, "things side side"]
    counts: Bool[Tensor, "things"]
    texts: tuple[str, ...]
    matches: Bool[Tensor, "things queries"]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> DetectionBatch:
        """The same batch with its tensors on a device."""
        tensors: dict[str, Any] = {
            name: value.to(device, non_blocking=non_blocking)
            for name, value in vars(self).items()
            if isinstance(value, Tensor)
        }
        return replace(self, **tensors)


def tight_box(mask: Bool[np.ndarray, "height width"]) -> tuple[int, int, int, int]:
    """The box xyxy around the True pixels, half-open, in pixels; the mask must have at least one."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def draw_batch(
    rng: np.random.Generator, key: tuple[int, ...], *, scenes: int, frames_per_scene: int, queries: int, side: int
) -> DetectionBatch:
    """Draw a batch.

    Args:
        rng: Decides on worlds, frames and descriptions.
        key: What the scenes are keyed by.
        scenes: Number of scenes.
        frames_per_scene: Different frames taken from each.
        queries: Number of descriptions.
        side: Side of the frames in pixels.
    """
    images: list[UInt8[np.ndarray, "side side 3"]] = []
    masks: list[Bool[np.ndarray, "things side side"]] = []
    image_of: list[int] = []
    things: list[Thing] = []
    for index in range(scenes):
        scene = sample_scene((*key, index), WORLDS[rng.integers(len(WORLDS))])
        chosen = rng.permutation(scene.world.frames)[:frames_per_scene]
        pixels, truth = render_frames(scene, frames=[int(frame) for frame in chosen], size=side)
        for frame, of_frame in zip(pixels, truth, strict=True):
            visible = np.flatnonzero(of_frame.any(axis=(1, 2)))
            image_of += [len(images)] * len(visible)
            things += [scene.things[thing] for thing in visible]
            masks.append(of_frame[visible])
            images.append(frame)
    asked = sample_queries(rng, queries)
    stacked = np.concatenate(masks)
    return DetectionBatch(
        images=torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2),
        image_of=torch.tensor(image_of),
        boxes=torch.tensor([tight_box(mask) for mask in stacked]).float().reshape(-1, 4) / side,
        masks=torch.from_numpy(stacked),
        counts=torch.from_numpy(stacked.sum(axis=(1, 2)) >= _LEAST_PIXELS * (side / 224) ** 2),
        texts=tuple(query.text for query in asked),
        matches=torch.tensor([[query.fits(thing) for query in asked] for thing in things]).reshape(-1, queries),
    )


class DetectionBatches(Dataset[DetectionBatch]):
    """The batch of every step.

    Args:
        key: (seed, purpose); with the step it decides a batch.
        steps: Number of batches.
        scenes: Scenes of a batch.
        frames_per_scene: Frames of each scene.
        queries: Descriptions of a batch.
        side: Side of the frames in pixels.
    """

    def __init__(
        self, key: tuple[int, int], *, steps: int, scenes: int, frames_per_scene: int, queries: int, side: int
    ) -> None:
        self._key = key
        self._steps = steps
        self._draw = {"scenes": scenes, "frames_per_scene": frames_per_scene, "queries": queries, "side": side}

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, index: int) -> DetectionBatch:
        if not 0 <= index < self._steps:
            raise IndexError(f"step {index} of {self._steps}")
        key = (*self._key, index)
        return draw_batch(np.random.default_rng(key), key, **self._draw)


class RemainingSteps(Sampler[int]):
    """The steps of a run in order, from where it stands; the length is that of the whole run.

    Args:
        steps: Steps of the whole run.
        taken: Asked for the steps already taken when iteration begins. A continued run knows them by then, but not
            yet when its loaders are made.
    """

    def __init__(self, steps: int, *, taken: Callable[[], int]) -> None:
        self._steps = steps
        self._taken = taken

    def __len__(self) -> int:
        return self._steps

    def __iter__(self) -> Iterator[int]:
        return iter(range(self._taken(), self._steps))


class AVShapesBoxesDataModule(L.LightningDataModule):
    """Frames of AVShapes scenes with descriptions for the grounder's recipe, rendered on the fly.

    Args:
        seed: With the step, decides every batch.
        steps: Training steps.
        scenes: Scenes of a batch.
        frames_per_scene: Different frames of each scene; scenes x frames_per_scene is the batch size.
        queries: Descriptions of a batch; every frame is asked about all of them.
        side: Side of the frames in pixels; the model's image size.
        val_batches: Batches of a validation round.

    Raises:
        ConfigError: A count below 1; all of them are listed.
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        steps: int = 4000,
        scenes: int = 12,
        frames_per_scene: int = 2,
        queries: int = 48,
        side: int = 112,
        val_batches: int = 8,
    ) -> None:
        super().__init__()
        settings = {
            "steps": steps,
            "scenes": scenes,
            "frames_per_scene": frames_per_scene,
            "queries": queries,
            "side": side,
            "val_batches": val_batches,
        }
        problems = [
            f"data.{name} is {value}; expected at least 1. Set --data.{name}."
            for name, value in settings.items()
            if value < 1
        ]
        if problems:
            raise ConfigError("\n".join(problems))
        self.seed = seed
        self.steps = steps
        self.val_batches = val_batches
        self._draw = {"scenes": scenes, "frames_per_scene": frames_per_scene, "queries": queries, "side": side}

    def train_dataloader(self) -> DataLoader[DetectionBatch]:
        """Batches from the step that training stands at; continued runs go on where they stopped."""
        batches = DetectionBatches((self.seed, TRAIN), steps=self.steps, **self._draw)
        return DataLoader(batches, batch_size=None, sampler=RemainingSteps(self.steps, taken=self._steps_taken))

    def val_dataloader(self) -> DataLoader[DetectionBatch]:
        """Batches of other scenes."""
        return DataLoader(
            DetectionBatches((self.seed, VALIDATE), steps=self.val_batches, **self._draw), batch_size=None
        )

    def _steps_taken(self) -> int:
        return self.trainer.global_step if self.trainer is not None else 0
