"""Pictures of other kinds than the masks that are asked for: how they are read, and that it is said."""

import numpy as np
import pytest
from PIL import Image
from score_trees import SIZE, VIDEOS, save, write_marked_all_over

from metrics.score.__main__ import score
from metrics.score.answers import Oddity, oddities_by_kind


def run(root, predictions):
    return score("revos", root, predictions, workers=1)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "1", "I;16", "LA"])
def test_other_kinds_of_pictures_are_read_as_gray(revos, mode):
    """White stays 255 whatever the kind, so every score is that of the plain masks; color is named."""
    root, predictions, _ = revos
    expected = run(root, predictions).scores
    for path in (predictions / VIDEOS[0] / "0").iterdir():
        mask = np.asarray(Image.open(path))
        wide = Image.fromarray(mask.astype(np.uint16) * 257)
        (wide if mode == "I;16" else Image.fromarray(mask).convert(mode)).save(path)
    report = run(root, predictions)
    assert report.scores == expected
    named = [names for kind, names in oddities_by_kind(report.answers).items() if kind.startswith("not single")]
    assert bool(named) == (mode in ("RGB", "RGBA", "P", "LA"))
    assert not named or named[0][0].startswith(f"{VIDEOS[0]}/0: {predictions}")
    assert (str(Oddity.SIXTEEN_BITS) in oddities_by_kind(report.answers)) == (mode == "I;16")


@pytest.mark.parametrize("value", [1, 255])
def test_low_values_of_16_bits_are_lost_as_in_the_official_program_and_are_named(revos, value):
    """Masks of 0 and 1, or 0 and 255, in 16 bits: the upper 8, which are read, are all 0."""
    root, predictions, _ = revos
    folder = predictions / VIDEOS[0] / "0"
    masks = {path: np.asarray(Image.open(path)) for path in folder.iterdir()}
    for path, mask in masks.items():
        Image.fromarray((mask > 0).astype(np.uint16) * value).save(path)
    report = run(root, predictions)
    (named,) = oddities_by_kind(report.answers)[str(Oddity.LOST_VALUES)]
    assert named.startswith(f"{VIDEOS[0]}/0: {folder}")
    for path, mask in masks.items():
        Image.fromarray(np.zeros_like(mask)).save(path)
    assert run(root, predictions).scores == report.scores


@pytest.mark.parametrize("mode", ["alpha", "palette"])
def test_colors_that_gray_does_not_show_are_lost_as_in_the_official_program_and_are_named(revos, mode):
    root, predictions, _ = revos
    folder = predictions / VIDEOS[0] / "0"
    for path in folder.iterdir():
        write_marked_all_over(path, mode)
    report = run(root, predictions)
    (named,) = oddities_by_kind(report.answers)[str(Oddity.LOST_COLORS)]
    assert named.startswith(f"{VIDEOS[0]}/0: {folder}")
    for path in folder.iterdir():
        save(path, np.zeros(SIZE, bool))
    assert run(root, predictions).scores == report.scores


@pytest.mark.parametrize("value", [1, 38])
def test_other_values_count_as_they_are_stored_and_are_named(revos, value):
    """J and F stay; R official is that of the stored values: with 1 it equals R binary."""
    root, predictions, _ = revos
    plain = run(root, predictions)
    for path in predictions.rglob("*.png"):
        save(path, np.asarray(Image.open(path)) > 0, value=value)
    report = run(root, predictions)
    for group in ("referring", "reasoning"):
        assert report.scores[f"{group}/JF"] == plain.scores[f"{group}/JF"]
        assert report.scores[f"{group}/R_binary"] == plain.scores[f"{group}/R_binary"]
        assert report.scores[f"{group}/R_official"] >= plain.scores[f"{group}/R_official"]
        assert value != 1 or report.scores[f"{group}/R_official"] == report.scores[f"{group}/R_binary"]
    assert len(next(iter(oddities_by_kind(report.answers).values()))) == 10


def test_jpeg_data_under_a_png_name_are_named(revos):
    root, predictions, _ = revos
    path = predictions / VIDEOS[0] / "0" / "00005.png"
    Image.open(path).save(path, "JPEG")
    kinds = oddities_by_kind(run(root, predictions).answers)
    assert f"{VIDEOS[0]}/0: {path}" in kinds["not PNG data"]
