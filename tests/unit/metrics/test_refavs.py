from inspect import unwrap

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from metrics.refavs import hard_logits, refavs_f, refavs_j, refavs_s, resize_target


def naive_j(probability, target):
    scores = []
    for p, g in zip(probability, target, strict=True):
        foreground = p > 0.4
        if g.sum() == 0:
            scores.append((~foreground).sum() / (g.size + 1e-7))
        else:
            scores.append((foreground & (g > 0)).sum() / ((foreground | (g > 0)).sum() + 1e-7))
    return np.mean(scores)


def naive_f(probability, target):
    """Threshold by threshold, frame by frame."""
    curves = []
    for p, g in zip(probability, target, strict=True):
        if g.sum() == 0:
            continue
        curve = []
        for step in range(255):
            foreground = p >= np.float32(step / 254)
            hits = (foreground & (g > 0)).sum()
            precision, recall = hits / (foreground.sum() + 1e-20), hits / (g.sum() + 1e-20)
            curve.append(1.3 * precision * recall / (0.3 * precision + recall) if hits else 0.0)
        curves.append(curve)
    return np.mean(curves, axis=0).max() if curves else 0.0


def frames(*masks):
    return torch.tensor(np.array(masks, np.float32))[:, None]


HALF = np.repeat([[1, 1, 0, 0]], 4, axis=0)
NONE = np.zeros((4, 4))
ALL = np.ones((4, 4))


def test_j_by_hand():
    """Left half against the left half, the upper half, nothing: 8/8, 4/12, 0."""
    pred = hard_logits(frames(HALF, HALF.T, NONE))
    assert refavs_j(pred, frames(HALF, HALF, HALF)) == pytest.approx((1 + 1 / 3) / 3, abs=1e-7)


def test_j_of_an_empty_truth_is_the_share_of_background():
    assert refavs_j(hard_logits(frames(NONE, HALF, ALL)), frames(NONE, NONE, NONE)) == pytest.approx(0.5, abs=1e-7)


def test_j_threshold_is_0_4_strictly():
    """The sigmoid of -0.4 is 0.4013, of -0.41 0.3989."""
    assert refavs_j(torch.full((1, 1, 4, 4), -0.40), frames(ALL)) == pytest.approx(1)
    assert refavs_j(torch.full((1, 1, 4, 4), -0.41), frames(ALL)) == 0


def test_zeros_and_ones_as_logits_are_the_known_trap():
    """Sigmoid(0) = 0.5 > 0.4: every pixel counts as foreground, so the half scores 8/16 instead of 1."""
    assert refavs_j(frames(HALF), frames(HALF)) == pytest.approx(0.5)
    assert refavs_s(frames(HALF)) == pytest.approx(np.sqrt(0.5))


def test_f_of_hard_masks_by_hand():
    """Truth: left half, 8 of 16 pixels. Everything as foreground gives P = 1/2, R = 1: 1.3 * 0.5 / (0.15 + 1).

    The perfect mask beats that with 1; the upper half gives P = R = 1/2, F = 1/2, and the empty mask 0, so for both
    the first threshold, which takes everything, is the best.
    """
    everything = 1.3 * 0.5 / (0.3 * 0.5 + 1)
    assert refavs_f(hard_logits(frames(HALF)), frames(HALF)) == pytest.approx(1)
    assert refavs_f(hard_logits(frames(HALF.T)), frames(HALF)) == pytest.approx(everything)
    assert refavs_f(hard_logits(frames(NONE)), frames(HALF)) == pytest.approx(everything)


def test_f_takes_the_best_threshold_of_the_mean_curve_and_skips_empty_truths():
    """Frames: perfect, and empty prediction. Curve mean at high thresholds (1 + 0) / 2, at the first e: e is larger."""
    everything = 1.3 * 0.5 / (0.3 * 0.5 + 1)
    pred = hard_logits(frames(HALF, NONE, ALL))
    assert refavs_f(pred, frames(HALF, HALF, NONE)) == pytest.approx(max(0.5, everything))
    assert refavs_f(pred[:1], frames(NONE)) == 0


def test_f_reaches_a_threshold_by_equality():
    """At the first threshold, 0, even a sigmoid of exactly 0 counts; at the last, 1, only a saturated one.

    Right pixels at 1.0 and the others at sigmoid(8) = 0.9997, above the last but one threshold 253/254: only the last
    tells them apart.
    """
    everything = 1.3 * 0.5 / (0.3 * 0.5 + 1)
    assert refavs_f(frames(NONE) - 200, frames(HALF)) == pytest.approx(everything)
    assert refavs_f(torch.where(frames(HALF) > 0, 40.0, 8.0), frames(HALF)) == pytest.approx(1)


