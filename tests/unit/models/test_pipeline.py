"""System 2 is shared by all rollouts of a clip: what a group costs, counted in calls and rows."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from detector_families import FAMILIES
from small_models import ArrayFrames, random_reasoner

from datamodules.records import Clip, Keyframe, ParseReport, Plan, Rollout
from models.box_grounder import ReasonerGrounder
from models.detector import DetectorGrounder
from models.grounder import Candidates, Grounder
from models.pipeline import TwoSystemPipeline
from models.propagator import SAM2Propagator
from models.thinker import multimodal_part
from models.tiny.propagator import build_tiny_propagator

FRAMES = 6
BOTH = ("boxes", "masks")


@pytest.fixture(scope="module")
def propagator() -> SAM2Propagator:
    propagator = SAM2Propagator("weights")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        propagator.use(build_tiny_propagator())
    return propagator


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> DetectorGrounder:
    folder = tmp_path_factory.mktemp("detector")
    FAMILIES["owlvit"](folder)
    grounder = DetectorGrounder(str(folder), keep_best=True, max_boxes=1, batch_size=16)
    grounder.load()
    return grounder


def new_clip() -> Clip:
    pixels = np.random.default_rng(0).integers(0, 255, (FRAMES, 56, 84, 3), dtype=np.uint8)
    return Clip(id="clip", task="video", split="", kind="", expression="", frames=ArrayFrames(pixels))


def group(clip: Clip, plans: Sequence[Sequence[tuple[int, str]]]) -> list[Rollout]:
    """Rollouts that pick these frames with these words."""
    empty = torch.zeros(0)
    return [Rollout(clip, index, "", empty.long(), empty, False, plan_of(picked)) for index, picked in enumerate(plans)]


def plan_of(picked: Sequence[tuple[int, str]]) -> Plan:
    keyframes = tuple(Keyframe(frame, text, frame, frame) for frame, text in picked)
    return Plan(keyframes, not keyframes, ParseReport(True))


ALONE = [[(1, "the red circle"), (4, "the red circle")]]
EIGHT = [
    [(1, "the red circle"), (4, "the red circle")],
    [(1, "a blue square"), (4, "a blue square")],
    [(1, "the red circle"), (4, "the red circle")],
    [(4, "the object"), (1, "the red circle")],
    [],
    [(1, "the object")],
    [(4, "a blue square")],
    [(1, "the red circle"), (4, "the red circle")],
]
"""Eight rollouts about the same two frames: three alike, one without a plan."""


class Rows:
    """Counts calls of a module, and the rows of its first input."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.seen: list[int] = []
        self.handle = module.register_forward_hook(self._count, with_kwargs=True)

    def _count(self, _: torch.nn.Module, inputs: tuple, named: dict, __: object) -> None:
        self.seen.append(len(inputs[0] if inputs else next(iter(named.values()))))


def rows_of(module: torch.nn.Module, work: Callable[[], object]) -> list[int]:
    counter = Rows(module)
    work()
    counter.handle.remove()
    return counter.seen


def test_keyframes_and_clip_are_encoded_once_however_many_rollouts_pick_them(detector, propagator):
    pipeline = TwoSystemPipeline(detector, propagator)
    for plans in (ALONE, EIGHT):
        tower = rows_of(
            detector.model.owlvit.vision_model, lambda plans=plans: pipeline.fill(group(new_clip(), plans), BOTH)
        )
        encoder = rows_of(
            propagator.predictor.image_encoder, lambda plans=plans: pipeline.fill(group(new_clip(), plans), BOTH)
        )
        assert tower == [2], "both keyframes in one pass, whoever picks them"
        assert encoder == [FRAMES]


class WordGrounder(Grounder):
    """One box per description, as wide as the description is long."""

    def load(self, reasoner: object = None) -> None:
        """Nothing to read."""

    def find(self, images: np.ndarray, descriptions: Sequence[Sequence[str]]) -> list[list[Candidates]]:
        return [
            [Candidates(torch.tensor([[4.0, 4.0, 10.0 + 3 * len(text), 40.0]]), torch.ones(1)) for text in row]
            for row in descriptions
        ]


