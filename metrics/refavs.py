"""The scores of the Ref-AVS benchmark: its J, its F (no boundary measure) and S for null clips.

Each function is one call of the official scorer. The official numbers call it for every four expressions in table
order and average the calls; J does not depend on how clips are put together, F and S do. Inputs are logits, as the
official scorer applies the sigmoid itself: give it hard masks through `hard_logits`, because 0 and 1 taken as logits
make every pixel foreground.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float32, Float64, Int64, Shaped
from torch import Tensor

from metrics.arrays import MaskLike

SIZE = 256
"""Height and width in pixels at which the benchmark scores."""

HARD_LOGIT = 20.0
"""Large enough for the sigmoid to round to 1, and with the sign turned to stay below every threshold but 0."""

THRESHOLDS = 255
BETA_SQUARED = 0.3


def refavs_j(logits: Float[Tensor, "frames 1 height width"], target: Shaped[Tensor, "frames 1 height width"]) -> float:
    """Mean IoU over frames, foreground where the sigmoid exceeds 0.4.

    A frame with an empty ground truth scores the share of pixels predicted as background instead.

    Args:
        logits: Predicted, before the sigmoid.
        target: Ground truth, 0 or 1, of the same shape.

    Returns:
        In 0..1; just below 1 for a perfect mask because of the official 1e-7 in the denominator.

    Raises:
        ValueError: If the shapes differ, are not (frames, 1, height, width), or there is no frame.

    Reference:
        Ref-AVS, arXiv:2407.10957; `mask_iou` of its released scorer.
    """
    return float(frame_scores(logits, target).mean())


def refavs_f(logits: Float[Tensor, "frames 1 height width"], target: Shaped[Tensor, "frames 1 height width"]) -> float:
    """Pixel F-measure with squared beta 0.3, averaged over frames, at the best of 255 thresholds.

    The thresholds go from 0 to 1 inclusive; a pixel is foreground where the sigmoid reaches the threshold, so the
    first one makes every pixel foreground. Frames with an empty ground truth are skipped.

    Args:
        logits: Predicted, before the sigmoid.
        target: Ground truth, 0 or 1, of the same shape.

    Returns:
        In 0..1; 0 when every frame is skipped. Above 0 for an empty prediction, because of the first threshold.

    Raises:
        ValueError: If the shapes differ, are not (frames, 1, height, width), or there is no frame.

    Reference:
        Ref-AVS, arXiv:2407.10957; `Eval_Fmeasure` of its released scorer.
    """
    curves = frame_curves(logits, target)
    return float(curves.mean(dim=0).max()) if len(curves) else 0.0


def refavs_s(logits: Float[Tensor, "frames 1 height width"]) -> float:
    """Square root of the share of foreground pixels over all frames together, foreground where the sigmoid exceeds 0.5.

    Args:
        logits: Predicted for null clips, before the sigmoid.

    Returns:
        In 0..1, lower is better; 0 for empty masks.

    Raises:
        ValueError: If the shape is not (frames, 1, height, width) or there is no frame.

    Reference:
        Ref-AVS, arXiv:2407.10957; `metric_s_for_null` of its released scorer.
    """
    return float((marked_pixels(logits) / logits.numel()) ** 0.5)


def frame_scores(
    logits: Float[Tensor, "frames 1 height width"], target: Shaped[Tensor, "frames 1 height width"]
) -> Float64[Tensor, "frames"]:
    """The J of every frame, of which `refavs_j` is the mean; same arguments."""
    found, truth = _frames(logits, target)
    foreground, present = torch.sigmoid(found) > 0.4, truth > 0
    shared = (foreground & present).sum(dim=1).double()
    covered = (foreground | present).sum(dim=1).double()
    is_empty = ~present.any(dim=1)
    shared = torch.where(is_empty, (~foreground).sum(dim=1).double(), shared)
    covered = torch.where(is_empty, float(truth.shape[1]), covered)
    return shared / (covered + 1e-7)


def frame_curves(
    logits: Float[Tensor, "frames 1 height width"], target: Shaped[Tensor, "frames 1 height width"]
) -> Float64[Tensor, "kept thresholds"]:
    """The F of every frame with a target at every threshold, of which `refavs_f` takes the mean and its highest point.

    Same arguments as `refavs_f`; shape (0, 255) when no frame has a target.
    """
    found, truth = _frames(logits, target)
    present = truth > 0
    kept = present.any(dim=1)
    present = present[kept]
    if not len(present):
        return torch.zeros(0, THRESHOLDS, dtype=torch.float64)
    met = _thresholds_met(torch.sigmoid(found[kept]))
    predicted = _reaching(met, torch.ones_like(present))
    hits = _reaching(met, present)
    precision = hits / (predicted + 1e-20)
    recall = hits / (present.sum(dim=1, keepdim=True) + 1e-20)
    scores = (1 + BETA_SQUARED) * precision * recall / (BETA_SQUARED * precision + recall)
    return scores.nan_to_num(nan=0.0)


def marked_pixels(logits: Float[Tensor, "frames 1 height width"]) -> int:
    """Pixels of all frames whose sigmoid exceeds 0.5, which `refavs_s` counts; same argument."""
    found, _ = _frames(logits, logits)
    return int((torch.sigmoid(found) > 0.5).sum())


def resize_target(mask: MaskLike) -> Float32[Tensor, "frames 1 256 256"]:
    """Bring masks to the size the benchmark scores at, by its rule for the ground truth.

    Bilinear without antialiasing on 0 and 255, foreground where the rounded value is not 0: shrinking dilates a little,
    and an object of a pixel can vanish. Predictions of hard masks take the same way, so that a perfect one stays so.

    Args:
        mask: Masks of the original size; every non-zero value is foreground.

    Returns:
        0 or 1.
    """
    foreground = (torch.as_tensor(mask) != 0).float()[:, None] * 255
    resized = F.interpolate(foreground, size=(SIZE, SIZE), mode="bilinear", align_corners=False)
    return (resized >= 0.5).float()


def hard_logits(mask: Shaped[Tensor, "*shape"]) -> Float32[Tensor, "*shape"]:
    """Logits that stand for hard masks: 20 where the mask is not 0, -20 elsewhere."""
    return torch.where(mask != 0, HARD_LOGIT, -HARD_LOGIT)


def _frames(logits: Tensor, target: Tensor) -> tuple[Float32[Tensor, "frames pixels"], Shaped[Tensor, "frames pixels"]]:
    """One row of pixels per frame."""
    if logits.shape != target.shape or logits.ndim != 4 or logits.shape[1] != 1 or not len(logits):
        raise ValueError(
            "expected logits and target of one shape (frames, 1, height, width) with at least one frame, "
            f"found logits {tuple(logits.shape)} and target {tuple(target.shape)}"
        )
    return logits.float().flatten(start_dim=1), target.flatten(start_dim=1)


def _thresholds_met(probability: Float32[Tensor, "frames pixels"]) -> Int64[Tensor, "frames pixels"]:
    """How many of the thresholds each pixel reaches; what is not a number reaches none."""
    # In single precision 1 - 1e-10 is 1: the last threshold is met by saturated pixels only.
    thresholds = torch.linspace(0, 1 - 1e-10, THRESHOLDS, device=probability.device)
    met = torch.searchsorted(thresholds, probability, right=True)
    return met.masked_fill(probability.isnan(), 0)  # the search puts them behind every threshold


def _reaching(
    met: Int64[Tensor, "frames pixels"], counted: Bool[Tensor, "frames pixels"]
) -> Float64[Tensor, "frames thresholds"]:
    """How many counted pixels reach each threshold."""
    exactly = torch.stack(
        [row[kept].bincount(minlength=THRESHOLDS + 1) for row, kept in zip(met, counted, strict=True)]
    )
    return exactly.double().flip(1).cumsum(dim=1).flip(1)[:, 1:]
