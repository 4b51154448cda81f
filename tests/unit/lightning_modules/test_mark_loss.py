import math

import numpy as np
import pytest
import torch

from datamodules.lessons import Lesson, Mark
from lightning_modules.marks import mark_loss

VIDEO, AUDIO = 8, 20  # tokens of a clip of four seconds at 56 x 56


def media_of(reasoner, clips):
    return reasoner.encode_all([reasoner.builder.media_only(clip) for clip in clips])


def lesson(clip, *marks) -> Lesson:
    return Lesson(clip, (), (), marks)


def mark(media, said: dict[int, int], options=("a", "b")) -> Mark:
    answers = np.full(VIDEO if media == "video" else AUDIO, -1)
    answers[list(said)] = list(said.values())
    return Mark(media, options, answers)


@pytest.fixture
def reasoner(make_reasoner):
    return make_reasoner()


def states_that_say(reasoner, media, said: dict[int, str]):
    """States in which the token at a column leans toward the word's embedding, and zeros elsewhere."""
    states = torch.zeros(1, media[0].input_ids.shape[1] + 3, media[0].embeddings.shape[2])
    for column, word in said.items():
        token = reasoner.builder.tokenizer(word, add_special_tokens=False).input_ids[0]
        states[0, column] = reasoner.lm_head.weight[token]
    return states


def columns(reasoner, media, kind: str) -> list[int]:
    config = reasoner.thinker.config
    token = config.video_token_id if kind == "video" else config.audio_token_id
    return (media[0].input_ids[0] == token).nonzero()[:, 0].tolist()


def test_states_that_say_nothing_cost_the_log_of_the_number_of_options(reasoner, make_clip):
    media = media_of(reasoner, [make_clip()])
    states = states_that_say(reasoner, media, {})
    two = lesson(make_clip(), mark("video", {0: 1, 5: 0}))
    both = lesson(make_clip(), mark("video", {0: 1}), mark("audio", {3: 2, 4: 0}, options=("a", "b", "c")))
    assert float(mark_loss(reasoner, states, media, [two])) == pytest.approx(math.log(2))
    assert float(mark_loss(reasoner, states, media, [both])) == pytest.approx((math.log(2) + math.log(3)) / 2)


def test_the_right_word_at_the_right_token_costs_less(reasoner, make_clip):
    media = media_of(reasoner, [make_clip()])
    at = columns(reasoner, media, "audio")[7]
    states = states_that_say(reasoner, media, {at: "b"})
    losses = {
        answer: float(mark_loss(reasoner, states, media, [lesson(make_clip(), mark("audio", {7: answer}))]))
        for answer in (0, 1)
    }
    elsewhere = mark_loss(reasoner, states, media, [lesson(make_clip(), mark("audio", {6: 1}))])
    assert losses[1] < float(elsewhere) < losses[0]


def test_the_gradient_reaches_marked_tokens_alone(reasoner, make_clip):
    media = media_of(reasoner, [make_clip()])
    states = torch.randn(1, media[0].input_ids.shape[1] + 3, media[0].embeddings.shape[2], requires_grad=True)
    mark_loss(reasoner, states, media, [lesson(make_clip(), mark("video", {2: 0}))]).backward()
    touched = states.grad[0].abs().sum(dim=1).nonzero()[:, 0].tolist()
    assert touched == [columns(reasoner, media, "video")[2]]


def test_no_marks_cost_nothing(reasoner, make_clip):
    media = media_of(reasoner, [make_clip()])
    silent = lesson(make_clip(), mark("video", {}))
    assert float(mark_loss(reasoner, states_that_say(reasoner, media, {}), media, [silent])) == 0


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (Mark("video", ("a", "b"), np.zeros(VIDEO + 1, dtype=int)), "expected one answer per video token, found 9"),
        (mark("video", {0: 0}, options=("a", "xyz")), "expected 'xyz' to be one token, found 3"),
    ],
)
def test_marks_that_do_not_fit_are_refused(reasoner, make_clip, wrong, message):
    media = media_of(reasoner, [make_clip()])
    with pytest.raises(ValueError, match=message):
        mark_loss(reasoner, states_that_say(reasoner, media, {}), media, [lesson(make_clip(), wrong)])
