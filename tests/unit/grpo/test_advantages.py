import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from datamodules.errors import ConfigError
from grpo.advantages import group_advantages, has_no_spread


def test_group_scale_by_hand():
    """Rewards 1, 2, 3, 6: mean 3, squared deviations 4, 1, 0, 9, so s = sqrt(14 / 3)."""
    scale = math.sqrt(14 / 3) + 1e-4
    expected = torch.tensor([[-2.0, -1.0, 0.0, 3.0]]) / scale
    torch.testing.assert_close(group_advantages(torch.tensor([[1.0, 2.0, 3.0, 6.0]])), expected)


def test_no_scale_by_hand():
    rewards = torch.tensor([[1.0, 3.0], [0.0, 10.0]])
    expected = torch.tensor([[-1.0, 1.0], [-5.0, 5.0]])
    torch.testing.assert_close(group_advantages(rewards, scale_rewards="none"), expected)


def test_batch_scale_by_hand():
    """All rewards 1, 3, 0, 4: mean 2, squared deviations 1, 1, 4, 4, so s = sqrt(10 / 3) for both groups."""
    rewards = torch.tensor([[1.0, 3.0], [0.0, 4.0]])
    expected = torch.tensor([[-1.0, 1.0], [-2.0, 2.0]]) / (math.sqrt(10 / 3) + 1e-4)
    torch.testing.assert_close(group_advantages(rewards, scale_rewards="batch"), expected)


@pytest.mark.parametrize("scale_rewards", ["group", "batch", "none"])
def test_equal_rewards_give_exactly_zero(scale_rewards):
    """Three times 0.1 is where a float32 mean differs from its terms; dividing that by 1e-4 would be noise."""
    rewards = torch.tensor([[0.1, 0.1, 0.1], [0.0, 1.0, 2.0]])
    assert group_advantages(rewards, scale_rewards=scale_rewards)[0].tolist() == [0.0, 0.0, 0.0]


def test_one_completion_cannot_be_compared():
    with pytest.raises(ConfigError, match=r"model\.grpo\.group_size is 1.*Set --model\.grpo\.group_size 8"):
        group_advantages(torch.tensor([[1.0], [2.0]]))


groups = st.integers(2, 8).flatmap(
    lambda size: st.lists(st.lists(st.floats(-10, 10, width=32), min_size=size, max_size=size), min_size=1, max_size=4)
)


@given(groups, st.sampled_from(["group", "batch", "none"]))
def test_rows_sum_to_zero_and_keep_the_order(rewards, scale_rewards):
    rewards = torch.tensor(rewards, dtype=torch.float64)
    advantages = group_advantages(rewards, scale_rewards=scale_rewards)
    assert advantages.isfinite().all()
    assert advantages.sum(dim=1).abs().max() < 1e-8
    spread = ~has_no_spread(rewards)
    best = advantages.gather(1, rewards.argmax(dim=1, keepdim=True))[:, 0]
    torch.testing.assert_close(best[spread], advantages.amax(dim=1)[spread])


@given(groups, st.floats(-5, 5))
def test_a_constant_added_to_a_group_changes_nothing(rewards, constant):
    rewards = torch.tensor(rewards, dtype=torch.float64)
    spread = ~has_no_spread(rewards) & ~has_no_spread(rewards + constant)
    shifted = group_advantages(rewards + constant)[spread]
    torch.testing.assert_close(shifted, group_advantages(rewards)[spread], rtol=1e-4, atol=1e-4)


def test_spread():
    rewards = torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.0, 1.1], [0.3, 0.1 + 0.2, 0.3]], dtype=torch.float64)
    assert has_no_spread(rewards).tolist() == [True, False, True]