def test_objects_of_all_rollouts_travel_in_the_same_passes(propagator):
    """As many calls of memory attention for eight rollouts as for one, and rows for different objects only."""
    pipeline = TwoSystemPipeline(WordGrounder(), propagator)
    words = ["the disc", "the disc", "a red disc", "red", "the disc", "red", "it", "a red disc"]
    plans = [[(2, text)] for text in words]
    attention, memory = propagator.predictor.memory_attention, propagator.predictor.memory_encoder
    one = rows_of(attention, lambda: pipeline.fill(group(new_clip(), plans[:1]), BOTH))
    eight = rows_of(attention, lambda: pipeline.fill(group(new_clip(), plans), BOTH))
    assert len(one) == len(eight) == FRAMES - 1
    remembered = rows_of(memory, lambda: pipeline.fill(group(new_clip(), plans), BOTH))
    assert sum(remembered) == len(set(words)) * FRAMES


def test_equal_plans_give_equal_masks_and_a_group_is_answered_as_its_members_are(detector, propagator):
    pipeline = TwoSystemPipeline(detector, propagator)
    together = pipeline.fill(group(new_clip(), EIGHT), BOTH)
    assert together[0].masks == together[2].masks == together[7].masks
    assert together[4].masks is not None
    assert together[4].masks.dense().shape[1] == 0
    for index in (1, 3, 5):
        (alone,) = pipeline.fill(group(new_clip(), [EIGHT[index]]), BOTH)
        ours, theirs = (r.grounding.keyframes for r in (together[index], alone))
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(a.boxes, b.boxes, atol=1e-3)
        assert (together[index].masks.dense() != alone.masks.dense()).mean() < 1e-2


def test_the_reasoner_as_grounder_reads_each_keyframe_once(propagator):
    """Descriptions of a frame share its pass through the vision tower; equal ones are asked once."""
    reasoner, grounder = random_reasoner(), ReasonerGrounder(max_new_tokens=2)
    grounder.load(reasoner)
    pipeline, visual = TwoSystemPipeline(grounder, propagator), multimodal_part(reasoner.thinker).visual
    alone = rows_of(visual, lambda: pipeline.fill(group(new_clip(), ALONE), ["boxes"]))
    eight = rows_of(visual, lambda: pipeline.fill(group(new_clip(), EIGHT), ["boxes"]))
    assert alone == eight
    assert len(alone) == 1


def test_what_is_not_needed_is_not_run(detector, propagator):
    pipeline = TwoSystemPipeline(detector, propagator)
    rollouts = group(new_clip(), ALONE)
    assert pipeline.fill(rollouts, []) == rollouts
    assert rows_of(propagator.predictor.image_encoder, lambda: pipeline.fill(rollouts, ["boxes"])) == []
    assert pipeline.fill([], BOTH) == []


def test_rollouts_of_two_clips_are_refused(detector, propagator):
    one, other = group(new_clip(), ALONE), group(new_clip(), ALONE)
    object.__setattr__(other[0].clip, "id", "other")
    with pytest.raises(ValueError, match="expected the rollouts of one clip, found clip and other"):
        TwoSystemPipeline(detector, propagator).fill([*one, *other], BOTH)


def test_plans_without_keyframes_still_make_every_call(propagator):
    """What is run depends on what is needed and never on what completions say: processes wait for each other."""
    calls: list[str] = []

    class Listening(Grounder):
        def load(self, reasoner: object = None) -> None:
            """Nothing to read."""

        def find(self, images: np.ndarray, descriptions: Sequence[Sequence[str]]) -> list:
            raise AssertionError("there is nothing to find")

        def ground(self, clip: Clip, requests: Sequence) -> list:
            calls.append(f"{len(requests)} requests")
            return super().ground(clip, requests)

    (filled,) = TwoSystemPipeline(Listening(), propagator).fill(group(new_clip(), [[]]), BOTH)
    assert calls == ["0 requests"]
    assert filled.masks is not None
