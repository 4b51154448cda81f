"""Where a prompt ends and an answer stops: sound beyond the window, and what follows the end of a turn."""

import warnings

import pytest


def test_sound_that_is_not_heard_is_named_once(make_reasoner, make_clip):
    """The tiny extractor takes ten seconds; twelve are given, and the picture shows all of them."""
    builder = make_reasoner().builder
    with pytest.warns(UserWarning, match=r"^long: the model hears the first 10 of 12 seconds of sound"):
        builder.from_clip(make_clip("long", seconds=12))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        builder.from_clip(make_clip("longer", seconds=14))


def test_sound_that_is_heard_whole_is_not_mentioned(make_reasoner, make_clip):
    builder = make_reasoner().builder
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        builder.from_clip(make_clip(seconds=10))
        builder.from_clip(make_clip(seconds=12, has_audio=False))


@pytest.mark.parametrize("shared", [True, False])
def test_an_answer_about_an_image_ends_with_the_turn(make_reasoner, make_clip, monkeypatch, shared):
    """The folder's generation settings name no end and punish repetition; what counts is the tokenizer's end alone."""
    reasoner, produced = make_reasoner(gain=4.0), []
    image = make_clip().frames.read([0])[0]
    monkeypatch.setattr(reasoner, "decode", lambda ids: produced.append(ids.tolist()) or "")

    def ask() -> list[int]:
        reasoner.generate_text([image], [(0, "where")], max_new_tokens=4, shared=shared)
        return produced[-1]

    before = ask()
    assert len(before) == 4
    reasoner.thinker.generation_config.eos_token_id = None
    reasoner.thinker.generation_config.repetition_penalty = 1e6
    assert ask() == before
    monkeypatch.setattr(type(reasoner), "end_of_turn_ids", (before[1],))
    assert ask() == before[: before.index(before[1]) + 1]
