import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from small_models import ArrayFrames, noisy_clip

from datamodules.errors import ConfigError
from datamodules.masks import MaskTrack
from datamodules.records import Clip, FrameGrounding, Grounding
from models.propagator import Propagator, SAM2Propagator
from models.sam2_predictor import ClipPredictor
from models.tiny.propagator import build_tiny_propagator

HEIGHT, WIDTH, FRAMES = 72, 96, 5
BOX_A, BOX_B = (8, 8, 40, 44), (50, 20, 90, 66)


@pytest.fixture(scope="module")
def weights() -> ClipPredictor:
    """Random weights: masks without meaning, and therefore sensitive to anything that is computed otherwise."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build_tiny_propagator()


@pytest.fixture(scope="module")
def clip() -> Clip:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 255, (FRAMES, 9, 12, 3), dtype=np.uint8)
    pixels = coarse.repeat(8, axis=1).repeat(8, axis=2)
    return Clip(id="clip", task="video", split="", kind="", expression="", frames=ArrayFrames(pixels))


@pytest.fixture
def make(weights) -> Callable[..., SAM2Propagator]:
    def build(change: Callable[[ClipPredictor], None] | None = None, **settings) -> SAM2Propagator:
        predictor = copy.deepcopy(weights)
        if change is not None:
            change(predictor)
        propagator = SAM2Propagator("weights", **settings)
        propagator.use(predictor)
        return propagator

    return build


def found(frame: int, *boxes: tuple[float, ...], masks: np.ndarray | None = None) -> FrameGrounding:
    return FrameGrounding(
        frame, np.array(boxes, dtype=np.float32).reshape(-1, 4), np.ones(len(boxes), dtype=np.float32), masks
    )


def grounding(*keyframes: FrameGrounding) -> Grounding:
    return Grounding(keyframes)


def iou(one: MaskTrack, other: MaskTrack) -> float:
    """Mean over frames and objects; 1 where both masks are empty."""
    a, b = one.dense(), other.dense()
    union = (a | b).sum(axis=(2, 3))
    return float(np.where(union > 0, (a & b).sum(axis=(2, 3)) / np.maximum(union, 1), 1).mean())


MASK = np.zeros((1, HEIGHT, WIDTH), dtype=bool)
MASK[0, 10:50, 20:60] = True

CASES = {
    "last frame": grounding(found(FRAMES - 1, BOX_A)),
    "middle": grounding(found(2, BOX_B)),
    "two keyframes": grounding(found(1, BOX_A), found(3, BOX_A)),
    "two objects, one seen again": grounding(found(3, BOX_A, BOX_B), found(1, BOX_B)),
    "mask, then box": grounding(found(1, (20, 10, 60, 50), masks=MASK), found(4, BOX_A)),
}


def test_batched_and_stock_paths_agree_for_every_kind_of_prompt(make, clip):
    """All cases in one batch against one stock session per object."""
    batched = make().propagate(clip, list(CASES.values()))
    stock = make(batched=False).propagate(clip, list(CASES.values()))
    agreement = {name: iou(a, b) for name, a, b in zip(CASES, batched, stock, strict=True)}
    assert min(agreement.values()) > 0.98, agreement


def test_the_comparison_has_something_to_compare(make, clip):
    """Masks are neither empty nor full, and differ between frames and prompts."""
    tracks = make().propagate(clip, [CASES["middle"], CASES["two keyframes"]])
    areas = np.concatenate([track.areas[:, 0] for track in tracks]) / (HEIGHT * WIDTH)
    assert (areas > 0.02).all()
    assert (areas < 0.98).all()
    assert len(set(areas.tolist())) > FRAMES


def test_a_track_has_every_frame_at_the_original_size(make, clip):
    (track,) = make().propagate(clip, [CASES["middle"]])
    assert track.size == (HEIGHT, WIDTH)
    assert track.dense().shape == (FRAMES, 1, HEIGHT, WIDTH)
    assert (track.areas > 0).all()


def test_one_object_per_associated_box(make, clip):
    one, two = make().propagate(clip, [CASES["two keyframes"], CASES["two objects, one seen again"]])
    assert (one.objects, two.objects) == (1, 2)


def test_an_absent_target_has_no_object_and_costs_nothing(clip):
    """Without weights SAM2 cannot run; what is asked needs none."""
    propagator = SAM2Propagator("weights")
    propagator.predictor = None
    absent, boxless = propagator.propagate(clip, [grounding(), grounding(found(2))])
    assert absent == boxless == MaskTrack.empty(FRAMES, (HEIGHT, WIDTH))
    assert propagator.propagate(clip, []) == []


def test_keyframes_without_boxes_change_nothing(make, clip):
    propagator = make()
    assert propagator.propagate(clip, [grounding(found(2, BOX_B), found(4))]) == propagator.propagate(
        clip, [CASES["middle"]]
    )


def test_a_group_is_answered_in_order_and_as_if_alone(make, clip):
    asked = [CASES["middle"], grounding(), CASES["two objects, one seen again"], CASES["middle"]]
    propagator = make()
    together = propagator.propagate(clip, asked)
    for track, one in zip(together, asked, strict=True):
        assert together[1].objects == 0
        assert track.objects == 0 or iou(track, propagator.propagate(clip, [one])[0]) > 0.98


def test_passes_of_few_objects_give_the_same_masks(make, clip):
    asked = list(CASES.values())
    whole = make().propagate(clip, asked)
    parts = make(objects_per_pass=2).propagate(clip, asked)
    assert min(map(iou, whole, parts)) > 0.98


class Spy:
    """Counts the rows that pass through a module."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.rows: list[int] = []
        module.register_forward_hook(lambda _, inputs, kwargs, __: self._count(inputs, kwargs), with_kwargs=True)

    def _count(self, inputs: tuple, kwargs: dict) -> None:
        first = inputs[0] if inputs else next(iter(kwargs.values()))
        self.rows.append(len(first))


