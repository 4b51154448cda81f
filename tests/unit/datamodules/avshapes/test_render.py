import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import binary_dilation, binary_erosion

from datamodules.avshapes.outlines import UNIT_AREA, visible_masks
from datamodules.avshapes.render import render_frames, visible_areas
from datamodules.avshapes.scene import COLORS, SHAPES, Thing, World, sample_scene


def lone(shape: str, radius: float, center: tuple[float, float] = (0.5, 0.5)) -> Thing:
    return Thing(shape, "red", (radius,), (center,), "stay", moves=False)


@pytest.mark.parametrize("shape", SHAPES)
def test_areas_match_the_closed_forms(shape):
    """Circle pi r^2, square (2 x 0.87 r)^2, triangle 3 sqrt(3)/4 R^2, star 5 R n sin 36; R = 1.25 r, n = 0.6 r."""
    expected = {
        "circle": math.pi,
        "square": (2 * 0.87) ** 2,
        "triangle": 3 * math.sqrt(3) / 4 * 1.25**2,
        "star": 5 * 1.25 * 0.6 * math.sin(math.radians(36)),
    }[shape]
    pixels = visible_masks([lone(shape, 0.3)], [0], 1000).sum()

    assert UNIT_AREA[shape] == pytest.approx(expected)
    assert pixels == pytest.approx(expected * 300**2, rel=2e-3)


@pytest.mark.parametrize("shape", ["triangle", "star"])
def test_triangle_and_star_point_up_and_are_symmetric(shape):
    mask = visible_masks([lone(shape, 0.3)], [0], 400)[0, 0]
    rows = np.flatnonzero(mask.any(axis=1))

    assert mask[rows[0] + 2].sum() < 10
    assert rows[0] == pytest.approx(200 - 1.25 * 0.3 * 400, abs=2)
    assert np.array_equal(mask, mask[:, ::-1])


def test_a_star_has_five_points():
    """A circle between notches (0.6 r) and tips (1.25 r) cuts the star in five arcs."""
    mask = visible_masks([lone("star", 0.3)], [0], 800)[0, 0]
    angles = np.linspace(0, 2 * np.pi, 720, endpoint=False)
    ring = mask[(400 + 240 * np.sin(angles)).astype(int), (400 + 240 * np.cos(angles)).astype(int)]

    assert (ring & ~np.roll(ring, 1)).sum() == 5


def test_a_thing_outside_has_no_pixel_and_one_on_the_edge_half():
    things = [lone("circle", 0.2, (-0.3, 0.5)), lone("square", 0.1, (1.0, 0.5))]
    outside, edge = visible_masks(things, [0], 200)[0]

    assert not outside.any()
    assert edge.sum() == pytest.approx(UNIT_AREA["square"] * 20**2 / 2, rel=0.05)


def test_later_things_cover_earlier_ones():
    below, above = visible_masks([lone("square", 0.3), lone("circle", 0.2)], [0], 100)[0]

    assert above.sum() == pytest.approx(math.pi * 20**2, rel=0.02)
    assert below.sum() == pytest.approx(UNIT_AREA["square"] * 30**2 - math.pi * 20**2, rel=0.02)


def test_masks_are_disjoint_and_match_the_colors(seen_scenes, revos_scenes):
    """Off the blended rims, a mask's pixels have its thing's color exactly and all other pixels are background."""
    for scene in seen_scenes[:12] + revos_scenes[:12]:
        frames, masks = render_frames(scene)
        assert masks.sum(axis=1).max() <= 1
        for frame, row in zip(frames, masks, strict=True):
            for thing, mask in zip(scene.things, row, strict=True):
                # A sharp tip tints a few pixels ahead of the mask that it belongs to.
                others = binary_dilation((row & ~mask).any(axis=0), iterations=4)
                core = binary_erosion(mask, iterations=2) & ~others
                assert (frame[core] == COLORS[thing.color]).all()
            ground = ~binary_dilation(row.any(axis=0), iterations=4)
            # A thing that has just left still tints the pixels along the edge.
            ground[[0, -1]] = ground[:, [0, -1]] = False
            assert (np.abs(frame[ground].astype(int) - scene.background) <= scene.world.grain + 1).all()


def test_frames_are_deterministic_and_can_be_picked(seen_scenes):
    frames, masks = render_frames(seen_scenes[0])
    again, _ = render_frames(sample_scene(seen_scenes[0].key))
    some, some_masks = render_frames(seen_scenes[0], frames=[7, 2])

    assert frames.tobytes() == again.tobytes()
    assert np.array_equal(some, frames[[7, 2]])
    assert np.array_equal(some_masks, masks[[7, 2]])


def test_any_size_shows_the_same_scene(seen_scenes):
    for scene in seen_scenes[:10]:
        small, large = visible_areas(scene, size=112), visible_areas(scene, size=448)
        assert np.abs(small - large).max() < 0.004
        assert render_frames(scene, frames=[0], size=112)[0].shape == (1, 112, 112, 3)


def test_visible_areas_are_the_masks_share_of_the_frame(seen_scenes):
    masks = render_frames(seen_scenes[1])[1]

    assert visible_areas(seen_scenes[1]) == pytest.approx(masks.mean(axis=(2, 3)))
    assert masks.shape == (10, len(seen_scenes[1].things), 224, 224)


def test_visible_areas_vary_over_the_clip(seen_scenes):
    """What makes one keyframe better than another: for most things the smallest view is under 60 % of the largest."""
    ratios = []
    for scene in seen_scenes:
        for areas in visible_areas(scene, size=64).T:
            seen = areas[areas > 0]
            ratios.append(seen.min() / seen.max())
    assert np.median(ratios) < 0.6


def test_the_ground_is_dark_and_varied(seen_scenes):
    grounds = np.array([scene.background for scene in seen_scenes])

    assert grounds.max() < 60
    assert (grounds.std(axis=0) > 5).all()


def test_a_world_without_grain_has_a_flat_ground():
    scene = sample_scene((2, 2), World(grain=0.0))
    frames, _ = render_frames(replace(scene, things=()), frames=[0])

    assert (frames == scene.background).all()
