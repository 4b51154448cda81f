import pickle

import numpy as np
import pytest
import torch

from datamodules.masks import MaskTrack
from metrics.clips import rules_for, score_clip
from metrics.scores import SegmentationScores

SIZE = (20, 20)


def square(column=2, frames=2):
    """An 8x8 square from row 4 and the given column on."""
    masks = np.zeros((frames, 1, *SIZE), bool)
    masks[:, :, 4:12, column : column + 8] = True
    return MaskTrack.from_dense(masks)


def nothing(frames=2):
    return MaskTrack.empty(frames, SIZE)


def add(metric, kind, pred, target=None, *, is_null=False, plan_absent=False, clip_id=""):
    metric.update(kind, pred, target, is_null=is_null, plan_absent=plan_absent, clip_id=clip_id)


def values(metric):
    return {key: pytest.approx(float(value), abs=1e-6) for key, value in metric.compute().items()}


def test_davis_means_per_kind_and_over_clips():
    """Referring: perfect, and an answer of nothing: J 1 and 0, F 1 and 0. Reasoning: shifted by 4 of 8 columns.

    The shifted square shares 32 of 96 pixels: J = 1/3. Overall J is the mean over the three clips.
    """
    metric = SegmentationScores(["referring", "reasoning"])
    shifted = score_clip("x", square(6), square(2), rules="davis", is_null=False, plan_absent=False)
    add(metric, "referring", square(), square())
    add(metric, "referring", nothing(), square(), plan_absent=True)
    add(metric, "reasoning", square(6), square(2))
    assert shifted.j == pytest.approx(1 / 3)
    assert 0 < shifted.f < 1
    assert values(metric) == {
        "val/j": (1 + 0 + 1 / 3) / 3,
        "val/f": (1 + 0 + shifted.f) / 3,
        "val/jf": ((1 + 1 / 3) / 3 + (1 + shifted.f) / 3) / 2,
        "val/false_absent": 1 / 3,
        "val/referring/j": 0.5,
        "val/referring/f": 0.5,
        "val/referring/jf": 0.5,
        "val/referring/false_absent": 0.5,
        "val/reasoning/j": 1 / 3,
        "val/reasoning/f": shifted.f,
        "val/reasoning/jf": (1 / 3 + shifted.f) / 2,
        "val/reasoning/false_absent": 0,
    }


def test_refavs_uses_its_own_f():
    """An answer of nothing has J 0 and F of the all-foreground mask; the boundary F would be 0.

    At 256 pixels the square of 8/20 covers a share a of the frame: F = 1.3 a / (0.3 a + 1). Shrinking the rule's
    dilation to zero, a = 0.16; with it a little more.
    """
    scores = score_clip("seen", nothing(), square(), rules="refavs", is_null=False, plan_absent=False)
    assert scores.j == 0
    assert 1.3 * 0.16 / (0.3 * 0.16 + 1) < scores.f < 1.3 * 0.22 / (0.3 * 0.22 + 1)
    assert score_clip("seen", nothing(), square(), rules="davis", is_null=False, plan_absent=False).f == 0


def test_a_perfect_mask_of_any_size_stays_perfect_by_the_rules_of_refavs():
    scores = score_clip("seen", square(), square(), rules="refavs", is_null=False, plan_absent=False)
    assert scores.jf == pytest.approx(1, abs=1e-6)


def test_null_clips():
    """Right: absent, or no mask though a moment was named. Wrong: a full mask, S = 1 on one of three clips."""
    metric = SegmentationScores(["seen", "null"], rules="refavs")
    full = MaskTrack.from_dense(np.ones((2, 1, *SIZE), bool))
    add(metric, "null", nothing(), is_null=True, plan_absent=True)
    add(metric, "null", nothing(), nothing(), is_null=True)
    add(metric, "null", full, nothing(), is_null=True)
    expected = {"s": 1 / 3, "null_accuracy": 2 / 3}
    assert values(metric) == {f"val/{group}{key}": value for group in ("", "null/") for key, value in expected.items()}


def test_null_and_other_clips_do_not_mix():
    """A right absent answer to a null clip is no false one, and the clip with a target does not count for S."""
    metric = SegmentationScores(["seen", "null"], rules="refavs")
    add(metric, "null", nothing(), is_null=True, plan_absent=True)
    add(metric, "seen", square(), square())
    found = metric.compute()
    assert [found[f"val/{key}"] for key in ("false_absent", "s", "null_accuracy")] == [0, 0, 1]
    assert found["val/j"] == pytest.approx(1, abs=1e-6)


