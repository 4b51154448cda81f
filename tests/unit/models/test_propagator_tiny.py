import math

import numpy as np
import pytest
import torch

from models.sam2_prompts import Prompt
from models.sam2_tracking import track_objects
from models.tiny.propagator import Window, WindowOutputs, build_tiny_propagator, track_window
from models.tiny.propagator_loss import window_loss

SIDE, FRAMES = 128, 5


@pytest.fixture(scope="module")
def model():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build_tiny_propagator()


@pytest.fixture(scope="module")
def frames() -> torch.Tensor:
    return torch.randn(2, FRAMES, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


def window(frames: torch.Tensor, prompted: tuple[int, ...]) -> Window:
    """One row in the first clip, two in the second; boxes differ per row and prompt."""
    boxes = torch.tensor([[[10.0, 10, 50, 60]], [[30, 40, 90, 100]], [[5, 70, 60, 120]]]).expand(3, len(prompted), 4)
    shift = torch.arange(len(prompted))[None, :, None] * 4.0
    return Window(frames, torch.tensor([0, 1, 1]), boxes + shift, prompted, clip_frames=FRAMES)


@pytest.mark.parametrize("prompted", [(0,), (2,), (4,), (1, 3)])
def test_training_sees_what_the_predictor_computes(model, frames, prompted):
    """Same masks as the propagator's path, up to memories that it rounds to bfloat16."""
    shown = window(frames, prompted)
    with torch.no_grad():
        outputs = track_window(model, shown)
        for row, clip in enumerate(shown.clip.tolist()):
            prompts = tuple(
                Prompt(frame, tuple(shown.boxes[row, place].tolist())) for place, frame in enumerate(prompted)
            )
            for found in track_objects(model, model.encode(frames[clip]), [prompts], size=(SIDE, SIDE)):
                for (_, frame), logits in zip(found.places, found.logits, strict=True):
                    assert outputs.scores[row, frame] > 0
                    torch.testing.assert_close(outputs.logits[row, frame], logits[0], rtol=0, atol=5e-3)


def test_gradients_reach_every_part_that_propagation_uses(model, frames):
    outputs = track_window(model, window(frames, (1,)))
    masks = torch.zeros(3, FRAMES, SIDE, SIDE, dtype=torch.bool)
    masks[:, :4, 20:60, 20:60] = True
    loss = window_loss(outputs, masks, absent_weight=2.0)
    model.zero_grad()
    (loss.mask + loss.object).backward()
    parts = ("image_encoder", "memory_attention", "memory_encoder", "sam_mask_decoder", "obj_ptr_proj")
    for part in parts:
        assert any(weight.grad is not None and weight.grad.any() for weight in getattr(model, part).parameters()), part


def test_first_weights_say_that_the_object_is_there(model, frames):
    assert (track_window(model, window(frames, (0,))).scores > 0).all()


def outputs(logits: torch.Tensor, scores: list[float], ious: float = 1.0) -> WindowOutputs:
    return WindowOutputs(logits, torch.full(logits.shape[:2], ious), torch.tensor([scores]))


def test_a_perfect_window_costs_nothing():
    """Certain and right masks on two frames, nothing on the third: every loss vanishes, IoU is 1."""
    masks = torch.zeros(1, 3, 8, 8, dtype=torch.bool)
    masks[:, :2, 2:6, 2:6] = True
    loss = window_loss(outputs(torch.where(masks, 60.0, -60.0), [40.0, 40.0, -40.0]), masks, absent_weight=3.0)
    assert loss.mask == pytest.approx(0, abs=1e-3)
    assert loss.object == pytest.approx(0, abs=1e-6)
    assert (loss.iou, loss.object_errors) == (1, 0)


def test_an_undecided_window_has_known_losses():
    """Logits 0 everywhere, half of 64 pixels True: cross-entropy ln 2; dice 1 - (2 * 16 + 1) / (32 + 32 + 1);
    nothing is painted, so the IoU is 0 and a predicted IoU of 1 is wrong by 1. Object scores 0 cost ln 2 each."""
    masks = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    masks[..., :4] = True
    loss = window_loss(outputs(torch.zeros(1, 1, 8, 8), [0.0]), masks, absent_weight=3.0)
    assert loss.mask == pytest.approx(4 * math.log(2) + (1 - 33 / 65) + 1, rel=1e-5)
    assert loss.object == pytest.approx(math.log(2))
    assert (loss.iou, loss.object_errors) == (0, 1)


def test_absent_frames_weigh_more_and_have_no_mask_loss():
    """One frame with and one without the thing, both said to be visible with odds e: the first costs
    ln(1 + 1/e) = 0.3133 with weight 1, the second ln(1 + e) = 1.3133 with weight 3."""
    masks = torch.zeros(1, 2, 8, 8, dtype=torch.bool)
    masks[:, 0] = True
    logits = torch.full((1, 2, 8, 8), 60.0)
    loss = window_loss(outputs(logits, [1.0, 1.0]), masks, absent_weight=3.0)
    assert loss.object == pytest.approx((0.31326 + 3 * 1.31326) / 4, rel=1e-4)
    assert loss.mask == pytest.approx(0, abs=1e-3)
    assert loss.object_errors == 0.5


def test_a_window_without_anything_visible_has_no_mask_loss():
    masks = torch.zeros(1, 2, 8, 8, dtype=torch.bool)
    loss = window_loss(outputs(torch.zeros(1, 2, 8, 8), [-1.0, -1.0]), masks, absent_weight=3.0)
    assert (loss.mask, loss.iou) == (0, 0)
    assert np.isfinite(float(loss.object))
