"""Every score against a second implementation that shares nothing with the first."""

import numpy as np
import pytest
import second_opinion as other
import torch

from metrics.boundary import boundary_f
from metrics.refavs import hard_logits, refavs_f, refavs_j, refavs_s, resize_target
from metrics.region import region_j
from metrics.revos import revos_a, revos_r

EXACT, SINGLE = 1e-9, 5e-6
SIZES = [(1, 1), (1, 40), (37, 53), (96, 64), (256, 256), (480, 854)]


def blobs(rng, frames, height, width):
    """Ellipses with ragged rims, some of them across the border."""
    y, x = np.mgrid[:height, :width]
    out = []
    for _ in range(frames):
        center, axes = rng.uniform(0, 1, 2) * (height, width), rng.uniform(0.05, 0.5, 2) * (height, width)
        distance = ((y - center[0]) / axes[0]) ** 2 + ((x - center[1]) / axes[1]) ** 2
        out.append(distance + rng.uniform(-0.1, 0.1, (height, width)) < 1)
    return np.array(out)


def edge_cases(height, width):
    """Nothing, everything, one pixel at each corner and in the middle, a border row, all but one pixel."""
    cases = np.zeros((9, height, width), bool)
    cases[1] = True
    for index, (y, x) in enumerate([(0, 0), (0, -1), (-1, 0), (-1, -1), (height // 2, width // 2)], 2):
        cases[index, y, x] = True
    cases[7, -1] = True
    cases[8] = True
    cases[8, height // 2, width // 2] = False
    return cases


def pairs(size):
    """Predicted and true masks: pairs of edge cases, blobs against others and against their shifted selves, noise."""
    rng = np.random.default_rng(size)
    special = edge_cases(*size)
    few = 2 if size == (480, 854) else 6
    some = blobs(rng, few, *size)
    chosen = range(len(special)) if size != (480, 854) else (0, 1, 6)
    left = [special[i] for i in chosen for _ in chosen] + [*some, *some, *(rng.random((2, *size)) < 0.01)]
    right = [special[i] for _ in chosen for i in chosen] + [*np.roll(some, 2, axis=2), *some[::-1]]
    right += [*(rng.random((2, *size)) < 0.01)]
    return np.array(left), np.array(right)


@pytest.mark.parametrize("size", SIZES)
def test_region_and_boundary(size):
    pred, target = pairs(size)
    np.testing.assert_allclose(region_j(pred, target), other.region_j(pred, target), rtol=0, atol=EXACT)
    np.testing.assert_allclose(boundary_f(pred, target), other.boundary_f(pred, target), rtol=0, atol=EXACT)


@pytest.mark.parametrize("scale", [1, 255])
@pytest.mark.parametrize("size", SIZES)
def test_robustness_and_accuracy(size, scale):
    """Against single masks and against sums of up to three, whose bytes wrap."""
    pred, target = pairs(size)
    instances = target.astype(np.uint8) + np.roll(target, 1, axis=0) + np.roll(target, 2, axis=0)
    annotated = target | pred[::-1]
    for truth in (target, instances):
        found = revos_r(pred, truth, annotated, scale=scale)
        np.testing.assert_allclose(found, other.revos_r(pred, truth, annotated, scale), rtol=0, atol=EXACT)
        np.testing.assert_allclose(
            revos_a(pred, truth, scale=scale), other.revos_a(pred, truth, scale), rtol=0, atol=EXACT
        )


@pytest.mark.parametrize("size", [(1, 1), (37, 53), (256, 256), (480, 854)])
@pytest.mark.parametrize("is_hard", [True, False])
def test_refavs(size, is_hard):
    rng = np.random.default_rng([*size, is_hard])
    special = edge_cases(*size)[[0, 1, 6] if size == (480, 854) else slice(None)]
    target = np.concatenate([special, special[:1], blobs(rng, 2, *size)])[:, None].astype(np.float32)
    masks = np.concatenate([special[::-1], special[:1], blobs(rng, 2, *size)])[:, None]
    logits = np.where(masks, 20, -20).astype(np.float32)
    if not is_hard:
        logits = (rng.standard_normal(masks.shape) * 3 + 2 * masks).astype(np.float32)
    one, truth = torch.from_numpy(logits), torch.from_numpy(target)
    for part in (slice(None), slice(0, 1), slice(1, 5)):
        assert refavs_j(one[part], truth[part]) == pytest.approx(other.refavs_j(logits[part], target[part]), abs=SINGLE)
        assert refavs_f(one[part], truth[part]) == pytest.approx(other.refavs_f(logits[part], target[part]), abs=SINGLE)
        assert refavs_s(one[part]) == pytest.approx(other.refavs_s(logits[part]), abs=SINGLE)


def test_hard_logits_are_what_the_sigmoid_saturates():
    mask = edge_cases(37, 53)
    expected = np.where(mask, 1.0, 0.0)
    assert np.abs(other.sigmoid(hard_logits(torch.from_numpy(mask)).numpy()) - expected).max() < 1e-8


@pytest.mark.parametrize("size", [(1, 1), (37, 53), (96, 64), (256, 256), (480, 854), (720, 1280)])
def test_resizing(size):
    """Equal but for pixels whose exact value lies on the threshold, where single precision may round either way."""
    rng = np.random.default_rng(size)
    masks = np.concatenate([edge_cases(*size)[:7:3], blobs(rng, 2, *size)])
    found = resize_target(masks)[:, 0].numpy() > 0
    for mask, ours in zip(masks, found, strict=True):
        exact = other.resized(mask)
        clear = np.abs(exact - 0.5) > 1e-3
        assert np.array_equal(ours[clear], (exact >= 0.5)[clear])
        assert clear.mean() > 0.99
