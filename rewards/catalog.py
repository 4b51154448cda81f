"""Every shipped reward in one place; importing it lets the command line know them by their short names."""

from __future__ import annotations

from rewards.alignment import AlignmentReward
from rewards.consistency import ConsistencyReward
from rewards.count import CountReward
from rewards.diversity import DiversityReward
from rewards.format import FormatReward
from rewards.length import LengthReward
from rewards.null import NullReward
from rewards.paper import (
    PaperAlignmentReward,
    PaperBaseReward,
    PaperCountReward,
    PaperExtraBoxesReward,
    PaperFirstFrameReward,
    PaperSegmentsReward,
)
from rewards.saliency import SaliencyReward

__all__ = [
    "AlignmentReward",
    "ConsistencyReward",
    "CountReward",
    "DiversityReward",
    "FormatReward",
    "LengthReward",
    "NullReward",
    "PaperAlignmentReward",
    "PaperBaseReward",
    "PaperCountReward",
    "PaperExtraBoxesReward",
    "PaperFirstFrameReward",
    "PaperSegmentsReward",
    "SaliencyReward",
]
