"""What the tiny SAM2 is told when it trains: how good its masks are, and whether it knows when there is nothing.

Differences from SAM2's training code: the pixel loss is binary cross-entropy, not focal loss, which prefers empty
masks early when training from nothing; and frames without the thing weigh more in the object score's loss, because
they are the rarer ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float

from models.tiny.propagator import WindowOutputs


@dataclass(frozen=True)
class WindowLoss:
    """Losses of a batch of windows, and how good its masks are.

    Attributes:
        mask: 4 x pixel cross-entropy + dice + error of the predicted IoU, mean over frames with the thing.
        object: Weighted cross-entropy of the object score, mean over frames.
        iou: Mean IoU on frames with the thing, whatever the object score says, 0..1.
        object_errors: Share of frames whose object score is wrong, 0..1.
    """

    mask: Float[torch.Tensor, ""]
    object: Float[torch.Tensor, ""]
    iou: Float[torch.Tensor, ""]
    object_errors: Float[torch.Tensor, ""]


def window_loss(
    outputs: WindowOutputs, masks: Bool[torch.Tensor, "rows frames side side"], *, absent_weight: float
) -> WindowLoss:
    """Compare a batch of windows with the truth.

    Args:
        outputs: From `track_window`.
        masks: True masks; all False where the row's thing cannot be seen.
        absent_weight: Weight of a frame without the thing in the object score's loss; a frame with it has 1.

    Returns:
        The losses; `mask` and `iou` are 0 when nothing is visible on any frame.
    """
    truth = masks.float()
    logits = F.interpolate(outputs.logits, size=masks.shape[-2:], mode="bilinear")
    visible = masks.flatten(2).any(dim=2).float()
    pixel = F.binary_cross_entropy_with_logits(logits, truth, reduction="none").flatten(2).mean(dim=2)
    chance = logits.sigmoid()
    overlap, total = (chance * truth).flatten(2).sum(dim=2), (chance + truth).flatten(2).sum(dim=2)
    dice = 1 - (2 * overlap + 1) / (total + 1)
    with torch.no_grad():
        painted = logits > 0
        union = (painted | masks).flatten(2).sum(dim=2).clamp(min=1)
        iou = (painted & masks).flatten(2).sum(dim=2) / union
    mask_loss = 4 * pixel + dice + (outputs.ious - iou).abs()
    weight = visible + absent_weight * (1 - visible)
    object_loss = F.binary_cross_entropy_with_logits(outputs.scores, visible, weight=weight, reduction="sum")
    shown = visible.sum().clamp(min=1)
    return WindowLoss(
        mask=(mask_loss * visible).sum() / shown,
        object=object_loss / weight.sum(),
        iou=(iou * visible).sum() / shown,
        object_errors=((outputs.scores > 0) != (visible > 0)).float().mean(),
    )
