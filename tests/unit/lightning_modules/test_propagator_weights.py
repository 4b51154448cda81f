"""The shipped propagator on a few held-out clips; thresholds leave room for the few clips."""

from pathlib import Path

import numpy as np
import pytest

from datamodules.avshapes_video import HeldOutCases
from lightning_modules.propagator_gates import gates, score_case
from models.propagator import SAM2Propagator

FOLDER = Path(__file__).parents[3] / "weights" / "tiny" / "propagator"


def shipped(**settings) -> SAM2Propagator:
    propagator = SAM2Propagator(str(FOLDER), **settings)
    propagator.load()
    return propagator


@pytest.fixture(scope="module")
def propagator() -> SAM2Propagator:
    return shipped()


def test_the_file_is_small():
    assert (FOLDER / "model.safetensors").stat().st_size < 10_000_000


def test_held_out_things_are_followed(propagator):
    cases = HeldOutCases(77, count=12, size=224, jitter=0.05)
    found = gates([score_case(propagator, cases[index]) for index in range(12)])
    assert found.keyframe_iou > 0.8
    assert found.j > 0.6
    assert found.false_masks < 0.5


def test_rough_boxes_are_good_enough(propagator):
    """Boxes with an IoU of about 0.75, as a detector gives them."""
    cases = HeldOutCases(78, count=8, size=224, jitter=0.15)
    assert gates([score_case(propagator, cases[index]) for index in range(8)]).keyframe_iou > 0.75


def test_the_stock_path_gives_the_same_masks(propagator):
    case = HeldOutCases(79, count=1, size=224, jitter=0.05)[0]
    one = propagator.propagate(case.clip, [case.grounding])[0].union()
    other = shipped(batched=False).propagate(case.clip, [case.grounding])[0].union()
    union = (one | other).sum(axis=(1, 2))
    assert (np.where(union > 0, (one & other).sum(axis=(1, 2)) / np.maximum(union, 1), 1) > 0.98).all()
