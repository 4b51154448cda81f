from dataclasses import replace

import pytest
import torch

from grpo.engine import PlainEngine, SampleRequest
from grpo.noise import noise_key
from grpo.rollout import Completion, evaluation_mode, rollout
from grpo.sampling import Sampling
from models.reasoner import Reasoner


def keys(count: int, step: int = 0) -> list[int]:
    return [noise_key(seed=0, rollout_step=step, sample_id="clip", index=index) for index in range(count)]


@pytest.fixture
def frequent_ends(monkeypatch):
    """One token in sixteen ends a completion, so that a random thinker stops now and then."""
    ends = tuple(range(0, 320, 16))
    monkeypatch.setattr(Reasoner, "end_of_turn_ids", property(lambda self: ends))
    return ends


def same(left: Completion, right: Completion) -> bool:
    return torch.equal(left.ids, right.ids) and left.is_truncated == right.is_truncated


def test_completions_end_at_an_end_token_which_they_contain(make_reasoner, make_clip, frequent_ends):
    reasoner = make_reasoner()
    found = rollout(reasoner, reasoner.encode(reasoner.prepare(make_clip())), keys(24), Sampling(max_new_tokens=24))
    assert len({len(completion.ids) for completion in found}) > 3
    assert {completion.is_truncated for completion in found} == {True, False}
    for completion in found:
        assert completion.ids.shape == completion.logprobs.shape
        assert not set(completion.ids[:-1].tolist()) & set(frequent_ends)
        assert (int(completion.ids[-1]) in frequent_ends) != completion.is_truncated
        assert not completion.is_truncated or len(completion.ids) == 24


def test_an_end_token_in_the_last_place_is_no_truncation(make_reasoner, make_clip, monkeypatch):
    monkeypatch.setattr(Reasoner, "end_of_turn_ids", property(lambda self: tuple(range(320))))
    reasoner = make_reasoner()
    found = rollout(reasoner, reasoner.encode(reasoner.prepare(make_clip())), keys(3), Sampling(max_new_tokens=1))
    assert [completion.is_truncated for completion in found] == [False] * 3


def test_a_completion_does_not_depend_on_its_neighbours(make_reasoner, make_clip, frequent_ends):
    """Rows that leave early, come in another order or are sampled alone change nothing."""
    reasoner = make_reasoner()
    encoded = reasoner.encode(reasoner.prepare(make_clip()))
    sampling = Sampling(max_new_tokens=16, temperature=0.9, top_p=0.8)
    together = rollout(reasoner, encoded, keys(8), sampling)
    backward = rollout(reasoner, encoded, keys(8)[::-1], sampling)[::-1]
    alone = [rollout(reasoner, encoded, [key], sampling)[0] for key in keys(8)]
    assert all(map(same, together, backward))
    assert all(map(same, together, alone))


def test_another_rollout_step_samples_afresh(make_reasoner, make_clip):
    reasoner = make_reasoner()
    encoded = reasoner.encode(reasoner.prepare(make_clip()))
    sampling = Sampling(max_new_tokens=8)
    pair = [rollout(reasoner, encoded, keys(1, step), sampling)[0] for step in (0, 1)]
    assert not torch.equal(pair[0].ids, pair[1].ids)


@pytest.mark.parametrize("has_audio", [True, False])
def test_greedy_completions_are_those_of_transformers(make_reasoner, make_clip, has_audio):
    """`generate` repeats nothing of ours: it runs the towers itself and works its positions out from the ids."""
    reasoner = make_reasoner(1, gain=3.0)
    prompt = reasoner.prepare(make_clip(has_audio=has_audio))
    found = rollout(reasoner, reasoner.encode(prompt), [0], Sampling(max_new_tokens=20, temperature=0.0))[0]
    reasoner.eval()
    expected = reasoner.thinker.generate(
        input_ids=prompt.input_ids,
        attention_mask=torch.ones_like(prompt.input_ids),
        **prompt.features,
        use_audio_in_video=has_audio,
        max_new_tokens=20,
        do_sample=False,
    )[0, prompt.input_ids.shape[1] :]
    assert len(set(found.ids.tolist())) > 5
    assert found.ids.tolist() == expected.tolist()


def test_the_reasoner_is_in_evaluation_mode_meanwhile_and_as_before_afterwards(make_reasoner, make_clip):
    """Under gradient checkpointing a model in training mode drops its cache, and completions would be wrong."""
    plain, checkpointing = make_reasoner(), make_reasoner(gradient_checkpointing=True)
    checkpointing.train()
    encoded = plain.encode(plain.prepare(make_clip()))
    sampling = Sampling(max_new_tokens=8)
    assert all(
        map(same, rollout(plain, encoded, keys(4), sampling), rollout(checkpointing, encoded, keys(4), sampling))
    )
    assert checkpointing.language_model.training


def test_evaluation_mode_restores_every_submodule():
    parts = torch.nn.Sequential(torch.nn.Dropout(), torch.nn.Dropout())
    parts[1].eval()
    with evaluation_mode(parts):
        assert not any(part.training for part in parts.modules())
    assert [part.training for part in (parts, *parts)] == [True, True, False]


def test_nothing_carries_a_gradient(make_reasoner, make_clip):
    reasoner = make_reasoner()
    completion = rollout(reasoner, reasoner.encode(reasoner.prepare(make_clip())), keys(1), Sampling(max_new_tokens=2))
    assert not completion[0].logprobs.requires_grad


def test_the_plain_engine_samples_group_after_group(make_reasoner, make_clip):
    reasoner = make_reasoner()
    encoded = [reasoner.encode(reasoner.prepare(make_clip(name))) for name in ("a", "b")]
    sampling = Sampling(max_new_tokens=6)
    groups = PlainEngine().sample(reasoner, [SampleRequest(e, keys(3)) for e in encoded], sampling)
    for prompt, group in zip(encoded, groups, strict=True):
        assert all(map(same, group, rollout(reasoner, prompt, keys(3), sampling)))


def test_position_of_the_completion_matters(make_reasoner, make_clip):
    """Negative control: shifted M-RoPE positions give other log-probabilities."""
    reasoner = make_reasoner(gain=3.0)
    encoded = reasoner.encode(reasoner.prepare(make_clip()))
    shifted = replace(encoded, next_position=encoded.next_position + 5)
    pair = [rollout(reasoner, e, [0], Sampling(max_new_tokens=4, temperature=0.0))[0] for e in (encoded, shifted)]
    assert (pair[0].logprobs[:1] - pair[1].logprobs[:1]).abs().max() < 1e-6
    assert (pair[0].logprobs[1:2] - pair[1].logprobs[1:2]).abs().max() > 1e-3
