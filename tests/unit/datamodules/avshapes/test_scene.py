from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from datamodules.avshapes.outlines import visible_masks
from datamodules.avshapes.render import render_frames
from datamodules.avshapes.scene import (
    COLORS,
    LOUDNESS,
    PITCHES,
    SHAPES,
    UNSEEN_LOOKS,
    UNSEEN_TONES,
    Scene,
    Thing,
    World,
    sample_scene,
)
from datamodules.avshapes.world import Stream, generator
from datamodules.errors import ConfigError


def looks_and_tones(scene: Scene) -> tuple[set[tuple[str, str]], set[tuple[str, int]]]:
    looks = {(thing.color, thing.shape) for thing in scene.things}
    return looks, {(thing.shape, thing.sound.pitch) for thing in scene.things if thing.sound is not None}


def test_held_out_pairs_leave_every_part_several_seen_partners():
    """Six looks, one per color; four tones, one per shape and one per pitch level."""
    assert Counter(color for color, _ in UNSEEN_LOOKS) == dict.fromkeys(COLORS, 1)
    held_out = Counter(shape for _, shape in UNSEEN_LOOKS)
    assert all(len(COLORS) - held_out[shape] >= 3 for shape in SHAPES)
    assert {shape for shape, _ in UNSEEN_TONES} == set(SHAPES)
    assert {pitch for _, pitch in UNSEEN_TONES} == set(range(len(PITCHES)))


def test_a_scene_depends_on_its_key_alone(seen_scenes):
    shuffled = [sample_scene((5, 0, index), seen_scenes[0].world) for index in (40, 3, 17)]

    assert shuffled == [seen_scenes[40], seen_scenes[3], seen_scenes[17]]
    assert len({scene.things for scene in seen_scenes}) == len(seen_scenes)


def test_keys_of_different_length_draw_different_numbers():
    """A bare numpy seed sequence gives (1,) and (1, 0) the same numbers."""
    short, long = generator((1,), Stream.SCENE), generator((1, 0), Stream.SCENE)

    assert short.integers(2**62) != long.integers(2**62)


def test_seen_scenes_hold_no_held_out_pair(seen_scenes, revos_scenes):
    for scene in seen_scenes + revos_scenes:
        looks, tones = looks_and_tones(scene)
        assert not looks & UNSEEN_LOOKS
        assert not tones & UNSEEN_TONES
        assert not any(thing.is_held_out for thing in scene.things)


def test_unseen_scenes_hold_a_held_out_pair(unseen_scenes):
    found: Counter[str] = Counter()
    for scene in unseen_scenes:
        looks, tones = looks_and_tones(scene)
        found["look"] += bool(looks & UNSEEN_LOOKS)
        found["tone"] += bool(tones & UNSEEN_TONES)
        assert looks & UNSEEN_LOOKS or tones & UNSEEN_TONES
        held_out = {thing.name for thing in scene.things if (thing.color, thing.shape) in UNSEEN_LOOKS}
        assert held_out <= {thing.name for thing in scene.things if thing.is_held_out}
    assert min(found["look"], found["tone"]) > 20


def test_unseen_scenes_of_a_silent_world_carry_held_out_looks():
    world = World(sounding=(1.0,))

    assert all(looks_and_tones(sample_scene((9, i), world, unseen=True))[0] & UNSEEN_LOOKS for i in range(20))


def test_shapes_are_distinct_or_else_looks_are(seen_scenes, revos_scenes):
    assert all(len({thing.shape for thing in scene.things}) == len(scene.things) for scene in seen_scenes)
    assert all(len({thing.name for thing in scene.things}) == len(scene.things) for scene in revos_scenes)
    assert any(len({thing.shape for thing in scene.things}) < len(scene.things) for scene in revos_scenes)


def whole_area(thing: Thing, size: int) -> int:
    """Pixels of the thing at its largest, alone in the middle of a frame."""
    frames = len(thing.path)
    alone = replace(thing, path=((0.5, 0.5),) * frames)
    return int(visible_masks([alone], [int(np.argmax(thing.radius))], size).sum())


@pytest.mark.parametrize("size", [112, 224])
def test_every_thing_is_seen_almost_whole_once_and_glimpsed_three_times(seen_scenes, unseen_scenes, size):
    for scene in seen_scenes[:20] + unseen_scenes[:20]:
        masks = render_frames(scene, size=size)[1]
        for index, thing in enumerate(scene.things):
            areas = masks[:, index].sum(axis=(1, 2))
            assert areas.max() >= 0.8 * whole_area(thing, size)
            assert (areas > 0).sum() >= 3


def test_sounds_fit_into_the_time_in_which_their_things_are_there(seen_scenes):
    """Frame i is shown at second i; a thing that sounds is inside the frame at the seconds in between."""
    for scene in seen_scenes:
        spans = []
        for thing in scene.things:
            if thing.sound is None:
                continue
            sound = thing.sound
            spans.append((sound.start_s, sound.end_s))
            assert 1.0 - 0.011 <= sound.end_s - sound.start_s <= 2.5 + 0.011
            assert 0 <= sound.start_s < sound.end_s <= 10
            for frame in range(int(np.ceil(sound.start_s)), min(int(sound.end_s), 9) + 1):
                assert all(0 < place < 1 for place in thing.path[frame])
        spans.sort()
        assert 1 <= len(spans) <= 3
        assert all(earlier[1] < later[0] for earlier, later in pairwise(spans))


