import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from datamodules.errors import ConfigError
from grpo.noise import gumbel_noise, noise_key
from grpo.sampling import Sampling, draw_tokens, nucleus


def draw(logits: list[float], count: int, **settings: float) -> tuple[torch.Tensor, torch.Tensor]:
    keys = torch.tensor([noise_key(seed=0, rollout_step=0, sample_id="clip", index=index) for index in range(count)])
    rows = torch.tensor(logits).expand(count, -1)
    return draw_tokens(rows, keys, torch.zeros(count, dtype=torch.long), Sampling(**settings))


PROBABILITIES = [0.4, 0.3, 0.2, 0.1]
LOGITS = [math.log(p) for p in PROBABILITIES]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_follow_the_temperature_scaled_distribution(temperature):
    ids, _ = draw(LOGITS, 20_000, temperature=temperature)
    expected = np.array(PROBABILITIES) ** (1 / temperature)
    observed = np.bincount(ids, minlength=4)
    assert stats.chisquare(observed, expected / expected.sum() * 20_000).pvalue > 0.001


def test_top_p_restricts_what_is_drawn_and_not_what_is_remembered():
    """0.4 and 0.3 reach 0.65, so only these two are drawn, in the ratio 4 to 3; the log-probabilities stay those of
    the whole distribution, log 0.4 and log 0.3."""
    ids, logprobs = draw(LOGITS, 20_000, top_p=0.65)
    observed = np.bincount(ids, minlength=4)
    assert observed[2:].sum() == 0
    assert stats.chisquare(observed[:2], [20_000 * 4 / 7, 20_000 * 3 / 7]).pvalue > 0.001
    torch.testing.assert_close(logprobs, torch.tensor(LOGITS)[ids])


def test_logprobs_are_those_of_the_temperature_scaled_distribution():
    """At temperature 0.5 probabilities are squared: 0.16, 0.09, 0.04, 0.01 over 0.3."""
    ids, logprobs = draw(LOGITS, 100, temperature=0.5)
    torch.testing.assert_close(logprobs.exp(), (torch.tensor(PROBABILITIES) ** 2 / 0.3)[ids])


def test_greedy_takes_the_most_probable_token_and_its_logprob_at_temperature_one():
    ids, logprobs = draw([0.1, 2.0, -1.0], 5, temperature=0.0)
    assert ids.tolist() == [1] * 5
    torch.testing.assert_close(logprobs, torch.log_softmax(torch.tensor([0.1, 2.0, -1.0]), 0)[1].expand(5))


def test_nucleus_keeps_the_token_that_crosses_the_line():
    """Sums 0.4, 0.7, 0.9: to reach 0.6 the second is needed, to reach 0.8 the third."""
    row = torch.tensor([LOGITS])
    assert nucleus(row, 0.6).isfinite().tolist() == [[True, True, False, False]]
    assert nucleus(row, 0.8).isfinite().tolist() == [[True, True, True, False]]


def test_nucleus_keeps_one_token_however_small_top_p_is():
    assert nucleus(torch.tensor([LOGITS]), 1e-9).isfinite().tolist() == [[True, False, False, False]]


def test_nucleus_breaks_ties_by_the_lower_id():
    even = torch.full((1, 4), 0.25).log()
    assert nucleus(even, 0.5).isfinite().tolist() == [[True, True, False, False]]


@given(st.lists(st.floats(-5, 5, width=32), min_size=2, max_size=30), st.floats(0.01, 0.99))
def test_nucleus_is_the_smallest_set_that_reaches_top_p(logits, top_p):
    logprobs = torch.log_softmax(torch.tensor([logits]), dim=-1)
    kept = nucleus(logprobs, top_p).isfinite()
    probabilities = logprobs.double().exp()
    assert probabilities[kept].sum() >= top_p - 1e-5
    assert probabilities[kept].sum() - probabilities[kept].min() < top_p + 1e-5
    if not kept.all():
        assert probabilities[kept].min() >= probabilities[~kept].max()


@settings(max_examples=300)
@given(
    rows=st.integers(1, 4).flatmap(
        lambda count: st.lists(st.lists(st.integers(-12, 6), min_size=5, max_size=5), min_size=count, max_size=count)
    ),
    repeats=st.integers(1, 12),
    top_p=st.sampled_from([0.0005, 0.1, 0.25, 0.5, 0.75, 0.9, 0.999]) | st.floats(0.01, 0.99),
    seed=st.integers(0, 2**31),
)
def test_draws_are_those_from_the_sorted_nucleus(rows, repeats, top_p, seed):
    """Whole numbers as logits, each several times, so that ties stand inside, outside and on the edge."""
    logits = torch.tensor(rows, dtype=torch.float32).repeat(1, repeats)
    keys, positions = torch.arange(len(rows)) + seed, torch.arange(len(rows))
    ids, logprobs = draw_tokens(logits, keys, positions, Sampling(top_p=top_p))
    everything = torch.log_softmax(logits, dim=-1)
    noise = gumbel_noise(keys, positions, logits.shape[-1])
    expected = (nucleus(everything, top_p) + noise).argmax(dim=-1)
    assert torch.equal(ids, expected)
    assert torch.equal(logprobs, everything.gather(-1, expected[:, None]).squeeze(-1))


def test_only_draws_from_outside_are_sorted(monkeypatch):
    """0.4 and 0.3 reach 0.65, so three of ten draws fall outside."""
    counts = []
    monkeypatch.setattr("grpo.sampling.nucleus", lambda rows, p: counts.append(len(rows)) or nucleus(rows, p))
    ids, _ = draw(LOGITS, 2000, top_p=0.65)
    assert ids.max() == 1
    assert 500 < sum(counts) < 700
    draw([5.0, 0.0, 0.0, 0.0], 20, top_p=0.999)
    assert len(counts) == 1


def test_half_precision_logits_are_computed_on_in_float32():
    logits = torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.bfloat16)
    _, logprobs = draw_tokens(logits, torch.tensor([1]), torch.tensor([0]), Sampling())
    assert logprobs.dtype == torch.float32


def test_impossible_settings_are_refused_together():
    with pytest.raises(ConfigError, match=r"max_new_tokens is 0.*temperature is -1.*top_p is 0.*--model\.sampling"):
        Sampling(max_new_tokens=0, temperature=-1.0, top_p=0.0)
