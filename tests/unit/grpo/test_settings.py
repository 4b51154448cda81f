import pytest

from datamodules.errors import ConfigError
from grpo.settings import GRPOSettings


def test_a_group_of_one_is_refused_with_the_flag():
    with pytest.raises(ConfigError, match=r"model\.grpo\.group_size is 1; expected at least 2.*--model\.grpo"):
        GRPOSettings(group_size=1)


def test_all_problems_are_named_at_once():
    with pytest.raises(ConfigError) as caught:
        GRPOSettings(
            updates_per_rollout=0,
            micro_batch_tokens=0,
            beta=-1.0,
            epsilon=1.0,
            epsilon_high=0.0,
            max_grad_norm=-1.0,
            rollout_rows=0,
            check_every=-1,
        )
    names = "updates_per_rollout micro_batch_tokens beta epsilon epsilon_high max_grad_norm rollout_rows check_every"
    for name in names.split():
        assert f"model.grpo.{name} is" in str(caught.value)


def test_epsilon_high_follows_epsilon_unless_set():
    assert GRPOSettings(epsilon=0.1).clip_high == 0.1
    assert GRPOSettings(epsilon=0.2, epsilon_high=0.28).clip_high == 0.28