def test_a_clip_is_encoded_once_however_many_rollouts_ask(make, clip):
    propagator = make(frames_per_encode=3)
    spy = Spy(propagator.predictor.image_encoder)
    propagator.propagate(clip, list(CASES.values()))
    propagator.propagate(clip, [CASES["middle"]] * 8)
    assert spy.rows == [3, 2]


def test_equal_groundings_are_followed_once(make, clip):
    """One memory per frame for each of 2 different objects, however often they are asked for."""
    propagator = make()
    spy = Spy(propagator.predictor.memory_encoder)
    first, second, again = propagator.propagate(
        clip, [CASES["middle"], CASES["last frame"], grounding(found(2, BOX_B))]
    )
    assert first == again != second
    assert sum(spy.rows) == 2 * FRAMES


def test_other_clips_are_encoded_anew_and_the_oldest_features_dropped(make):
    propagator = make(cached_clips=2)
    spy = Spy(propagator.predictor.image_encoder)
    one, two, three = (noisy_clip(name, seconds=2) for name in "abc")
    asked = [grounding(found(0, (5, 5, 30, 30)))]
    for shown in (one, two, one, three, one, two):
        propagator.propagate(shown, asked)
    assert spy.rows == [2, 2, 2, 2]


def test_new_weights_forget_old_features(make, clip, weights):
    propagator = make()
    before = propagator.propagate(clip, [CASES["middle"]])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        propagator.use(build_tiny_propagator())
    assert iou(before[0], propagator.propagate(clip, [CASES["middle"]])[0]) < 0.9


def test_a_clip_of_one_frame_is_segmented(make):
    for batched in (True, False):
        (track,) = make(batched=batched).propagate(noisy_clip(seconds=1), [grounding(found(0, (5, 5, 30, 30)))])
        assert track.areas.shape == (1, 1)
        assert track.areas[0, 0] > 0


def test_frames_are_read_in_chunks_and_once(make, clip):
    chunks = []

    class Watched(ArrayFrames):
        def read(self, indices, *, max_pixels=None):
            chunks.append(list(indices))
            return super().read(indices)

    watched = Clip(id="w", task="video", split="", kind="", expression="", frames=Watched(clip.frames.pixels))
    propagator = make(frames_per_encode=4)
    propagator.propagate(watched, [CASES["middle"], CASES["last frame"]])
    assert chunks == [[0, 1, 2, 3], [4]]


def test_bfloat16_gives_nearly_the_same_masks(make, clip):
    """Random weights leave many pixels near the border, so the agreement asked for is loose."""
    exact = make().propagate(clip, [CASES["middle"]])
    rounded = make(dtype="bfloat16").propagate(clip, [CASES["middle"]])
    assert 0.5 < iou(exact[0], rounded[0]) < 1


def test_it_is_frozen_and_stays_in_evaluation_mode(make):
    holder = torch.nn.Sequential(make())
    holder.train()
    assert not any(module.training for module in holder[0].modules())
    assert not any(parameter.requires_grad for parameter in holder.parameters())
    assert isinstance(holder[0], Propagator)


def test_settings_and_cache_are_no_weights(make, clip):
    propagator = make()
    names = set(propagator.state_dict())
    propagator.propagate(clip, [CASES["middle"]])
    assert set(propagator.state_dict()) == names
    assert all(name.startswith("predictor.") for name in names)


def test_no_weights_yet_is_said(clip):
    with pytest.raises(RuntimeError, match=r"no weights yet; call load\(\)"):
        SAM2Propagator("weights").propagate(clip, [CASES["middle"]])


def test_frames_outside_the_clip_are_refused(make, clip):
    with pytest.raises(ValueError, match=r"clip: expected keyframes in 0\.\.4, found frame 5"):
        make().propagate(clip, [grounding(found(5, BOX_A))])


def test_masks_of_another_size_are_refused(make, clip):
    wrong = np.ones((1, 5, 5), dtype=bool)
    with pytest.raises(ValueError, match=r"masks of the frames' size \(72, 96\) on frame 2, found \(5, 5\)"):
        make().propagate(clip, [grounding(found(2, BOX_A, masks=wrong))])


def test_all_wrong_settings_are_named_at_once():
    with pytest.raises(ConfigError) as error:
        SAM2Propagator("weights", cached_clips=0, objects_per_pass=-1)
    assert "model.propagator.cached_clips must be at least 1, found 0." in str(error.value)
    assert "model.propagator.objects_per_pass must be at least 1, found -1." in str(error.value)