def test_an_absent_plan_is_right_on_a_null_clip_whatever_the_masks():
    scores = score_clip("null", square(), None, rules="davis", is_null=True, plan_absent=True)
    assert scores.is_null_right


def test_s_is_left_out_by_other_rules():
    metric = SegmentationScores(["non-existent"], prefix="test/")
    add(metric, "non-existent", square(), is_null=True)
    assert values(metric) == {"test/null_accuracy": 0, "test/non-existent/null_accuracy": 0}


def test_nothing_added_gives_no_keys():
    metric = SegmentationScores(["seen"])
    with pytest.warns(UserWarning, match="before the ``update`` method"):
        assert metric.compute() == {}


def spread_over(metrics):
    add(metrics[0], "seen", square(), square(), clip_id="a")
    add(metrics[0], "seen", square(6), square(), clip_id="b")
    add(metrics[1], "seen", nothing(), square(), clip_id="c", plan_absent=True)
    add(metrics[1], "null", square(), is_null=True, clip_id="d")


def test_two_processes_give_what_one_gives():
    """Each of two metrics gathers its own sums and the other's, as two processes would."""
    alone = SegmentationScores(["seen", "null"], rules="refavs")
    spread_over([alone, alone])
    pair = [SegmentationScores(["seen", "null"], rules="refavs") for _ in range(2)]
    spread_over(pair)
    every = [metric.sums.clone() for metric in pair]
    for metric in pair:
        metric.distributed_available_fn = lambda: True
        metric.dist_sync_fn = lambda state, group=None: every
        assert {key: float(value) for key, value in metric.compute().items()} == values(alone)


def test_per_clip_values_keep_order_and_reset_forgets_them():
    metric = SegmentationScores(["seen", "null"], rules="refavs")
    spread_over([metric, metric])
    clips = metric.per_clip()
    assert [scores.clip_id for scores in clips] == ["a", "b", "c", "d"]
    assert [scores.jf is None for scores in clips] == [False, False, False, True]
    assert clips[2].says_absent
    assert (clips[3].is_null_right, clips[3].is_null, clips[3].kind) == (False, True, "null")
    metric.reset()
    assert metric.per_clip() == []
    assert metric.sums.sum() == 0


def test_per_clip_values_of_all_processes_count_a_padded_clip_once(monkeypatch):
    """A sampler that pads the last batch gives both processes clip b."""
    metrics = [SegmentationScores(["seen"]) for _ in range(2)]
    for metric, names in zip(metrics, (("a", "b"), ("c", "b")), strict=True):
        for name in names:
            add(metric, "seen", square(), square(), clip_id=name)
    shares = [metric.per_clip() for metric in metrics]

    def gather(out, mine):
        out[:] = shares

    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_gather_object", gather)
    assert [scores.clip_id for scores in metrics[1].per_clip()] == ["a", "b", "c"]


def test_calling_the_metric_adds_like_update():
    metric = SegmentationScores(["seen"])
    for name in "ab":
        metric("seen", square(), square(), is_null=False, plan_absent=False, clip_id=name)
    assert len(metric.per_clip()) == 2
    assert metric.compute()["val/j"] == 1


def test_survives_pickling():
    metric = SegmentationScores(["seen"])
    add(metric, "seen", square(), square(), clip_id="a")
    copy = pickle.loads(pickle.dumps(metric))
    assert copy.compute()["val/j"] == 1
    assert copy.per_clip() == metric.per_clip()


def test_an_unknown_kind_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"clip 'x' has kind 'sean'; expected one of seen, null"):
        add(SegmentationScores(["seen", "null"]), "sean", square(), square(), clip_id="x")


@pytest.mark.parametrize(("target", "found"), [(None, "None"), (square(frames=3), r"\(3, 20, 20\)")])
def test_a_truth_that_does_not_fit_is_an_error(target, found):
    with pytest.raises(ValueError, match=rf"clip 'x': expected ground truth .* \(2, 20, 20\), found {found}"):
        add(SegmentationScores(["seen"]), "seen", square(), target, clip_id="x")


def test_rules_follow_the_task():
    assert [rules_for(task) for task in ("refavs", "revos", "mevis", "video")] == ["refavs", "davis", "davis", "davis"]
