import math

import pytest
import torch

from models.tiny.detector_loss import Assignment, assign_patches, detection_loss


def square_mask(left: int, top: int, right: int, bottom: int, side: int = 32) -> torch.Tensor:
    mask = torch.zeros(side, side, dtype=torch.bool)
    mask[top:bottom, left:right] = True
    return mask


def test_the_patches_nearest_to_the_center_answer():
    """A thing over the upper left 3 x 3 of 4 x 4 patches, 8 px each: center (12, 12) is the middle of patch 5."""
    found = assign_patches(square_mask(0, 0, 24, 24)[None], torch.tensor([[0, 0, 0.75, 0.75]]), grid=4, most=1)
    assert found.answers[0].nonzero().flatten().tolist() == [5]
    assert found.covers[0].nonzero().flatten().tolist() == [0, 1, 2, 4, 5, 6, 8, 9, 10]
    assert found.touches[0].nonzero().flatten().tolist() == [0, 1, 2, 4, 5, 6, 8, 9, 10]


def test_patches_covered_by_less_than_half_neither_answer_nor_learn_the_box():
    """11 px cover patch 0 whole, and 3 of 8 columns (rows) of its neighbors."""
    found = assign_patches(square_mask(0, 0, 11, 11)[None], torch.tensor([[0, 0, 11 / 32, 11 / 32]]), grid=4)
    assert found.answers[0].nonzero().flatten().tolist() == [0]
    assert torch.equal(found.covers, found.answers)
    assert found.touches[0].nonzero().flatten().tolist() == [0, 1, 4, 5]


def test_a_thing_smaller_than_half_a_patch_is_answered_for_by_the_patch_that_has_most_of_it():
    """6 x 2 px: 4 of its columns lie in patch 1, 2 in patch 0."""
    found = assign_patches(square_mask(6, 0, 12, 2)[None], torch.tensor([[6 / 32, 0, 12 / 32, 2 / 32]]), grid=4)
    assert found.answers[0].nonzero().flatten().tolist() == [1]


def loss_of(logits: torch.Tensor, boxes: torch.Tensor, *, counts: bool = True, right: bool = True):
    """One image of four patches, one description and one thing: patch 0 answers, it covers 0 and 1, it touches 2."""
    assignment = Assignment(
        answers=torch.tensor([[True, False, False, False]]),
        covers=torch.tensor([[True, True, False, False]]),
        touches=torch.tensor([[True, True, True, False]]),
    )
    return detection_loss(
        logits[None, :, None],
        boxes[None],
        assignment=assignment,
        boxes=torch.tensor([[0.1, 0.1, 0.5, 0.5]]),
        image_of=torch.tensor([0]),
        counts=torch.tensor([counts]),
        matches=torch.tensor([[right]]),
    )


EXACT = torch.tensor([[0.3, 0.3, 0.4, 0.4]] * 4)


def test_exact_boxes_cost_nothing():
    loss = loss_of(torch.zeros(4), EXACT)
    assert loss.boxes == pytest.approx(0, abs=1e-5)
    assert loss.distance == pytest.approx(0, abs=1e-6)


def test_the_corner_distance_is_the_mean_over_corners():
    """The box moved right by 0.1: two of four corner coordinates are off by 0.1."""
    moved = EXACT + torch.tensor([0.1, 0, 0, 0])
    assert loss_of(torch.zeros(4), moved).distance == pytest.approx(0.05, abs=1e-6)
    assert loss_of(torch.zeros(4), moved).boxes > 0.3


def test_boxes_of_covered_patches_count_and_no_others():
    """Patches 2 and 3 predict nonsense for free; patch 1, which does not answer, pays for its box."""
    wrong = EXACT.clone()
    wrong[2:] = 0.9
    assert loss_of(torch.zeros(4), wrong).boxes == pytest.approx(0, abs=1e-5)
    wrong[1] = 0.9
    assert loss_of(torch.zeros(4), wrong).boxes > 0.3


def test_naming_is_the_focal_loss_of_right_and_wrong_patches_only():
    """At logit 0 each patch costs 0.5^2 x ln 2; 1 and 2, which may answer or not, cost nothing: 2 of 4 count."""
    assert loss_of(torch.zeros(4), EXACT).naming == pytest.approx(2 * 0.25 * math.log(2), rel=1e-5)


def test_for_a_description_that_is_not_true_every_patch_is_wrong():
    assert loss_of(torch.zeros(4), EXACT, right=False).naming == pytest.approx(4 * 0.25 * math.log(2), rel=1e-5)


def test_things_that_do_not_count_are_neither_right_nor_wrong():
    """Patches 0 to 2 see the speck and are left out; 3 is a wrong answer; there is no box to learn."""
    loss = loss_of(torch.zeros(4), EXACT + 0.2, counts=False)
    assert loss.naming == pytest.approx(0.25 * math.log(2), rel=1e-5)
    assert loss.boxes == 0
    assert loss.distance == 0


def test_the_gradient_pulls_scores_the_right_way():
    logits = torch.zeros(4, requires_grad=True)
    loss_of(logits, EXACT).naming.backward()
    assert logits.grad[0] < 0
    assert (logits.grad[1:3] == 0).all()
    assert logits.grad[3] > 0
