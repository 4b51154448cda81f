import pytest
import torch
from doubles import PLAN

from datamodules.records import Rollout
from lightning_modules.step_table import StepTable
from models.plan import parse_plan

ABSENT = '<think></think><answer>{"absent": true}</answer>'


@pytest.fixture
def table(make_clip):
    """Two prompts of 10 and 20 tokens, two completions each: a plan, nonsense that was cut off, and absent twice."""
    clip = make_clip()

    def rollout(index: int, text: str, tokens: int, is_truncated: bool = False) -> Rollout:
        plan = parse_plan(text, fps=1.0, frames=4)
        return Rollout(clip, index, text, torch.zeros(tokens).long(), torch.zeros(tokens), is_truncated, plan)

    groups = [
        [rollout(0, PLAN, 3), rollout(1, "nonsense", 8, is_truncated=True)],
        [rollout(0, ABSENT, 2), rollout(1, ABSENT, 3)],
    ]
    return StepTable.of(groups, [[1.0, 3.0], [0.5, 0.5]], [10, 20])


def test_metrics_by_hand(table):
    """Deviation of 1 and 3 is sqrt 2, of equal rewards 0: mean 0.7071."""
    assert table.metrics() == pytest.approx({
        "reward": 1.25,
        "reward_std": 0.70710678,
        "frac_reward_zero_std": 0.5,
        "completions/mean_length": 4.0,
        "completions/min_length": 2.0,
        "completions/max_length": 8.0,
        "completions/clipped_ratio": 0.25,
        "completions/parse_failures": 0.25,
        "completions/absent": 0.5,
    })  # fmt: skip


def test_packing_keeps_every_column(table):
    packed = table.pack()
    assert packed.shape == (2, 6, 2)
    again = StepTable.unpack(packed)
    assert again.metrics() == table.metrics()
    assert torch.equal(again.prompt_tokens, table.prompt_tokens)


def test_token_counts(table):
    """Completions 3 + 8 + 2 + 3, prompts 2 x 10 + 2 x 20; the truncated one has 8 of its prompt's 11."""
    assert table.tokens() == 16 + 60
    assert table.trained_tokens(mask_truncated=False).tolist() == [11, 5]
    assert table.trained_tokens(mask_truncated=True).tolist() == [3, 5]
