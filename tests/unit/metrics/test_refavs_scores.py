import numpy as np
import pytest
import second_opinion as other
import torch

from datamodules.refavs import SPLITS as READER_SPLITS
from metrics.refavs import hard_logits, refavs_f, refavs_j, refavs_s
from metrics.refavs_scores import SPLITS, RefAVSScores, refavs_parts, worst_parts


def expressions(count, *, frames=3, size=(9, 11)):
    """Soft and hard logits with targets; every third expression has no target at all, every other frame 0 neither."""
    rng = np.random.default_rng(count)
    made = []
    for index in range(count):
        target = (rng.random((frames, 1, *size)) < 0.4).astype(np.float32)
        target[:: 1 if index % 3 == 2 else 2] = 0
        logits = (rng.standard_normal(target.shape) * 3 + 2 * target).astype(np.float32)
        made.append((np.where(logits > 0, 20, -20).astype(np.float32) if index % 2 else logits, target))
    return made


def measured(pair):
    return refavs_parts(torch.from_numpy(pair[0]), torch.from_numpy(pair[1]))


def scored(parts, split="test_s", positions=None):
    metric = RefAVSScores()
    for position, one in zip(positions or range(len(parts)), parts, strict=True):
        metric.update(one, split=split, position=position)
    return {key: float(value) for key, value in metric.compute().items()}


@pytest.mark.parametrize("count", [1, 4, 5, 11])
def test_equals_calls_of_four_in_order(count):
    """With eleven the last call is of three and weighs as much as the others."""
    made = expressions(count)
    j, f, s = other.refavs_split(made)
    parts = [measured(pair) for pair in made]
    assert scored(parts) == pytest.approx({"test_s/J": j, "test_s/F": f, "test_s/JF": (j + f) / 2}, abs=5e-6)
    assert scored(parts, "test_n") == pytest.approx({"test_n/S": s}, abs=5e-6)


def test_the_order_of_arrival_and_repetition_change_nothing():
    parts = [measured(pair) for pair in expressions(11)]
    order = np.random.default_rng(0).permutation(11).tolist()
    again = [*order, 3, 7]
    assert scored([parts[i] for i in again], positions=again) == scored(parts)


def test_rows_of_other_splits_may_lie_between():
    """The table mixes splits: what counts is the order within one, not the numbers."""
    parts = [measured(pair) for pair in expressions(6)]
    assert scored(parts, positions=[10, 20, 35, 36, 90, 91]) == scored(parts)


def test_f_and_s_depend_on_the_call_and_j_does_not():
    """Half of all pixels marked together: S = sqrt(1/2), while each alone has 0 or 1."""
    parts = [measured(pair) for pair in expressions(8)]
    together = scored(parts)
    assert together["test_s/J"] == pytest.approx(np.mean([one.j for one in parts]))
    assert abs(together["test_s/F"] - np.mean([one.f for one in parts])) > 1e-3
    empty, full = (measured((np.full((1, 1, 4, 4), value, np.float32),) * 2) for value in (-20, 20))
    assert scored([empty, full, full, empty], "test_n")["test_n/S"] == pytest.approx(0.5**0.5)


def test_parts_of_one_expression_are_a_call_of_its_own():
    for logits, target in expressions(6):
        one, truth = torch.from_numpy(logits), torch.from_numpy(target)
        parts = refavs_parts(one, truth)
        expected = refavs_j(one, truth), refavs_f(one, truth), refavs_s(one)
        assert (parts.j, parts.f, parts.s) == pytest.approx(expected, abs=1e-12)


def test_mix_is_the_mean_of_seen_and_unseen():
    metric = RefAVSScores()
    for position, pair in enumerate(expressions(6)):
        metric.update(measured(pair), split=("test_s", "test_u")[position % 2], position=position)
    values = metric.compute()
    for name in ("J", "F", "JF"):
        assert values[f"mix/{name}"] == (values[f"test_s/{name}"] + values[f"test_u/{name}"]) / 2


def test_an_unreadable_answer_has_the_worst_scores():
    """S would be best for an empty mask, so it must not stand in."""
    parts = worst_parts(10, 100)
    assert (parts.j, parts.f, parts.s) == (0, 0, 1)
    full = measured((np.full((1, 1, 4, 4), -20, np.float32), np.ones((1, 1, 4, 4), np.float32)))
    assert scored([parts, full])["test_s/F"] < full.f


def test_an_unknown_split_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"expected one of the groups train, .*test_n, found 'TODO'"):
        RefAVSScores().update(worst_parts(1, 1), split="TODO", position=0)


def test_a_group_may_be_named_once():
    with pytest.raises(ValueError, match="every group must be named once, found a, a"):
        RefAVSScores(splits=["a", "a"])


def test_splits_are_those_of_the_table():
    assert SPLITS == READER_SPLITS


def test_reset_forgets():
    metric = RefAVSScores()
    metric.update(worst_parts(1, 1), split="val", position=0)
    metric.reset()
    with pytest.warns(UserWarning, match="before the ``update`` method"):
        assert metric.compute() == {}


def test_a_perfect_hard_mask_is_perfect():
    mask = torch.zeros(2, 1, 8, 8)
    mask[:, :, 2:5, 2:5] = 1
    found = scored([refavs_parts(hard_logits(mask), mask)])
    assert found == pytest.approx({"test_s/J": 1, "test_s/F": 1, "test_s/JF": 1}, abs=1e-6)
