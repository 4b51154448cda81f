"""What a detector of the OWL-ViT kind is trained with: which patch answers for which thing, and what answers cost.

Pure functions on tensors. Every patch that a thing covers learns the thing's box; the ones nearest to the box's center
also learn to answer for it by name, and other patches that it touches may answer or not. A description may be true of
several things.

Difference from OWL-ViT: it matches patches and things one to one with the Hungarian algorithm after a contrastive
pre-training; from nothing, a fixed choice of several patches per thing learns much faster, and boxes learned on all
covered patches instead of the answering ones alone reach the same error in about half as many steps.

Reference:
    Minderer et al., Simple Open-Vocabulary Object Detection with Vision Transformers, arXiv:2205.06230, section 3;
    focal loss: Lin et al., arXiv:1708.02002, equation 5; generalized IoU: Rezatofighi et al., arXiv:1902.09630.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torchvision.ops import box_convert, complete_box_iou_loss


@dataclass(frozen=True)
class Assignment:
    """Which patches answer for which things.

    Attributes:
        answers: Patches that should find the thing.
        covers: Patches that should know the thing's box, the answering ones included.
        touches: Patches on which the thing is visible at all, the covered ones included.
    """

    answers: Bool[Tensor, "things patches"]
    covers: Bool[Tensor, "things patches"]
    touches: Bool[Tensor, "things patches"]


@dataclass(frozen=True)
class DetectionLoss:
    """Cost of a batch's predictions.

    Attributes:
        naming: Focal loss of the description scores, per right answer.
        boxes: Complete-IoU loss of the covered patches' boxes, mean, 0 for exact boxes.
        distance: Mean absolute difference of box corners, as a share of the image's side.
    """

    naming: Float[Tensor, ""]
    boxes: Float[Tensor, ""]
    distance: Float[Tensor, ""]


def assign_patches(
    masks: Bool[Tensor, "things side side"], boxes: Float[Tensor, "things 4"], *, grid: int, most: int = 9
) -> Assignment:
    """Choose the patches that answer for each thing.

    Args:
        masks: Visible pixels, at least one per thing; those of one image do not overlap.
        boxes: Their boxes, xyxy, as shares of the image's side.
        grid: Patches per row and per column.
        most: Most answering patches per thing.

    Returns:
        The patches covered by the thing at least by half, or the one covered most when there is none; of these, up to
        `most` nearest to the box's center answer.
    """
    covered = F.adaptive_avg_pool2d(masks[:, None].float(), grid).flatten(1)  # (things, patches)
    middle = (torch.arange(grid, device=boxes.device) + 0.5) / grid
    centers = torch.stack(torch.meshgrid(middle, middle, indexing="xy"), dim=-1).reshape(-1, 2)
    distance = torch.cdist((boxes[:, :2] + boxes[:, 2:]) / 2, centers)
    best = F.one_hot(covered.argmax(dim=1), covered.shape[1]).bool()
    covers = (covered >= 0.5) | best
    nearest = torch.where(covers, distance, torch.inf).argsort(dim=1)[:, :most]
    answers = torch.zeros_like(covers).scatter_(1, nearest, value=True) & covers
    return Assignment(answers=answers, covers=covers, touches=covered > 0)


def detection_loss(
    logits: Float[Tensor, "images patches queries"],
    predicted: Float[Tensor, "images patches 4"],
    *,
    assignment: Assignment,
    boxes: Float[Tensor, "things 4"],
    image_of: Int[Tensor, "things"],
    counts: Bool[Tensor, "things"],
    matches: Bool[Tensor, "things queries"],
) -> DetectionLoss:
    """Compare predictions with the things on the images.

    Args:
        logits: How well each patch fits each description.
        predicted: Box of each patch, center and size, as shares of the image's side.
        assignment: Which patches answer for which things.
        boxes: The things' boxes, xyxy, as shares of the image's side.
        image_of: Image of each thing.
        counts: False for things that are neither right nor wrong answers.
        matches: Which descriptions are true of which things.
    """
    right = _spread(assignment.answers & counts[:, None], matches, image_of, logits.shape[0])
    either = _spread(assignment.touches, matches, image_of, logits.shape[0]) & ~right
    probability = logits.sigmoid()
    missed = torch.where(right, 1 - probability, probability)
    cost = missed**2 * F.binary_cross_entropy_with_logits(logits, right.float(), reduction="none")
    naming = torch.where(either, 0.0, cost).sum() / right.sum().clamp(min=1)

    thing, patch = (assignment.covers & counts[:, None]).nonzero(as_tuple=True)
    found = box_convert(predicted[image_of[thing], patch], "cxcywh", "xyxy")
    overlap = complete_box_iou_loss(found, boxes[thing], reduction="sum") / max(len(thing), 1)
    distance = (found - boxes[thing]).abs().sum() / max(4 * len(thing), 1)
    return DetectionLoss(naming=naming, boxes=overlap, distance=distance)


def _spread(
    patches: Bool[Tensor, "things patches"], matches: Bool[Tensor, "things queries"], image_of: Tensor, images: int
) -> Bool[Tensor, "images patches queries"]:
    """Where a matching thing's patches lie, per image and description."""
    hits = (patches[:, :, None] & matches[:, None, :]).float()
    total = torch.zeros(images, *hits.shape[1:], device=hits.device).index_add_(0, image_of, hits)
    return total > 0
