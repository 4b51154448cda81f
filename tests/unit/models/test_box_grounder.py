import contextlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import Qwen2VLImageProcessor

from datamodules.errors import ConfigError
from models.box_grounder import ReasonerGrounder
from models.grounder import GroundingRequest


class ScriptedReasoner:
    """Answers every question with the same text; knows whether its adapter is on."""

    def __init__(self, answer: str) -> None:
        self.answer, self.is_reference, self.asked = answer, False, []
        image_processor = Qwen2VLImageProcessor(size={"shortest_edge": 28 * 28, "longest_edge": 112 * 112})
        self.builder = SimpleNamespace(processor=SimpleNamespace(image_processor=image_processor))

    @contextlib.contextmanager
    def reference(self):
        self.is_reference = True
        yield
        self.is_reference = False

    def generate_text(self, images, questions, *, max_new_tokens, shared):
        self.asked.append((len(images), questions, max_new_tokens, self.is_reference, shared))
        return [self.answer] * len(questions)


def requests(*pairs: tuple[int, str]) -> list[GroundingRequest]:
    return [GroundingRequest(frame, text) for frame, text in pairs]


def test_pixels_of_the_resized_image_become_pixels_of_the_frame(make_clip):
    """The clip is 56 x 56, which the processor keeps: the answer's numbers are the frame's own pixels."""
    grounder = ReasonerGrounder()
    grounder.load(ScriptedReasoner('[{"bbox_2d": [7, 14, 28, 70], "label": "x"}]'))
    (found,) = grounder.ground(make_clip(), requests((1, "the red circle")))
    assert found.boxes.tolist() == [[7, 14, 28, 56]]
    assert found.scores.tolist() == [1]


def test_thousandths_become_pixels_of_the_frame(make_clip):
    grounder = ReasonerGrounder(coordinates="normalized_1000")
    grounder.load(ScriptedReasoner("[[0, 250, 500, 1000], [500, 0, 1000, 250]]"))
    (found,) = grounder.ground(make_clip(), requests((1, "x")))
    assert found.boxes.tolist() == [[0, 14, 28, 56], [28, 0, 56, 14]]


@pytest.mark.parametrize("shared", [True, False])
def test_everything_that_fits_is_asked_together_with_the_adapter_off(make_clip, shared):
    grounder, reasoner = ReasonerGrounder(max_new_tokens=9, batch_size=3, shared=shared), ScriptedReasoner("[]")
    grounder.load(reasoner)
    asked = requests((0, "star"), (2, "star"), (2, "moon"), (0, "star"), (0, "moon"))
    found = grounder.ground(make_clip(), asked)
    shown = [
        (images, [(index, "star" in text) for index, text in questions], *rest)
        for images, questions, *rest in reasoner.asked
    ]
    assert shown == [
        (2, [(0, True), (0, False)], 9, True, shared),
        (2, [(1, True), (1, False)], 9, True, shared),
    ]
    assert not reasoner.is_reference
    assert [answer.boxes.shape for answer in found] == [(0, 4)] * 5


@pytest.mark.parametrize(("shared", "passes"), [(True, [3, 3]), (False, [2, 2, 2])])
def test_a_keyframe_is_in_one_pass_unless_every_question_reads_it_anyway(make_clip, shared, passes):
    """Three questions about the first keyframe, one and two about the others, at most two at a time."""
    grounder, reasoner = ReasonerGrounder(batch_size=2, shared=shared), ScriptedReasoner("[]")
    grounder.load(reasoner)
    images = np.zeros((3, 28, 28, 3), np.uint8)
    grounder.find(images, [["a", "b", "c"], ["a"], ["a", "b"]])
    assert [len(questions) for _, questions, *_ in reasoner.asked] == passes


def test_prose_is_no_box(make_clip):
    grounder = ReasonerGrounder()
    grounder.load(ScriptedReasoner("I cannot see such a thing."))
    assert grounder.ground(make_clip(), requests((0, "x")))[0].boxes.shape == (0, 4)


def test_a_real_thinker_answers_as_if_it_had_no_adapter(make_reasoner, make_clip, monkeypatch):
    """Two thinkers alike but for their adapters write different text, and the same text as grounders."""
    asked, answers = [], []
    for adapter_scale in (0.05, 1.0):
        reasoner, texts = make_reasoner(adapter_scale=adapter_scale), []
        generate = reasoner.generate_text

        def listen(images, questions, *, generate=generate, texts=texts, **options):
            texts += generate(images, questions, **options)
            return texts[-len(questions) :]

        asked.append(generate(list(make_clip().close_up([0])), [(0, "the red circle")], max_new_tokens=6))
        monkeypatch.setattr(reasoner, "generate_text", listen)
        grounder = ReasonerGrounder(max_new_tokens=6)
        grounder.load(reasoner)
        grounder.ground(make_clip(), requests((0, "the red circle"), (1, "the red circle")))
        answers.append(texts)
    assert asked[0] != asked[1]
    assert len(answers[0]) == 2
    assert answers[0] == answers[1]


def test_the_reasoner_is_not_a_part_of_the_grounder(make_reasoner):
    grounder = ReasonerGrounder()
    grounder.load(make_reasoner())
    assert list(grounder.parameters()) == []
    assert grounder.state_dict() == {}


def test_there_must_be_a_reasoner():
    with pytest.raises(ConfigError, match=r"asks the reasoner's base model, and there is no reasoner"):
        ReasonerGrounder().load()
    with pytest.raises(RuntimeError, match=r"used before it has a reasoner; call load\(reasoner\) first"):
        ReasonerGrounder().find(np.zeros((1, 4, 4, 3), np.uint8), [["x"]])


def test_at_least_one_token_must_be_asked_for():
    with pytest.raises(ConfigError, match=r"model\.grounder\.max_new_tokens is 0; expected at least 1"):
        ReasonerGrounder(max_new_tokens=0)


def test_unreadable_boxes_are_an_empty_tensor_of_the_right_shape():
    grounder = ReasonerGrounder()
    grounder.load(ScriptedReasoner("no"))
    ((found,),) = grounder.find(np.zeros((1, 28, 28, 3), np.uint8), [["x"]])
    assert found.boxes.shape == torch.Size([0, 4])
