"""Floating-point operations of both systems on one clip, counted while they run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from datamodules.lessons import lesson_from_labels, place
from datamodules.records import Clip, FrameBudget, FrameGrounding, Grounding
from datamodules.revos import ReVOS
from lightning_modules.sft_module import SFTModule
from models.detector import DetectorGrounder
from models.grounder import GroundingRequest
from models.places import PlacesGrounder
from models.propagator import SAM2Propagator
from models.reasoner import Reasoner
from models.rows import read_turns

KEYFRAMES = 4


@dataclass(frozen=True)
class Spent:
    """Operations on one clip in billions, a multiplication and an addition counted as two.

    Attributes:
        system_1: Towers, and the language model over prompt and an answer of four keyframes.
        grounder: Four keyframes.
        propagator: One object through the clip.
    """

    system_1: float
    grounder: float
    propagator: float


class ComputeMeter:
    """Counts on the first question of a ReVOS tree whose target is there."""

    def __init__(self, weights: Path, root: Path, *, fps: float) -> None:
        """Read the weights.

        Args:
            weights: Folder of reasoner, grounder and propagator.
            root: ReVOS tree.
            fps: Frames per second of its videos.
        """
        # Attention is counted where it is spelled out as products of matrices.
        self._reasoner = Reasoner(str(weights / "reasoner"), lora=None, template="short", attention="eager")
        self._detector = DetectorGrounder(str(weights / "grounder"))
        self._propagator = SAM2Propagator(str(weights / "propagator"))
        for part in (self._reasoner, self._detector, self._propagator):
            part.load()
        self._root, self._fps = root, fps

    def measure(self, *, frames: int, side: int, alone: bool) -> Spent:
        """Operations of one setting.

        Args:
            frames: Frames that System 1 sees.
            side: Their side in pixels.
            alone: System 1 writes places; otherwise it describes, and the grounder looks.
        """
        clip = self._clip(FrameBudget(frames, side**2, 224**2))
        grounder = PlacesGrounder() if alone else self._detector
        lesson = lesson_from_labels(clip, keyframes=KEYFRAMES, describe=place if alone else _described)
        picked = [clip.frame_at(segment.start_s) for segment in lesson.demonstrations[0].segments]
        words = [segment.description for segment in lesson.demonstrations[0].segments]
        requests = [GroundingRequest(*pair) for pair in zip(picked, words, strict=True)]
        module = SFTModule(self._reasoner)
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
            with FlopCounterMode(display=False) as reading:
                media, turns, _ = module.prepare([lesson])
                read_turns(self._reasoner, media, turns)
            with FlopCounterMode(display=False) as looking:
                grounder.ground(clip, requests)
            with FlopCounterMode(display=False) as tracking:
                self._propagator.propagate(clip, [Grounding(tuple(_true_box(clip, frame) for frame in picked))])
        counts = (counter.get_total_flops() / 1e9 for counter in (reading, looking, tracking))
        return Spent(*counts)

    def _clip(self, budget: FrameBudget) -> Clip:
        reader = ReVOS(self._root, split="valid", fps=self._fps, budget=budget)
        return reader[reader.nulls.index(False)]


def _true_box(clip: Clip, frame: int) -> FrameGrounding:
    """One box of the target, so that propagation costs the same whatever a grounder finds."""
    boxes = np.zeros((0, 4)) if clip.masks is None else clip.masks.boxes(frame)
    return FrameGrounding(frame, boxes[:1].astype(np.float32), np.ones(len(boxes[:1]), np.float32))


def _described(clip: Clip, frame: int) -> str:
    """A description of usual length."""
    del clip, frame
    return "the red circle"