def test_pitches_are_distinct_and_loudness_is_independent_of_them(seen_scenes):
    """Each loudness level occurs with each pitch level; distinct pitches leave no more than one sound per level."""
    pairs = Counter()
    for scene in seen_scenes:
        sounds = [thing.sound for thing in scene.things if thing.sound is not None]
        assert len({sound.pitch for sound in sounds}) == len(sounds)
        pairs.update((sound.pitch, sound.loudness) for sound in sounds)
    assert len(pairs) == len(PITCHES) * len(LOUDNESS)


def test_presence_and_movement_follow_the_dials(seen_scenes):
    things = [thing for scene in seen_scenes for thing in scene.things]
    presence = Counter(thing.presence for thing in things)

    assert 0.35 < presence["stay"] / len(things) < 0.6
    assert 0.15 < presence["enter"] / len(things) < 0.38
    assert 0.15 < presence["leave"] / len(things) < 0.38
    assert 0.35 < np.mean([thing.moves for thing in things]) < 0.65
    assert 0.35 < np.mean([len(set(thing.radius)) > 1 for thing in things]) < 0.65


def test_presence_is_what_the_frames_show(seen_scenes):
    """Entering things are away on the first two frames, leaving ones on the last two; still ones keep their place."""
    for scene in seen_scenes:
        for thing, row in zip(scene.things, scene.visible, strict=True):
            if thing.presence == "enter":
                assert row[:2] == (0, 0)
            if thing.presence == "leave":
                assert row[-2:] == (0, 0)
            if not thing.in_motion:
                assert len(set(thing.path)) == 1
            if thing.moves:
                assert len(set(thing.path)) > 5


def test_things_slide_over_the_edge_rather_than_pop(seen_scenes):
    """Within a second and a half of sliding, most entering and leaving things are caught half way on some frame."""
    caught = [
        any(
            any(not 0 < place < 1 or min(place, 1 - place) < 0.5 * radius for place in center)
            for center, radius, share in zip(thing.path, thing.radius, row, strict=True)
            if 0.02 < share < 0.95
        )
        for scene in seen_scenes
        for thing, row in zip(scene.things, scene.visible, strict=True)
        if thing.presence != "stay"
    ]
    assert np.mean(caught) > 0.5


def test_colors_are_often_shared():
    def shared(world: World) -> float:
        scenes = [sample_scene((8, index), world) for index in range(60)]
        return float(np.mean([len({thing.color for thing in scene.things}) < len(scene.things) for scene in scenes]))

    assert shared(World(shared_color=0.0)) < 0.5 < shared(World(shared_color=0.9))


def test_overlapping_sounds_are_a_dial():
    world = World(overlapping_sounds=True, sounding=(0.0, 0.0, 0.0, 1.0), min_things=3)
    overlaps = 0
    for index in range(20):
        sounds = sorted(
            (thing.sound.start_s, thing.sound.end_s)
            for thing in sample_scene((6, index), world).things
            if thing.sound is not None
        )
        assert all(later[0] - earlier[0] >= 0.5 for earlier, later in pairwise(sounds))
        overlaps += any(later[0] < earlier[1] for earlier, later in pairwise(sounds))
    assert overlaps > 5


def test_other_frame_rates_keep_the_timing():
    scene = sample_scene((4, 2), World(frames=40, fps=4.0))

    assert len(scene.things[0].path) == 40
    assert scene.world.duration_s == 10


def test_a_world_too_full_of_sound_is_refused():
    """Four sounds of 2.5 seconds with gaps in between do not fit into 10 seconds."""
    world = World(min_things=4, sounding=(0.0, 0.0, 0.0, 0.0, 1.0), min_sound_s=2.5)

    with pytest.raises(
        RuntimeError, match=r"No scene of key \(1,\) was acceptable in 500 draws.*Lower world.max_things"
    ):
        sample_scene((1,), world)


def test_an_impossible_world_names_every_problem():
    with pytest.raises(ConfigError, match="cannot be drawn") as caught:
        World(size=8, frames=4, max_things=7, min_radius=0.3, enter_share=0.8, leave_share=0.4, sounding=(0.5,))

    message = str(caught.value)
    for part in (
        "world.size must be at least 32 pixels, found 8",
        "world.frames must be at least 8, found 4",
        "found 4 / 1; change world.frames",
        "world.max_things must satisfy 2 <= min <= max <= 4, found min_things 2 and max_things 7",
        "found min_radius 0.3 and max_radius 0.19",
        "add up to at most 1, found 0.8 and 0.4",
        "world.sounding must be 1 to 5 probabilities that add up to 1, found (0.5,)",
    ):
        assert part in message


@pytest.mark.parametrize(
    ("dials", "text"),
    [
        ({"min_speed": 0.2}, "max_speed must satisfy 0.03 <= min <= max <= 0.5"),
        ({"min_sound_s": 3.0}, "max_sound_s must satisfy 0.2 <= min <= max"),
        ({"shared_color": 1.5}, "must be in 0..1"),
        ({"smallest_scale": 0.1}, "world.smallest_scale must be in 0.2..1, found 0.1"),
        ({"sample_rate": 100}, "world.sample_rate must be at least 8000, found 100"),
    ],
)
def test_each_dial_has_its_limits(dials, text):
    with pytest.raises(ConfigError, match="cannot be drawn") as caught:
        World(**dials)

    assert text in str(caught.value)