def test_what_is_not_a_number_is_marked_at_no_threshold():
    """As in the definition, where a comparison with it is false: a diverged model has no F."""
    target = torch.zeros(1, 1, 4, 4)
    target[..., :2] = 1
    assert refavs_f(torch.full_like(target, torch.nan), target) == 0.0


def test_s_by_hand():
    """8 of 32 pixels over both frames together: sqrt(1/4); per frame the mean would be sqrt(1/2) / 2 = 0.35."""
    assert refavs_s(hard_logits(frames(HALF, NONE))) == pytest.approx(0.5)
    assert refavs_s(hard_logits(frames(NONE))) == 0
    assert refavs_s(hard_logits(frames(ALL))) == 1
    assert refavs_s(torch.zeros(1, 1, 4, 4)) == 0


@pytest.mark.parametrize("size", [(1, 1), (37, 53), (256, 256)])
def test_equal_the_definitions_on_soft_logits(size):
    generator = torch.Generator().manual_seed(size[0])
    logits = torch.randn(5, 1, *size, generator=generator) * 4
    target = (torch.rand(5, 1, *size, generator=generator) < 0.3).float()
    target[2] = 0
    probability, truth = torch.sigmoid(logits)[:, 0].numpy(), target[:, 0].numpy()
    assert refavs_j(logits, target) == pytest.approx(naive_j(probability, truth), abs=5e-6)
    assert refavs_f(logits, target) == pytest.approx(naive_f(probability, truth), abs=5e-6)
    assert refavs_s(logits) == pytest.approx(np.sqrt((probability > 0.5).mean()), abs=5e-6)


some_masks = hnp.arrays(np.float32, st.just((2, 4, 5)), elements=st.sampled_from([0, 1]))


@settings(deadline=None, max_examples=50)
@given(some_masks, some_masks)
def test_hard_masks_equal_the_definitions_and_stay_in_range(pred, target):
    logits, truth = hard_logits(frames(*pred)), frames(*target)
    j, f, s = refavs_j(logits, truth), refavs_f(logits, truth), refavs_s(logits)
    assert j == pytest.approx(naive_j(pred, target), abs=5e-6)
    assert f == pytest.approx(naive_f(pred, target), abs=5e-6)
    assert all(0 <= score <= 1 for score in (j, f, s))
    assert refavs_j(truth * 40 - 20, truth) == pytest.approx(1, abs=1e-6)


def test_low_precision_logits_are_scored_in_single_precision():
    logits = hard_logits(frames(HALF)).to(torch.bfloat16)
    assert refavs_f(logits, frames(HALF)) == pytest.approx(1)


@pytest.mark.parametrize("score", [refavs_j, refavs_f])
def test_other_shapes_are_an_error(score):
    with pytest.raises(ValueError, match=r"found logits \(1, 1, 4, 4\) and target \(1, 1, 4, 5\)"):
        unwrap(score)(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 5))
    with pytest.raises(ValueError, match=r"at least one frame, found logits \(0, 1, 4, 4\)"):
        unwrap(score)(torch.zeros(0, 1, 4, 4), torch.zeros(0, 1, 4, 4))


def test_s_of_another_shape_is_an_error():
    with pytest.raises(
        ValueError, match=r"\(frames, 1, height, width\) with at least one frame, found logits \(4, 4\)"
    ):
        unwrap(refavs_s)(torch.zeros(4, 4))


def test_resizing_dilates_when_shrinking():
    """512 to 256 samples the middle of each 2x2 block: one of its four pixels makes 255 / 4, so the block is kept."""
    mask = np.zeros((1, 512, 512), bool)
    mask[0, 100, 201] = True
    assert torch.argwhere(resize_target(mask)[0, 0]).tolist() == [[50, 100]]


def test_resizing_can_lose_a_pixel():
    """1280 to 256: pixel i of the result reads pixels 5i + 2 alone, so pixel 100 is never read and 102 is."""
    mask = torch.zeros(1, 1280, 1280, dtype=torch.uint8)
    mask[0, 100, 102] = 255
    assert resize_target(mask).sum() == 0
    mask[0, 102, 102] = 1
    assert torch.argwhere(resize_target(mask)[0, 0]).tolist() == [[20, 20]]


def test_resizing_keeps_masks_of_the_right_size():
    mask = np.random.default_rng(0).random((2, 256, 256)) < 0.5
    resized = resize_target(mask)
    assert resized.shape == (2, 1, 256, 256)
    assert (resized[:, 0].numpy() == mask).all()
