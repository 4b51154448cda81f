from dataclasses import replace

import pytest
import torch

from grpo.logprobs import pad_completions, token_logprobs
from grpo.noise import noise_key
from grpo.rollout import rollout
from grpo.sampling import Sampling
from models.reasoner import Reasoner

LENGTHS = (3, 9, 1, 6)


def random_completions(seed: int = 0) -> list[torch.Tensor]:
    """Any tokens at all, media placeholders and end tokens among them."""
    generator = torch.Generator().manual_seed(seed)
    rows = [torch.randint(0, 280, (length,), generator=generator) for length in LENGTHS]
    rows[1][:4] = torch.tensor([272, 273, 274, 275])
    return rows


def hugging_face_logprobs(reasoner: Reasoner, prompt, completion: torch.Tensor, temperature: float) -> torch.Tensor:
    """The thinker's own forward on the whole sequence, with the processor's outputs as they are."""
    ids = torch.cat([prompt.input_ids[0], completion])[None]
    logits = reasoner.thinker(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        **prompt.features,
        use_audio_in_video=prompt.has_audio,
        use_cache=False,
    ).logits
    predicting = logits[0, prompt.input_ids.shape[1] - 1 : -1] / temperature
    return torch.log_softmax(predicting, dim=-1).gather(-1, completion[:, None])[:, 0]


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_scores_are_those_remembered_by_the_sampler(make_reasoner, make_clip, monkeypatch, temperature):
    monkeypatch.setattr(Reasoner, "end_of_turn_ids", property(lambda self: tuple(range(0, 320, 16))))
    reasoner = make_reasoner(gain=3.0)
    encoded = reasoner.encode(reasoner.prepare(make_clip()))
    reasoner = reasoner.double()  # in single precision, cached and uncached passes differ by more on some processors
    encoded = replace(encoded, embeddings=encoded.embeddings.double())
    names = [noise_key(seed=0, rollout_step=0, sample_id="clip", index=index) for index in range(8)]
    found = rollout(reasoner, encoded, names, Sampling(max_new_tokens=24, temperature=temperature, top_p=0.9))
    scores = token_logprobs(reasoner, encoded, [completion.ids for completion in found], temperature=temperature)
    for row, completion in zip(scores.logprobs, found, strict=True):
        torch.testing.assert_close(row[: len(completion.ids)], completion.logprobs, atol=1e-6, rtol=0)


@pytest.mark.parametrize("has_audio", [True, False])
def test_scores_are_those_of_the_whole_model_on_the_whole_sequence(make_reasoner, make_clip, has_audio):
    reasoner = make_reasoner(gain=3.0)
    prompt = reasoner.prepare(make_clip(has_audio=has_audio))
    completions = [row.remainder(256) for row in random_completions()]  # a sampled placeholder would ask for media
    scores = token_logprobs(reasoner, reasoner.encode(prompt), completions, temperature=0.7)
    for row, completion in zip(scores.logprobs, completions, strict=True):
        expected = hugging_face_logprobs(reasoner, prompt, completion, 0.7)
        torch.testing.assert_close(row[: len(completion)], expected, atol=1e-5, rtol=0)
    assert (scores.logprobs[~scores.mask] == 0).all()


def adapter_gradients(reasoner: Reasoner, value: torch.Tensor) -> dict[str, torch.Tensor]:
    reasoner.zero_grad()
    value.backward()
    return {name: p.grad.clone() for name, p in reasoner.named_parameters() if p.requires_grad}


def test_gradients_are_those_of_the_whole_model(make_reasoner, make_clip):
    reasoner = make_reasoner(gain=3.0)
    prompt = reasoner.prepare(make_clip())
    completions = [row.remainder(256) for row in random_completions()]
    scores = token_logprobs(reasoner, reasoner.encode(prompt), completions, temperature=1.0)
    found = adapter_gradients(reasoner, scores.logprobs.sum())
    whole = sum(hugging_face_logprobs(reasoner, prompt, completion, 1.0).sum() for completion in completions)
    expected = adapter_gradients(reasoner, whole)
    assert len(found) == 2 * 7 * 2
    for name, gradient in expected.items():
        assert (found[name] - gradient).norm() <= 1e-5 * gradient.norm(), name


def test_gradient_checkpointing_changes_nothing(make_reasoner, make_clip):
    completions, results = random_completions(), []
    for is_checkpointing in (False, True):
        reasoner = make_reasoner(gain=3.0, gradient_checkpointing=is_checkpointing).train()
        encoded = reasoner.encode(reasoner.prepare(make_clip()))
        scores = token_logprobs(reasoner, encoded, completions, temperature=1.0)
        results.append((scores.logprobs.detach(), adapter_gradients(reasoner, scores.logprobs.sum())))
    torch.testing.assert_close(results[0][0], results[1][0])
    for name, gradient in results[0][1].items():
        torch.testing.assert_close(gradient, results[1][1][name])


def test_rows_do_not_see_each_other(make_reasoner, make_clip):
    """Scored alone or padded beside a longer one; sampled media placeholders are ordinary tokens."""
    reasoner = make_reasoner()
    encoded = reasoner.encode(reasoner.prepare(make_clip()))
    together = token_logprobs(reasoner, encoded, random_completions(), temperature=1.0)
    for row, entropy, completion in zip(together.logprobs, together.entropy, random_completions(), strict=True):
        alone = token_logprobs(reasoner, encoded, [completion], temperature=1.0)
        torch.testing.assert_close(row[: len(completion)], alone.logprobs[0], atol=1e-5, rtol=0)
        torch.testing.assert_close(entropy[: len(completion)], alone.entropy[0], atol=1e-5, rtol=0)


def test_entropy_is_that_of_the_scaled_distribution(make_reasoner, make_clip):
    """The first token's distribution, taken from the thinker's own forward on the prompt alone."""
    reasoner = make_reasoner(gain=3.0)
    prompt = reasoner.prepare(make_clip())
    scores = token_logprobs(reasoner, reasoner.encode(prompt), [torch.tensor([5])], temperature=0.5)
    logits = reasoner.thinker(
        input_ids=prompt.input_ids,
        attention_mask=torch.ones_like(prompt.input_ids),
        **prompt.features,
        use_audio_in_video=True,
    ).logits[0, -1]
    expected = torch.distributions.Categorical(logits=logits / 0.5).entropy()
    torch.testing.assert_close(scores.entropy[0, 0], expected, atol=1e-5, rtol=1e-5)
    assert not scores.entropy.requires_grad


def test_the_reference_is_the_base_model_without_the_adapter(make_reasoner, make_clip):
    trained, fresh = make_reasoner(adapter_scale=0.2), make_reasoner(adapter_scale=0.0)
    encoded = trained.encode(trained.prepare(make_clip()))
    with trained.reference(), torch.no_grad():
        reference = token_logprobs(trained, encoded, random_completions(), temperature=1.0).logprobs
    policy = token_logprobs(trained, encoded, random_completions(), temperature=1.0).logprobs
    base = token_logprobs(fresh, encoded, random_completions(), temperature=1.0).logprobs
    torch.testing.assert_close(reference, base.detach())
    assert (policy - reference).abs().max() > 1e-3


def test_padding():
    ids, mask = pad_completions([torch.tensor([5, 6, 7]), torch.tensor([8])], pad_id=0)
    assert ids.tolist() == [[5, 6, 7], [8, 0, 0]]
    assert mask.tolist() == [[True, True, True], [True, False, False]]
