"""J, F, A and R of single expressions by the rules of DAVIS, MeViS and ReVOS, frame by frame."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass

import numpy as np

from datamodules.masks import MaskTrack
from metrics.arrays import MaskLike, as_array, as_foreground
from metrics.boundary import frame_f
from metrics.packed import Bits, pack
from metrics.region import frame_j
from metrics.revos import Level, frame_a, frame_r, levels

STORED = 255
"""Value of a predicted pixel in the files that the official programs read."""


@dataclass(frozen=True)
class VideoParts:
    """Scores of one expression, each a mean over all frames of its video, in 0..1.

    Attributes:
        j: Region similarity.
        f: Boundary accuracy.
        a_official: Share of pixels with equal stored values, predictions stored as they are.
        a_binary: The same with predictions of 0 and 1.
        r_official: Robustness against all annotated objects, predictions stored as they are; NaN when these are
            unknown.
        r_binary: The same with predictions of 0 and 1.
    """

    j: float = 0.0
    f: float = 0.0
    a_official: float = 0.0
    a_binary: float = 0.0
    r_official: float = 0.0
    r_binary: float = 0.0


WORST = VideoParts()
"""What an answer that cannot be read scores: 0 throughout, as in the official program of ReVOS."""


def video_parts(
    pred: Iterable[Sequence[Level]],
    target: Iterable[Sequence[Level]],
    size: tuple[int, int],
    areas: Sequence[int] | None = None,
) -> VideoParts:
    """Score one expression frame by frame; a video is never held whole.

    Args:
        pred: Stored values of the prediction, per frame; every value but 0 is foreground for J and F.
        target: Instances per pixel, per frame.
        size: (height, width) of all frames.
        areas: Pixels of all annotated objects of the video, per frame; None when they are unknown.

    Returns:
        Means over frames; NaN for both R without `areas`.

    Raises:
        ValueError: There are more predicted frames than true ones, or the reverse, or none at all.
    """
    pixels, rows = size[0] * size[1], []
    for index, (stored, instances) in enumerate(zip(pred, target, strict=True)):
        found, truth = union(stored, size), union(instances, size)
        binary = [Level(1, found)]
        area = None if areas is None else areas[index]
        rows.append(
            VideoParts(
                frame_j(found, truth),
                frame_f(found, truth, size),
                frame_a(stored, instances, pixels),
                frame_a(binary, instances, pixels),
                float("nan") if area is None else frame_r(stored, instances, area),
                float("nan") if area is None else frame_r(binary, instances, area),
            )
        )
    if not rows:
        raise ValueError("expected a video of at least one frame, found none")
    return VideoParts(*np.mean([astuple(row) for row in rows], axis=0).tolist())


def union(stored: Sequence[Level], size: tuple[int, int]) -> Bits:
    """Where a picture is not 0."""
    if not stored:
        return pack(np.zeros(size, dtype=bool))
    bits: Bits = np.bitwise_or.reduce([level.bits for level in stored])
    return bits


def track_levels(track: MaskTrack, *, stored: int = 1, adds: bool = True) -> Iterable[list[Level]]:
    """A mask track, frame by frame, as the official programs hold it.

    Args:
        track: Masks of any number of objects.
        stored: Value of a pixel that one object covers.
        adds: Count objects that overlap, as for the ground truth; otherwise a pixel is covered or not.
    """
    for frame in range(track.frames):
        joined = track.union([frame])[0]
        if adds and int(track.areas[frame].sum()) != np.count_nonzero(joined):
            yield levels(track.dense([frame])[0].sum(axis=0, dtype=np.uint8))
        else:
            yield [Level(stored, pack(joined))]


def mask_parts(pred: MaskLike, target: MaskLike, foreground: MaskLike | None = None) -> VideoParts:
    """Score one expression from whole arrays.

    Args:
        pred: Predicted masks, (frames, height, width); every non-zero value is foreground, stored as 255.
        target: Ground truth of the same shape, boolean or the 8-bit number of instances per pixel.
        foreground: Union of all annotated objects of the video, of the same shape; None leaves R unknown.

    Raises:
        ValueError: The shapes differ or are not (frames, height, width).
    """
    masks = {"pred": pred, "target": target} | ({} if foreground is None else {"foreground": foreground})
    found, _, *annotated = as_foreground(**masks)
    areas = [int(area) for area in annotated[0].sum(axis=(1, 2))] if annotated else None
    stored = ([Level(STORED, pack(mask))] for mask in found)
    instances = (levels(mask) for mask in as_array(target).astype(np.uint8))
    return video_parts(stored, instances, (found.shape[1], found.shape[2]), areas)
