import numpy as np
import pytest

from datamodules.masks import MaskTrack
from metrics.clips import Place, official_scores, rules_for, score_clip
from metrics.refavs_scores import RefAVSParts
from metrics.video_parts import VideoParts

SIZE = (20, 20)


def square(column=2, frames=2):
    """An 8x8 square from row 4 and the given column on."""
    masks = np.zeros((frames, 1, *SIZE), bool)
    masks[:, :, 4:12, column : column + 8] = True
    return MaskTrack.from_dense(masks)


def nothing(frames=2):
    return MaskTrack.empty(frames, SIZE)


def score(pred, target=None, rules="davis", **more):
    return score_clip("seen", pred, target, **{"rules": rules, "is_null": False, "plan_absent": False} | more)


def test_davis_means_by_hand():
    """The square shifted by 4 of 8 columns shares 32 of 96 pixels: J = 1/3."""
    shifted = score(square(6), square(2))
    assert shifted.j == pytest.approx(1 / 3)
    assert 0 < shifted.f < 1
    assert shifted.jf == (shifted.j + shifted.f) / 2
    assert (score(nothing(), square()).jf, score(square(), square()).jf) == (0, 1)


def test_refavs_uses_its_own_f():
    """An answer of nothing has J 0 and F of the all-foreground mask; the boundary F would be 0.

    At 256 pixels the square of 8/20 covers a share a of the frame: F = 1.3 a / (0.3 a + 1). Shrinking the rule's
    dilation to zero, a = 0.16; with it a little more.
    """
    scores = score(nothing(), square(), "refavs")
    assert scores.j == 0
    assert 1.3 * 0.16 / (0.3 * 0.16 + 1) < scores.f < 1.3 * 0.22 / (0.3 * 0.22 + 1)


def test_a_perfect_mask_of_any_size_stays_perfect_by_the_rules_of_refavs():
    assert score(square(), square(), "refavs").jf == pytest.approx(1, abs=1e-6)


def test_null_clips_have_no_j_but_s_and_an_answer():
    """Right: absent, or no mask though a moment was named. Wrong: a full mask, S = 1."""
    full = MaskTrack.from_dense(np.ones((2, 1, *SIZE), bool))
    absent = score(nothing(), rules="refavs", is_null=True, plan_absent=True)
    unmarked = score(nothing(), nothing(), "refavs", is_null=True)
    wrong = score(full, nothing(), "refavs", is_null=True)
    assert [one.s for one in (absent, unmarked, wrong)] == [0, 0, 1]
    assert [one.is_null_right for one in (absent, unmarked, wrong)] == [True, True, False]
    assert [one.jf for one in (absent, unmarked, wrong)] == [None] * 3
    assert score(square(), is_null=True).s is None


def test_silence_is_no_answer():
    """An unreadable completion leaves the frame empty, which is what S measures, and is not right."""
    gibberish = score(nothing(), rules="refavs", is_null=True, plan_unparsable=True)
    unmarked = score(nothing(), rules="refavs", is_null=True)
    wrong = score(square(), rules="refavs", is_null=True)
    assert [(one.is_null_right, one.is_null_empty) for one in (gibberish, unmarked, wrong)] == [
        (False, True),
        (True, True),
        (False, False),
    ]
    assert gibberish.s == 0
    assert score(square(), square()).is_null_empty is None


def test_an_absent_plan_is_right_on_a_null_clip_whatever_the_masks():
    assert score(square(), None, is_null=True, plan_absent=True).is_null_right


@pytest.mark.parametrize(("target", "found"), [(None, "None"), (square(frames=3), r"\(3, 20, 20\)")])
def test_a_truth_that_does_not_fit_is_an_error(target, found):
    with pytest.raises(ValueError, match=rf"clip 'x': expected ground truth .* \(2, 20, 20\), found {found}"):
        score(square(), target, clip_id="x")


def test_rules_follow_the_task():
    assert [rules_for(task) for task in ("refavs", "revos", "mevis", "video")] == ["refavs", "davis", "davis", "davis"]


def test_official_averages_take_each_benchmark_for_itself():
    """Ref-AVS null clips have S; ReVOS has robustness where the foreground is known; a video has no averages."""
    foreground = MaskTrack.from_dense(np.ones((2, 1, *SIZE), bool))
    clips = [
        score(square(), square(), "refavs", place=Place("refavs", "test_s", "seen", 7, 1)),
        score(square(), None, "refavs", is_null=True, place=Place("refavs", "test_n", "null", 9, 0)),
        score(square(), square(), foreground=foreground, place=Place("revos", "valid", "referring", 0, 1)),
        score(square(), square(6), foreground=foreground, place=Place("revos", "valid", "reasoning", 1, 2)),
        score(square(6), square(), place=Place("mevis", "valid_u", "", 0, 1)),
        score(square(), square(), place=Place("video", "predict", "", 0, 1)),
        score(square(), square()),
    ]
    found = official_scores([*clips, clips[2]])
    assert list(found) == ["refavs", "revos", "mevis"]
    assert {"test_s/J", "test_n/S"} <= set(found["refavs"])
    assert found["revos"]["overall/J"] == pytest.approx((1 + round(100 / 3, 2) / 100) / 2)
    # 32 false positives of 400 pixels per frame.
    assert found["revos"]["reasoning/R_binary"] == pytest.approx(1 - 32 / 400)
    assert found["revos"]["reasoning/R_official"] == 0
    assert found["mevis"]["valid_u/J"] == pytest.approx(1 / 3)


def test_parts_follow_the_rules():
    assert isinstance(score(square(), square(), "refavs").parts, RefAVSParts)
    assert isinstance(score(square(), square()).parts, VideoParts)


def test_nothing_scored_gives_nothing():
    assert official_scores([]) == {}
