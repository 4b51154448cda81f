import numpy as np
import pytest
import second_opinion as other

from datamodules.masks import MaskTrack
from datamodules.revos_meta import KINDS as TABLE_KINDS
from metrics.boundary import boundary_f
from metrics.region import region_j
from metrics.revos import Level, revos_a, revos_r
from metrics.video_parts import WORST, VideoParts, mask_parts, track_levels, union, video_parts
from metrics.video_scores import KINDS, MeViSScores, ReVOSScores

SIZE = (37, 53)


def clip(seed, frames=4):
    """Two overlapping objects, a prediction that is nearly their union, and what else is annotated."""
    rng = np.random.default_rng(seed)
    objects = np.zeros((frames, 2, *SIZE), bool)
    pred, foreground = np.zeros((2, frames, *SIZE), bool)
    for index in range(frames):
        for number in range(2):
            y, x = rng.integers(0, 20, 2)
            objects[index, number, y : y + 14, x : x + 18] = index != 1
        pred[index] = np.roll(objects[index].any(axis=0), rng.integers(0, 4), axis=1)
        foreground[index] = objects[index].any(axis=0) | (rng.random(SIZE) < 0.2)
    return objects, pred, foreground


def named(pred, instances, foreground):
    """The same means by the second implementation."""
    return {
        "J": other.region_j(pred, instances).mean(),
        "F": other.boundary_f(pred, instances).mean(),
        "A_official": other.revos_a(pred, instances, 255).mean(),
        "A_binary": other.revos_a(pred, instances, 1).mean(),
        "R_official": other.revos_r(pred, instances, foreground, 255).mean(),
        "R_binary": other.revos_r(pred, instances, foreground, 1).mean(),
    }


@pytest.mark.parametrize("seed", range(4))
def test_parts_of_tracks_arrays_and_the_second_implementation_agree(seed):
    objects, pred, foreground = clip(seed)
    instances = objects.sum(axis=1, dtype=np.uint8)
    assert instances.max() == 2
    expected = list(named(pred, instances, foreground).values())
    found, truth = MaskTrack.from_dense(pred[:, None]), MaskTrack.from_dense(objects)
    by_track = video_parts(
        track_levels(found, stored=255, adds=False),
        track_levels(truth),
        SIZE,
        foreground.sum(axis=(1, 2)).tolist(),
    )
    for parts in (by_track, mask_parts(pred, instances, foreground)):
        values = [parts.j, parts.f, parts.a_official, parts.a_binary, parts.r_official, parts.r_binary]
        np.testing.assert_allclose(values, expected, rtol=0, atol=1e-9)
    functional = [region_j(pred, instances), boundary_f(pred, instances), revos_a(pred, instances)]
    np.testing.assert_allclose([one.mean() for one in functional], expected[:3], rtol=0, atol=1e-12)
    assert revos_r(pred, instances, foreground).mean() == pytest.approx(expected[4], abs=1e-12)


def test_overlapping_predicted_objects_do_not_add_up():
    """The ground truth counts instances; a prediction is stored as one mask."""
    track = MaskTrack.from_dense(np.ones((1, 2, 3, 3), bool))
    assert [level.value for level in next(iter(track_levels(track)))] == [2]
    assert [level.value for level in next(iter(track_levels(track, stored=255, adds=False)))] == [255]


def test_gray_levels_count_as_they_are_stored():
    """One false positive of 100 on 200 annotated pixels: R 0.5 as stored, 1 - 1/200 as a mask."""
    mask = np.zeros((8, 40), bool)
    mask[0, 0] = True
    bits = mask_bits(mask)
    parts = video_parts([[Level(100, bits)]], [[]], mask.shape, [200])
    assert (parts.r_official, parts.r_binary) == pytest.approx((0.5, 0.995), abs=1e-7)


def mask_bits(mask):
    return next(iter(track_levels(MaskTrack.from_dense(mask[None, None]))))[0].bits


def test_nothing_stored_is_an_empty_mask():
    assert not union([], SIZE).any()


def test_a_video_without_frames_is_refused():
    with pytest.raises(ValueError, match="at least one frame, found none"):
        video_parts([], [], (4, 4))


def test_unlike_numbers_of_frames_are_an_error():
    with pytest.raises(ValueError, match="shorter"):
        video_parts([[], []], [[]], SIZE)


def test_without_annotated_objects_robustness_is_left_out():
    objects, pred, _ = clip(0)
    metric = ReVOSScores()
    metric.update(mask_parts(pred, objects.any(axis=1)), kind="referring", objects=1, position=0)
    assert {"referring/J", "single/J"} <= set(metric.compute())
    assert not [key for key in metric.compute() if "/R_" in key]


def test_the_revos_table_equals_the_second_implementation():
    metric, rows = ReVOSScores(), []
    for position in range(9):
        objects, pred, foreground = clip(position)
        instances = objects[:, : 1 + position % 2].sum(axis=1, dtype=np.uint8)
        kind = ("referring", "reasoning", "referring")[position % 3]
        rows.append((kind, named(pred, instances, foreground)))
        parts = mask_parts(pred, instances, foreground)
        metric.update(parts, kind=kind, objects=1 + position % 2, position=position)
    found = metric.compute()
    for group, scores in other.revos_table(rows).items():
        for name, value in scores.items():
            assert 100 * float(found[f"{group}/{name}"]) == pytest.approx(value, abs=1e-9), (group, name)


def parts_of(j):
    return VideoParts(j, j, j, j, j, j)


def test_overall_is_the_mean_of_groups_and_not_of_expressions():
    """Three referring at 1 and one reasoning at 0: 1/2, not 3/4. The non-existent one counts nowhere."""
    metric = ReVOSScores()
    for position, (kind, j) in enumerate([("referring", 1.0)] * 3 + [("reasoning", 0.0), ("non-existent", 1.0)]):
        metric.update(
            parts_of(j), kind=kind, objects=0 if kind == "non-existent" else 1 + position % 2, position=position
        )
    found = metric.compute()
    assert found["overall/J"] == 0.5
    assert found["non-existent/J"] == 1
    assert (found["single/J"], found["multi/J"]) == (1, 0.5)


def test_expressions_are_rounded_before_they_are_averaged():
    """12.344 % and 12.344 % give 12.34 %, rounded first; 0.004 % gives 0."""
    metric = ReVOSScores()
    for position, j in enumerate((0.12344, 0.12344, 0.00004)):
        metric.update(parts_of(j), kind="referring", objects=1, position=position)
    assert float(metric.compute()["referring/J"]) == pytest.approx(2 * 0.1234 / 3, abs=1e-12)


def test_a_single_group_has_no_overall():
    metric = ReVOSScores()
    metric.update(WORST, kind="reasoning", objects=2, position=0)
    assert {key.partition("/")[0] for key in metric.compute()} == {"reasoning", "multi"}


def test_mevis_averages_expressions_unrounded():
    metric = MeViSScores()
    for position, j in enumerate((0.12344, 0.00004, 0.00004)):
        metric.update(parts_of(j), split="valid_u", position=min(position, 1))
    assert {key: float(value) for key, value in metric.compute().items()} == pytest.approx(
        {f"valid_u/{name}": 0.06174 for name in ("J", "F", "JF")}, abs=1e-12
    )


def test_kinds_are_those_of_the_table():
    assert KINDS == TABLE_KINDS
