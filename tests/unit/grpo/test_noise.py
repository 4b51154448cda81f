"""The noise is deterministic, so every statistic below is one fixed number: no test can fail by bad luck later."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from grpo.noise import _STEP, _mix, gumbel_noise, noise_key, uniform_noise


def keys(count: int, **changes: object) -> torch.Tensor:
    name = {"seed": 0, "rollout_step": 0, "sample_id": "clip"} | changes
    return torch.tensor([noise_key(**name, index=index) for index in range(count)])


def at(position: int, rows: int) -> torch.Tensor:
    return torch.full((rows,), position)


def test_finaliser_is_that_of_splitmix64():
    """The generator started at 0 must give 0xE220A8397B1DCDAF first, the published first output for that seed."""
    assert int(_mix(torch.tensor([_STEP]))) % 2**64 == 0xE220A8397B1DCDAF


def test_key_is_the_same_in_every_process():
    """Frozen: another value would change what every seed of every run samples."""
    assert noise_key(seed=7, rollout_step=3, sample_id="refavs/train/12:abc", index=5) == -6136646365442733929


def test_noise_is_the_same_in_every_version():
    """Frozen for the same reason."""
    found = uniform_noise(torch.tensor([-6136646365442733929]), torch.tensor([9]), 3)
    expected = torch.tensor([[0.6341452819422252, 0.2920180933979023, 0.8921998635378435]], dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize("change", [{"seed": 1}, {"rollout_step": 1}, {"sample_id": "b"}, {"index": 1}])
def test_every_part_of_the_name_changes_the_key(change):
    name = {"seed": 0, "rollout_step": 0, "sample_id": "a", "index": 0}
    assert noise_key(**name) != noise_key(**name | change)


def test_parts_of_the_name_cannot_be_confused():
    """Seed 1 with step 11 and seed 11 with step 1 would be one key if the numbers were glued together."""
    first = noise_key(seed=1, rollout_step=11, sample_id="x", index=0)
    assert first != noise_key(seed=11, rollout_step=1, sample_id="x", index=0)


@given(order=st.permutations(range(6)), width=st.integers(1, 40))
def test_noise_does_not_depend_on_the_batch(order, width):
    """Rows computed together, alone, in any order and at different positions are equal to the last bit."""
    names, positions = keys(6), torch.arange(6) * 3
    together = gumbel_noise(names, positions, width)
    shuffled = gumbel_noise(names[list(order)], positions[list(order)], width)
    alone = torch.cat([gumbel_noise(names[row : row + 1], positions[row : row + 1], width) for row in range(6)])
    assert torch.equal(together[list(order)], shuffled)
    assert torch.equal(together, alone)


def test_noise_does_not_depend_on_the_vocabulary_size():
    names = keys(3)
    assert torch.equal(gumbel_noise(names, at(2, 3), 1000)[:, :17], gumbel_noise(names, at(2, 3), 17))


@pytest.mark.parametrize("axis", ["vocabulary", "rows", "positions"])
def test_uniform_along_every_axis(axis):
    """60,000 numbers along one axis, in 100 bins: the chi-square p-value is neither tiny nor suspiciously perfect."""
    count = 60_000
    sample = {
        "vocabulary": lambda: uniform_noise(keys(1), at(0, 1), count)[0],
        "rows": lambda: uniform_noise(keys(count), at(0, count), 1)[:, 0],
        "positions": lambda: uniform_noise(keys(1).expand(count), torch.arange(count), 1)[:, 0],
    }[axis]()
    observed = np.histogram(sample, bins=100, range=(0, 1))[0]
    assert 0.001 < stats.chisquare(observed).pvalue < 0.999


def test_neighbours_are_independent():
    """Pairs of numbers that differ by one step of one axis fill a 10 x 10 grid evenly (chi-square, 90,000 pairs)."""
    names = torch.stack([keys(30, rollout_step=step) for step in (0, 1)])
    grid = torch.stack(
        [torch.stack([uniform_noise(rows, at(position, 30), 3000) for position in (0, 1)]) for rows in names]
    )  # (step, position, row, vocabulary)
    base = grid[0, 0, :-1, :-1]
    pairs = {
        "step": grid[1, 0, :-1, :-1],
        "position": grid[0, 1, :-1, :-1],
        "row": grid[0, 0, 1:, :-1],
        "vocabulary": grid[0, 0, :-1, 1:],
    }
    for axis, other in pairs.items():
        observed = np.histogram2d(base.flatten(), other.flatten(), bins=10, range=[[0, 1], [0, 1]])[0]
        assert 0.001 < stats.chisquare(observed.flatten()).pvalue < 0.999, axis
        assert abs(np.corrcoef(base.flatten(), other.flatten())[0, 1]) < 0.012, axis  # 3.5 standard errors


def test_one_changed_bit_of_the_key_changes_half_of_the_noise():
    """Avalanche: over all 64 bits, flipping one moves the number across 0.5 in half of the cases (20,000 each)."""
    names = keys(1)
    before = uniform_noise(names, at(0, 1), 20_000) > 0.5
    for bit in range(64):
        flip = 2**bit if bit < 63 else -(2**63)
        after = uniform_noise(names ^ flip, at(0, 1), 20_000) > 0.5
        assert 0.48 < (before != after).double().mean() < 0.52, bit


def test_gumbel_noise_has_the_gumbel_distribution():
    sample = gumbel_noise(keys(40), at(5, 40), 2000).flatten().double().numpy()
    assert stats.kstest(sample, "gumbel_r").pvalue > 0.001
    assert np.isfinite(sample).all()
    assert sample.mean() == pytest.approx(0.5772, abs=0.02)  # Euler's constant
    assert sample.std() == pytest.approx(np.pi / np.sqrt(6), abs=0.02)


def test_gumbel_max_draws_follow_the_softmax():
    """40,000 argmax draws over 12 logits, one of them rare (probability 0.0005): chi-square against softmax."""
    logits = torch.linspace(-4.0, 2.0, 12)
    draws = (logits + gumbel_noise(keys(40_000), at(0, 40_000), 12)).argmax(dim=-1)
    observed = np.bincount(draws, minlength=12)
    assert 0.001 < stats.chisquare(observed, torch.softmax(logits.double(), 0) * 40_000).pvalue < 0.999
