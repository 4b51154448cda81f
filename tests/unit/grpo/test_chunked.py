"""Log-probabilities in chunks, against log_softmax over everything."""

import pytest
import torch
from small_models import random_prompt, random_reasoner
from torch.utils._python_dispatch import TorchDispatchMode

from grpo.chunked import chosen_logprobs
from grpo.engine import ScoreRequest
from grpo.shared_engine import SharedEngine


class LargestTensor(TorchDispatchMode):
    """Remembers the size of the largest tensor that any operation returned.

    With `axis` only of tensors of which one axis has so many entries, and with `besides` not of that one and its views.
    """

    def __init__(self, *, axis: int | None = None, besides: torch.Tensor | None = None) -> None:
        super().__init__()
        self.elements, self.axis, self.besides = 0, axis, besides

    def counts(self, tensor: torch.Tensor) -> bool:
        is_weight = (
            self.besides is not None
            and tensor.untyped_storage().data_ptr() == self.besides.untyped_storage().data_ptr()
        )
        return not is_weight and (self.axis is None or self.axis in tensor.shape)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(tensor, torch.Tensor) and self.counts(tensor):
                self.elements = max(self.elements, tensor.numel())
        return result


def inputs(tokens: int = 37, vocabulary: int = 50) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(tokens, 8, generator=generator).requires_grad_()
    weight = torch.randn(vocabulary, 8, generator=generator)
    return hidden, weight, torch.randint(0, vocabulary, (tokens,), generator=generator)


@pytest.mark.parametrize("chunk", [1, 7, 37, 1000, None])
def test_values_and_gradient(chunk):
    hidden, weight, targets = inputs()
    logprobs, entropy = chosen_logprobs(hidden, weight, targets, temperature=0.7, chunk=chunk)
    expected = torch.distributions.Categorical(logits=hidden @ weight.T / 0.7)
    torch.testing.assert_close(logprobs, expected.log_prob(targets), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(entropy, expected.entropy(), atol=1e-5, rtol=1e-5)
    assert not entropy.requires_grad
    slopes = torch.linspace(-2, 3, len(targets))
    found = torch.autograd.grad(logprobs, hidden, slopes)[0]
    torch.testing.assert_close(found, torch.autograd.grad(expected.log_prob(targets), hidden, slopes)[0])


def test_no_tensor_is_larger_than_a_chunk_of_logits():
    """500 tokens of 300 entries are 150 000 logits; in chunks of 20 tokens no tensor has more than 6 000."""
    hidden, weight, targets = inputs(tokens=500, vocabulary=300)
    with LargestTensor() as seen:
        logprobs, _ = chosen_logprobs(hidden, weight, targets, temperature=1.0, chunk=20)
        logprobs.sum().backward()
    assert seen.elements == 20 * 300


@pytest.mark.parametrize("is_checkpointing", [False, True])
def test_an_update_holds_no_more_logits_than_a_chunk(monkeypatch, is_checkpointing):
    """28 tokens of two prompts, from the embeddings to the gradients of the adapter, three tokens at a time."""
    reasoner = random_reasoner(gradient_checkpointing=is_checkpointing).train()
    weight = reasoner.lm_head.weight
    monkeypatch.setattr("grpo.chunked.CHUNK_ELEMENTS", 3 * len(weight))
    completions = [torch.arange(count) for count in (9, 4, 1)]
    requests = [ScoreRequest(random_prompt(reasoner, length), completions) for length in (12, 7)]
    with LargestTensor(axis=len(weight), besides=weight) as seen:
        scores = SharedEngine().score(reasoner, requests, temperature=0.7)
        scores.logprobs.sum().backward()
    assert scores.mask.sum() == 28
    assert seen.elements == 3 * len(weight)


def test_without_gradient_nothing_is_kept_for_one():
    hidden, weight, targets = inputs()
    with torch.no_grad():
        logprobs, _ = chosen_logprobs(hidden, weight, targets, temperature=1.0)
    assert not logprobs.requires_grad


def test_mixed_precision_computes_in_half_and_answers_in_float32():
    hidden, weight, targets = inputs()
    with torch.autocast("cpu", torch.bfloat16):
        logprobs, entropy = chosen_logprobs(hidden, weight, targets, temperature=1.0)
    logprobs.sum().backward()
    expected = torch.log_softmax((hidden.bfloat16() @ weight.bfloat16().T).float(), dim=-1)
    assert logprobs.dtype == entropy.dtype == hidden.grad.dtype == torch.float32
    torch.testing.assert_close(logprobs, expected.gather(-1, targets[:, None])[:, 0])


def test_a_trained_head_is_refused():
    hidden, weight, targets = inputs()
    with pytest.raises(ValueError, match="expected a frozen output head"):
        chosen_logprobs(hidden, weight.requires_grad_(), targets, temperature=1.0)
