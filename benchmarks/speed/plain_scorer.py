"""The formulas of ReVOS as one would write them down, with NumPy and scikit-image: what the scorer is timed beside."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as coco
from skimage.morphology import dilation, disk, isotropic_dilation

from metrics.score.videos import VideoJob

Dilation = Callable[[np.ndarray, int], np.ndarray]


class PlainProgram:
    """J, F, A and R frame by frame, with all tables in memory."""

    def __init__(self, root: Path, dilated: Dilation) -> None:
        """Read the tables.

        Args:
            root: Folder of the benchmark.
            dilated: Dilates a mask by a disk of a radius.
        """
        self.dilated = dilated
        self.masks = json.loads((root / "mask_dict.json").read_text())
        self.foreground = json.loads((root / "mask_dict_foreground.json").read_text())

    def score(self, job: VideoJob) -> tuple[float, ...]:
        """J, F, A and R of one expression."""
        rows = []
        for index, frame in enumerate(job.video.frames):
            path = job.predictions / job.video.name / job.question.id / f"{frame}.png"
            pred = np.array(Image.open(path))
            truth = np.zeros(pred.shape, dtype=np.uint8)
            for name in job.question.annotations or ():
                rle = self.masks[name][index]
                if rle:
                    truth += coco.decode(rle)
            annotated = coco.decode(self.foreground[job.video.name]["masks_rle"][index])
            rows.append((*self.jf(pred > 0, truth > 0), *plain_ar(pred, truth, annotated)))
        return tuple(np.mean(rows, axis=0).tolist())

    def jf(self, pred: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
        """J and F of one frame."""
        union = (pred | truth).sum()
        j = (pred & truth).sum() / union if union else 1.0
        radius = int(np.ceil(0.008 * np.hypot(*pred.shape)))
        one, other = boundary(pred), boundary(truth)
        if not one.any() or not other.any():
            return float(j), float(one.any() == other.any())
        precision = (one & self.dilated(other, radius)).sum() / one.sum()
        recall = (other & self.dilated(one, radius)).sum() / other.sum()
        return float(j), float(2 * precision * recall / (precision + recall)) if precision + recall else 0.0


def boundary(mask: np.ndarray) -> np.ndarray:
    """Pixels that differ from the right, lower or lower right neighbor."""
    right, below, diagonal = mask.copy(), mask.copy(), mask.copy()
    right[:, :-1], below[:-1], diagonal[:-1, :-1] = mask[:, 1:], mask[1:], mask[1:, 1:]
    edge = (mask != right) | (mask != below) | (mask != diagonal)
    edge[-1], edge[:, -1] = (mask != right)[-1], (mask != below)[:, -1]
    return edge


def by_disk(mask: np.ndarray, radius: int) -> np.ndarray:
    """Dilation by a disk."""
    return dilation(mask, disk(radius, dtype=bool))


def plain_ar(pred: np.ndarray, truth: np.ndarray, annotated: np.ndarray) -> tuple[float, float]:
    """A and R of one frame on stored values."""
    wrong = ((np.uint8(1) - truth) * pred).sum()
    return float(np.mean(pred == truth)), float(max(1 - wrong / (annotated.sum() + 1e-6), 0.0))


DILATIONS: dict[str, Dilation] = {"disk": by_disk, "distance": isotropic_dilation}
"""By a disk, as the definition puts it, and by a distance transform, which is faster; they give the same."""
