"""System 2, second half: from boxes on a few keyframes to masks on every frame of a clip.

`Propagator` is the interface, `SAM2Propagator` the implementation over SAM2. Frozen; nothing here is trained. The clip
is encoded once however many groundings ask about it, equal objects are followed once, and all objects travel in
batches (`models.sam2_tracking`). `batched=False` goes through SAM2's stock interface instead, one object after the
other, and is what the batched path is tested against.

Differences from SAM2's video demo: every object starts at its own first keyframe, where the stock interface starts all
objects of a session at the earliest keyframe of any of them; and holes in masks are not filled, which would need a
CUDA extension.

Reference:
    SAM 2: Segment Anything in Images and Videos, arXiv:2408.00714.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from pycocotools import mask as coco
from torch import nn

from datamodules.errors import ConfigError
from datamodules.masks import MaskTrack
from datamodules.records import Clip, Frames, Grounding
from models.sam2_loading import load_predictor
from models.sam2_predictor import ClipFeatures, ClipPredictor, prepare_frames
from models.sam2_prompts import ObjectPrompts, associate
from models.sam2_tracking import SegmentedFrames, track_objects

_MASKS_AT_ONCE = 16
"""Masks scaled up to the original size at a time; 16 of 720p are 59 MB."""


class Propagator(nn.Module, ABC):
    """Masks on every frame from boxes (or masks) on keyframes."""

    @abstractmethod
    def load(self) -> None:
        """Read the weights and freeze them; the constructor only keeps settings."""

    @abstractmethod
    def propagate(self, clip: Clip, groundings: Sequence[Grounding]) -> list[MaskTrack]:
        """Follow what was grounded through the whole clip, forward and backward.

        Args:
            clip: The clip.
            groundings: What to follow, such as one grounding per rollout of a group.

        Returns:
            One track per grounding, in order: original size, every frame of the clip, one object per associated box;
            no objects where a grounding has no boxes.
        """

    def train(self, mode: bool = True) -> Propagator:
        """Stay in evaluation mode: a frozen part must not change its ways when what holds it is trained."""
        return super().train(False)


class SAM2Propagator(Propagator):
    """Propagation with a frozen SAM2.

    Args:
        path: A folder with config.yaml (SAM2's own format) and model.safetensors, a released checkpoint file
            (sam2.1_hiera_large.pt), or a Hugging Face id (facebook/sam2.1-hiera-large).
        config: Configuration inside the sam2 package (sam2.1_hiera_l) for a checkpoint file with another name than
            the released one; None otherwise.
        batched: Whether all objects travel in batches over features that are computed once. False is the stock
            interface: the same masks, many times slower.
        dtype: Precision of the computation (autocast); weights stay in float32.
        cached_clips: How many clips' features are kept, most recently used first; a clip of 10 frames takes about
            160 MB with hiera-large in float32.
        frames_per_encode: Frames that are read and encoded at a time.
        objects_per_pass: Objects that travel together; bounds the memory, not the result.

    Raises:
        ConfigError: A count below 1; all of them are named.
    """

    def __init__(
        self,
        path: str,
        *,
        config: str | None = None,
        batched: bool = True,
        dtype: Literal["float32", "bfloat16"] = "float32",
        cached_clips: int = 1,
        frames_per_encode: int = 16,
        objects_per_pass: int = 32,
    ) -> None:
        super().__init__()
        counts = {
            "cached_clips": cached_clips,
            "frames_per_encode": frames_per_encode,
            "objects_per_pass": objects_per_pass,
        }
        problems = [
            f"model.propagator.{name} must be at least 1, found {count}." for name, count in counts.items() if count < 1
        ]
        if problems:
            raise ConfigError(" ".join(problems))
        self.path = path
        self.config = config
        self.batched = batched
        self.dtype = dtype
        self.cached_clips = cached_clips
        self.frames_per_encode = frames_per_encode
        self.objects_per_pass = objects_per_pass
        self._cache: OrderedDict[tuple[int, torch.device], tuple[Frames, ClipFeatures]] = OrderedDict()

    def load(self) -> None:
        """Build SAM2, read its weights and freeze them.

        Raises:
            ConfigError: Nothing usable at `path`; the message says what was expected.
        """
        self.use(load_predictor(self.path, config=self.config))

    def use(self, predictor: ClipPredictor) -> None:
        """Take a predictor that is already there instead of loading one; it is frozen.

        Args:
            predictor: SAM2, such as one that is being trained, copied.
        """
        self._cache.clear()
        self.predictor = predictor.requires_grad_(False).eval()

    @torch.inference_mode()
    def propagate(self, clip: Clip, groundings: Sequence[Grounding]) -> list[MaskTrack]:
        """Follow what was grounded through the whole clip, forward and backward.

        Args:
            clip: The clip; its frames are read once and their features kept.
            groundings: What to follow. Several boxes of a keyframe are several objects; boxes of different keyframes
                are assigned to objects by `models.sam2_prompts.associate`. Groundings, and objects of different
                groundings, that are equal are followed once.

        Returns:
            One track per grounding, in order: original size, every frame of the clip, one object per associated box;
            no objects where a grounding has no boxes.

        Raises:
            RuntimeError: `load` was not called.
            ValueError: A grounding names a frame that the clip does not have, or holds masks of another size.
        """
        if not hasattr(self, "predictor"):
            raise RuntimeError("SAM2Propagator has no weights yet; call load() before propagate().")
        for grounding in groundings:
            _check(clip, grounding)
        size, frames = clip.frames.size, clip.frames.count
        asked = [associate(grounding, size) for grounding in groundings]
        objects = {_key(prompts): prompts for prompted in asked for prompts in prompted}
        rows = dict(zip(objects, range(len(objects)), strict=True))
        found = self._follow(clip, list(objects.values()))
        return [
            MaskTrack(
                size, tuple(tuple(found[rows[_key(prompts)]][frame] for prompts in prompted) for frame in range(frames))
            )
            for prompted in asked
        ]

    def _follow(self, clip: Clip, objects: Sequence[ObjectPrompts]) -> list[list[bytes | None]]:
        """Run lengths of every object on every frame, None where it is not visible."""
        size = clip.frames.size
        table: list[list[bytes | None]] = [[None] * clip.frames.count for _ in objects]
        if not objects:
            return table
        with self._autocast():
            segmented = self._segment_batched(clip, objects) if self.batched else self._segment_stock(clip, objects)
            for found in segmented:
                for (row, frame), counts in zip(found.places, _encode_masks(found.logits, size), strict=True):
                    table[row][frame] = counts
        return table

    def _segment_batched(self, clip: Clip, objects: Sequence[ObjectPrompts]) -> Iterator[SegmentedFrames]:
        features = self._features(clip)
        for start in range(0, len(objects), self.objects_per_pass):
            passed = objects[start : start + self.objects_per_pass]
            for found in track_objects(self.predictor, features, passed, size=clip.frames.size):
                places = tuple((start + row, frame) for row, frame in found.places)
                yield SegmentedFrames(places, found.logits)

    def _segment_stock(self, clip: Clip, objects: Sequence[ObjectPrompts]) -> Iterator[SegmentedFrames]:
        """One session of SAM2's stock interface per object."""
        images = prepare_frames(clip.frames.read(range(clip.frames.count)), self.predictor.image_size)
        for row, prompts in enumerate(objects):
            state = self.predictor.open_state(images.to(self.predictor.device), clip.frames.size)
            for prompt in prompts:
                if prompt.mask is None:
                    box = np.array(prompt.box, dtype=np.float32)
                    self.predictor.add_new_points_or_box(state, frame_idx=prompt.frame, obj_id=1, box=box)
                else:
                    self.predictor.add_new_mask(state, frame_idx=prompt.frame, obj_id=1, mask=prompt.mask)
            for is_way_back in (False, True):
                for frame, _, logits in self.predictor.propagate_in_video(
                    state, start_frame_idx=prompts[0].frame, reverse=is_way_back
                ):
                    yield SegmentedFrames(((row, frame),), logits)

    def _features(self, clip: Clip) -> ClipFeatures:
        """The clip's features, from the cache if they are there."""
        device = self.predictor.device
        # The entry holds on to the frames, so that their id is not given to another clip meanwhile.
        key = (id(clip.frames), device)
        if key not in self._cache:
            parts = [
                self.predictor.encode(prepare_frames(clip.frames.read(chunk), self.predictor.image_size).to(device))
                for chunk in _chunks(clip.frames.count, self.frames_per_encode)
            ]
            levels = tuple(torch.cat(level) for level in zip(*(part.levels for part in parts), strict=True))
            self._cache[key] = (clip.frames, ClipFeatures(levels, parts[0].positions))
            while len(self._cache) > self.cached_clips:
                self._cache.popitem(last=False)
        self._cache.move_to_end(key)
        return self._cache[key][1]

    def _autocast(self) -> AbstractContextManager[None]:
        enabled = self.dtype == "bfloat16"
        return torch.autocast(self.predictor.device.type, dtype=torch.bfloat16, enabled=enabled)


def _key(prompts: ObjectPrompts) -> tuple[object, ...]:
    return tuple(prompt.key for prompt in prompts)


def _check(clip: Clip, grounding: Grounding) -> None:
    for found in grounding.keyframes:
        if not 0 <= found.frame < clip.frames.count:
            raise ValueError(f"{clip.id}: expected keyframes in 0..{clip.frames.count - 1}, found frame {found.frame}.")
        if found.masks is not None and found.masks.shape[1:] != clip.frames.size:
            raise ValueError(
                f"{clip.id}: expected masks of the frames' size {clip.frames.size} on frame {found.frame}, "
                f"found {found.masks.shape[1:]}."
            )


def _chunks(count: int, length: int) -> Iterator[range]:
    return (range(start, min(start + length, count)) for start in range(0, count, length))


def _encode_masks(logits: Float[torch.Tensor, "masks 1 height width"], size: tuple[int, int]) -> Iterator[bytes | None]:
    """Scale masks up to the original size and encode them, a few at a time."""
    for start in range(0, len(logits), _MASKS_AT_ONCE):
        part = logits[start : start + _MASKS_AT_ONCE].float()
        # Scaling up cannot make a positive pixel out of none, so what is not visible costs nothing.
        is_visible = (part > 0).flatten(1).any(dim=1).tolist()
        masks = F.interpolate(part[is_visible], size=size, mode="bilinear", align_corners=False)[:, 0] > 0
        encoded = iter(_run_lengths(masks.cpu().numpy()))
        for shown in is_visible:
            yield next(encoded) if shown else None


def _run_lengths(masks: np.ndarray) -> list[bytes | None]:
    """COCO run lengths, None for a mask without a pixel."""
    if not len(masks):
        return []
    encoded = coco.encode(np.asfortranarray(masks.transpose(1, 2, 0).astype(np.uint8)))
    return [rle["counts"] if mask.any() else None for rle, mask in zip(encoded, masks, strict=True)]
