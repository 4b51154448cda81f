from collections.abc import Sequence

import numpy as np
import pytest
import torch

from datamodules.errors import ConfigError
from datamodules.records import Clip, Frames
from models.grounder import Candidates, Grounder, GroundingRequest


class WideFrames(Frames):
    """Six frames of 40 x 80 pixels whose close-up is half as large; remembers what was read."""

    def __init__(self) -> None:
        self.count, self.fps, self.reads = 6, 1.0, []

    @property
    def size(self) -> tuple[int, int]:
        return 40, 80

    def read(self, indices: Sequence[int], *, max_pixels: int | None = None) -> np.ndarray:
        self.reads += list(indices)
        return np.zeros((len(indices), 20, 40, 3), np.uint8) + np.array(indices, np.uint8)[:, None, None, None]


class ScriptedGrounder(Grounder):
    """Gives the same candidates to every question and remembers what it was asked."""

    def __init__(self, boxes: list[list[float]], scores: list[float], **settings) -> None:
        super().__init__(**settings)
        self.candidates = Candidates(torch.tensor(boxes).float().reshape(-1, 4), torch.tensor(scores))
        self.calls: list[list[tuple[int, tuple[str, ...]]]] = []

    def load(self, reasoner=None) -> None:
        """Nothing to read."""

    def find(self, images, descriptions):
        assert len(images) == len(descriptions)
        self.calls.append([(int(i[0, 0, 0]), tuple(d)) for i, d in zip(images, descriptions, strict=True)])
        return [[self.candidates for _ in row] for row in descriptions]


def wide_clip() -> Clip:
    return Clip(id="wide", task="video", split="", kind="", expression="", frames=WideFrames())


def ground(grounder: Grounder, *requests: tuple[int, str]) -> list:
    return grounder.ground(wide_clip(), [GroundingRequest(frame, text) for frame, text in requests])


def test_answers_come_in_the_order_of_the_requests():
    answers = ground(ScriptedGrounder([[0, 0, 4, 4]], [0.5]), (4, "a"), (1, "b"), (4, "a"), (0, "b"))
    assert [answer.frame for answer in answers] == [4, 1, 4, 0]


def test_equal_requests_cost_one_answer_and_every_keyframe_is_read_once():
    grounder, clip = ScriptedGrounder([[0, 0, 4, 4]], [0.5]), wide_clip()
    requests = [GroundingRequest(frame, text) for frame in (3, 1, 3) for text in ("a", "b", "a")]
    grounder.ground(clip, requests)
    assert grounder.calls == [[(1, ("a", "b")), (3, ("a", "b"))]]
    assert clip.frames.reads == [1, 3]


def test_no_call_is_larger_than_the_batch_size():
    grounder = ScriptedGrounder([[0, 0, 4, 4]], [0.5], batch_size=2)
    ground(grounder, *[(frame, "a") for frame in range(5)])
    assert [len(call) for call in grounder.calls] == [2, 2, 1]


def test_boxes_are_scaled_to_the_original_frame_and_clipped():
    """The close-up is half as large, so (5, 5, 30, 30) is (10, 10, 60, 60), and 60 is cut to the height of 40."""
    (answer,) = ground(ScriptedGrounder([[5, 5, 30, 30]], [0.5]), (0, "a"))
    assert answer.boxes.tolist() == [[10, 10, 60, 40]]
    assert answer.boxes.dtype == np.float32
    assert answer.scores.dtype == np.float32


def test_boxes_come_best_first_and_overlapping_ones_are_thinned_out():
    """The second box covers 80 of the third's 100 pixels: IoU 0.8, so only the better of the two stays."""
    boxes = [[20, 0, 30, 10], [0, 0, 8, 10], [0, 0, 10, 10]]
    (answer,) = ground(ScriptedGrounder(boxes, [0.3, 0.4, 0.9]), (0, "a"))
    assert answer.scores == pytest.approx([0.9, 0.3])
    assert answer.boxes.tolist() == [[0, 0, 20, 20], [40, 0, 60, 20]]


def test_threshold_counts_boxes_at_or_above_it():
    (answer,) = ground(ScriptedGrounder([[0, 0, 5, 5], [9, 9, 12, 12]], [0.5, 0.25], threshold=0.5), (0, "a"))
    assert answer.scores.tolist() == [0.5]


@pytest.mark.parametrize(("keep_best", "kept"), [(False, []), (True, [0.25])])
def test_below_the_threshold_there_is_nothing_or_the_best(keep_best, kept):
    boxes, scores = [[0, 0, 5, 5], [9, 9, 12, 12]], [0.125, 0.25]
    (answer,) = ground(ScriptedGrounder(boxes, scores, threshold=0.5, keep_best=keep_best), (0, "a"))
    assert answer.scores.tolist() == kept
    assert answer.boxes.shape == (len(kept), 4)


def test_at_most_max_boxes_stay_and_boxes_outside_the_frame_do_not_count():
    boxes = [[50, 0, 60, 5]] + [[6.0 * i, 0, 6.0 * i + 4, 4] for i in range(5)]
    (answer,) = ground(ScriptedGrounder(boxes, [0.9, 0.8, 0.7, 0.6, 0.5, 0.4], max_boxes=3), (0, "a"))
    assert answer.scores == pytest.approx([0.8, 0.7, 0.6])


def test_blank_descriptions_find_nothing_without_asking():
    grounder = ScriptedGrounder([[0, 0, 4, 4]], [0.5])
    answers = ground(grounder, (2, "  "), (5, ""))
    assert [answer.frame for answer in answers] == [2, 5]
    assert all(answer.boxes.shape == (0, 4) and answer.scores.shape == (0,) for answer in answers)
    assert grounder.calls == []


def test_no_requests_give_no_answers():
    assert ground(ScriptedGrounder([], [])) == []


@pytest.mark.parametrize("frame", [-1, 6])
def test_frames_outside_the_clip_are_refused(frame):
    with pytest.raises(ValueError, match=rf"Expected a keyframe in 0\.\.5 of clip wide, got frame {frame}"):
        ground(ScriptedGrounder([], []), (frame, "a"))


def test_all_settings_out_of_range_are_named_at_once():
    with pytest.raises(ConfigError) as error:
        ScriptedGrounder([], [], batch_size=0, threshold=1.5, max_boxes=0, nms_iou=-0.1)
    for text in ("batch_size is 0", "threshold is 1.5", "max_boxes is 0", "nms_iou is -0.1"):
        assert f"model.grounder.{text}; expected" in str(error.value)
