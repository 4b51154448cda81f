import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from grpo.losses import TokenBatch, UpdateSize, importance_ratio, kl_k3, policy_loss, token_weights
from grpo.settings import GRPOSettings
from grpo.stats import LossStats, loss_metrics


def make_batch(ratios, advantages, lengths=None, **more) -> TokenBatch:
    """A batch with the given probability ratios; sampling probability 0.5 everywhere."""
    ratios = torch.tensor(ratios, dtype=torch.float64)
    sampling = torch.full_like(ratios, math.log(0.5))
    lengths = torch.tensor(lengths or [ratios.shape[1]] * len(ratios))
    return TokenBatch(
        logprobs=(sampling + ratios.log()).requires_grad_(),
        sampling_logprobs=sampling,
        advantages=torch.tensor(advantages, dtype=torch.float64),
        mask=torch.arange(ratios.shape[1]) < lengths[:, None],
        **more,
    )


def whole(batch: TokenBatch, max_new_tokens: int = 10) -> UpdateSize:
    tokens = float(batch.mask.sum())
    return UpdateSize(len(batch.mask), tokens, tokens, max_new_tokens)


def loss_of(batch: TokenBatch, **settings) -> float:
    return policy_loss(batch, GRPOSettings(**{"beta": 0.0} | settings), whole(batch)).loss.item()


@pytest.mark.parametrize(
    ("loss_type", "expected"),
    [
        ("grpo", -(2.0 * 1 + -1.0 * 1) / 2),
        ("bnpo", -(2.0 * 1 + -1.0 * 3) / 4),
        ("dapo", -(2.0 * 1 + -1.0 * 3) / 4),
        ("dr_grpo", -(2.0 * 1 + -1.0 * 3) / (2 * 10)),
    ],
)
def test_averaging_by_hand(loss_type, expected):
    """Ratio 1; a completion of 1 token with advantage 2, one of 3 tokens with -1; at most 10 tokens are possible.

    Per completion: -(2 - 1) / 2. Per token: -(2 - 3) / 4. By the longest possible completion: -(2 - 3) / 20.
    """
    batch = make_batch([[1, 1, 1], [1, 1, 1]], [2.0, -1.0], lengths=[1, 3])
    assert loss_of(batch, loss_type=loss_type) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("ratio", "advantage", "expected", "has_gradient"),
    [
        (1.5, 1.0, -1.3, False),  # better than the group and already much more probable: clipped at 1 + 0.3
        (1.5, -1.0, 1.5, True),  # worse than the group: being more probable is pulled back
        (0.5, 1.0, -0.5, True),  # better and less probable: pulled up
        (0.5, -1.0, 0.8, False),  # worse and already much less probable: clipped at 1 - 0.2
        (1.25, 1.0, -1.25, True),  # inside the upper clip
    ],
)
def test_clipping_by_hand(ratio, advantage, expected, has_gradient):
    batch = make_batch([[ratio]], [advantage])
    output = policy_loss(batch, GRPOSettings(beta=0.0, epsilon=0.2, epsilon_high=0.3), whole(batch))
    output.loss.backward()
    assert output.loss.item() == pytest.approx(expected)
    assert (batch.logprobs.grad.item() != 0) == has_gradient


def test_sequence_ratio_is_the_geometric_mean_of_the_trained_tokens():
    """Ratios 2 and 0.5 cancel; 2, 2 and an untrained 100 give 2."""
    batch = make_batch([[2, 0.5, 1], [2, 2, 100]], [1.0, 1.0], lengths=[2, 2])
    ratio = importance_ratio(batch, GRPOSettings(importance_level="sequence"))
    torch.testing.assert_close(ratio, torch.tensor([[1.0], [2.0]], dtype=torch.float64))


def test_sequence_level_clips_whole_completions():
    """The second completion's ratio 2 is clipped at 1.2, so the loss is -(1 + 1.2) / 2; clipped share 1 of 2."""
    batch = make_batch([[2, 0.5], [2, 2]], [1.0, 1.0])
    settings = GRPOSettings(beta=0.0, importance_level="sequence")
    output = policy_loss(batch, settings, whole(batch))
    assert output.loss.item() == pytest.approx(-1.1)
    metrics = loss_metrics(output.stats.pack()[None], has_kl=False)
    assert metrics["clip_ratio/high_mean"] == 0.5


def test_k3_by_hand():
    """Policy probability 0.5, reference 0.25: 0.5 - log 0.5 - 1 = 0.193147."""
    policy, reference = torch.tensor([[math.log(0.5)]]), torch.tensor([[math.log(0.25)]])
    assert kl_k3(policy, reference, torch.tensor([[True]])).item() == pytest.approx(0.1931472, abs=1e-6)


def test_k3_is_unbiased():
    """Its mean over a policy (0.5, 0.3, 0.2) is the closed-form KL to (0.2, 0.3, 0.5): 0.3 log 2.5."""
    policy, reference = torch.tensor([0.5, 0.3, 0.2]).log(), torch.tensor([0.2, 0.3, 0.5]).log()
    estimate = kl_k3(policy[None], reference[None], torch.ones(1, 3, dtype=torch.bool))[0]
    assert (policy.exp() * estimate).sum().item() == pytest.approx(0.3 * math.log(2.5), abs=1e-6)


def test_kl_penalty_is_added_with_its_weight():
    """Advantage 0 leaves beta k3 alone: 0.1 x 0.193147."""
    reference = torch.full((1, 1), math.log(0.25), dtype=torch.float64)
    batch = make_batch([[1.0]], [0.0], reference_logprobs=reference)
    assert loss_of(batch, beta=0.1) == pytest.approx(0.01931472)


def test_gradient_of_the_kl_penalty():
    """d k3 / d logp = 1 - q / p = 1 - 0.5 for reference probability 0.25 against 0.5."""
    reference = torch.full((1, 1), math.log(0.25), dtype=torch.float64)
    batch = make_batch([[1.0]], [0.0], reference_logprobs=reference)
    policy_loss(batch, GRPOSettings(beta=1.0), whole(batch)).loss.backward()
    assert batch.logprobs.grad.item() == pytest.approx(0.5)


def test_beta_without_reference_is_an_error():
    batch = make_batch([[1.0]], [0.0])
    with pytest.raises(ValueError, match=r"beta is 0\.04, so reference_logprobs are needed; found None"):
        policy_loss(batch, GRPOSettings(beta=0.04), whole(batch))


def test_padding_never_matters():
    """Garbage behind the mask, infinities included, changes neither the loss nor any gradient."""
    clean = make_batch([[1.1, 0.9, 1, 1]], [1.0], lengths=[2], reference_logprobs=torch.zeros(1, 4).double())
    dirty_logprobs = clean.logprobs.detach().clone()
    dirty_logprobs[:, 2:] = torch.tensor([float("-inf"), 50.0])
    dirty = TokenBatch(
        dirty_logprobs.requires_grad_(), clean.sampling_logprobs, clean.advantages, clean.mask, clean.reference_logprobs
    )
    settings = GRPOSettings(beta=0.1)
    losses = [policy_loss(batch, settings, whole(batch)).loss for batch in (clean, dirty)]
    for loss in losses:
        loss.backward()
    assert losses[0].item() == losses[1].item()
    assert torch.equal(clean.logprobs.grad, dirty.logprobs.grad)


@pytest.mark.parametrize("loss_type", ["grpo", "bnpo", "dapo", "dr_grpo"])
def test_a_completion_without_trained_tokens_gives_zero_and_no_nan(loss_type):
    batch = make_batch([[1.5, 1.5]], [1.0], lengths=[0])
    output = policy_loss(batch, GRPOSettings(beta=0.0, loss_type=loss_type), whole(batch))
    output.loss.backward()
    assert output.loss.item() == 0
    assert batch.logprobs.grad.abs().sum() == 0
    assert all(math.isfinite(value) for value in loss_metrics(output.stats.pack()[None], has_kl=True).values())


def random_batch(rows: int, tokens: int, seed: int) -> TokenBatch:
    generator = torch.Generator().manual_seed(seed)

    def normal(*size: int) -> torch.Tensor:
        return torch.randn(*size, generator=generator, dtype=torch.float64)

    lengths = torch.randint(0, tokens + 1, (rows,), generator=generator)
    logprobs = normal(rows, tokens) - 3
    return TokenBatch(
        logprobs=logprobs.requires_grad_(),
        sampling_logprobs=logprobs.detach() + 0.4 * normal(rows, tokens),
        advantages=normal(rows),
        mask=torch.arange(tokens) < lengths[:, None],
        reference_logprobs=logprobs.detach() + 0.2 * normal(rows, tokens),
        entropy=normal(rows, tokens).abs(),
    )


def rows_of(batch: TokenBatch, rows: slice) -> TokenBatch:
    return TokenBatch(
        batch.logprobs[rows],
        batch.sampling_logprobs[rows],
        batch.advantages[rows],
        batch.mask[rows],
        batch.reference_logprobs[rows],
        batch.entropy[rows],
    )


options = st.fixed_dictionaries(
    {
        "loss_type": st.sampled_from(["grpo", "bnpo", "dapo", "dr_grpo"]),
        "importance_level": st.sampled_from(["token", "sequence"]),
        "beta": st.sampled_from([0.0, 0.04]),
    }
)


@given(options, st.integers(0, 1000), st.integers(1, 6), st.integers(1, 6))
def test_micro_batches_of_any_size_add_up_to_the_whole(settings, seed, rows, micro):
    settings = GRPOSettings(**settings)
    batch, again = random_batch(rows, 5, seed), random_batch(rows, 5, seed)
    size = whole(batch)
    expected = policy_loss(batch, settings, size)
    expected.loss.backward()
    parts = [policy_loss(rows_of(again, slice(at, at + micro)), settings, size) for at in range(0, rows, micro)]
    sum(part.loss for part in parts).backward()
    torch.testing.assert_close(again.logprobs.grad, batch.logprobs.grad)
    stats = parts[0].stats
    for part in parts[1:]:
        stats = stats + part.stats
    torch.testing.assert_close(stats.pack(), expected.stats.pack())


@given(st.sampled_from(["grpo", "bnpo", "dapo"]), st.integers(0, 1000))
def test_weights_of_an_update_sum_to_one(loss_type, seed):
    mask = random_batch(4, 6, seed).mask.double()
    mask[:, 0] = 1
    tokens = float(mask.sum())
    assert token_weights(mask, loss_type, UpdateSize(4, tokens, tokens, 6)).sum().item() == pytest.approx(1)


def test_dapo_weighs_tokens_of_all_processes_alike():
    """2 tokens here and 6 there, 4 per process: averaged over both processes each token weighs 1 / 8."""
    here, there = torch.ones(1, 2), torch.ones(1, 6)
    weights = [token_weights(m, "dapo", UpdateSize(1, float(m.sum()), 4.0, 10)) / 2 for m in (here, there)]
    assert torch.cat(weights, dim=1).tolist() == [[0.125] * 8]


@given(st.integers(0, 1000), st.sampled_from(["token", "sequence"]))
def test_gradient_on_policy_is_the_advantage_times_the_weight(seed, level):
    """At ratio 1 nothing is clipped and d loss / d logp = -weight x advantage. A sequence ratio spreads a
    completion's weight evenly over its tokens, which per-completion averaging does anyway."""
    batch = random_batch(3, 4, seed)
    on_policy = TokenBatch(batch.logprobs, batch.logprobs.detach(), batch.advantages, batch.mask)
    policy_loss(on_policy, GRPOSettings(beta=0.0, importance_level=level), whole(on_policy)).loss.backward()
    expected = -token_weights(batch.mask.double(), "grpo", whole(batch)) * batch.advantages[:, None]
    torch.testing.assert_close(batch.logprobs.grad, expected)


def test_loss_gradient_is_the_policy_gradient_of_an_enumerated_game():
    """Two tokens out of three each; the gradient of E[reward] comes from summing over all 9 outcomes.

    First-token probabilities (2, 1, 1) / 4, second-token ones (2, 1, 1) / 4 whatever the first. Sixteen completions in
    which each outcome appears exactly as often as it is probable stand for the distribution without sampling error, so
    the loss ("dr_grpo" with length 1: a plain sum over tokens, mean over completions) must have exactly the negative
    gradient. Subtracting the mean reward is allowed, because E[grad log p] = 0.
    """
    reward = torch.tensor([[1.0, 0.0, -2.0], [0.5, 3.0, 0.0], [0.0, 1.0, 4.0]], dtype=torch.float64)
    first = torch.tensor([2.0, 1.0, 1.0], dtype=torch.float64).log().requires_grad_()
    second = torch.tensor([2.0, 1.0, 1.0], dtype=torch.float64).log().repeat(3, 1).requires_grad_()

    probability = torch.softmax(first, 0)[:, None] * torch.softmax(second, 1)
    expected = torch.autograd.grad((probability * reward).sum(), [first, second])

    pairs = [(a, b) for a in range(3) for b in range(3) for _ in range(round(probability[a, b].item() * 16))]
    a, b = torch.tensor(pairs).T
    assert len(pairs) == 16
    logprobs = torch.stack([torch.log_softmax(first, 0)[a], torch.log_softmax(second, 1)[a, b]], dim=1)
    advantages = reward[a, b] - reward[a, b].mean()
    batch = TokenBatch(logprobs, logprobs.detach(), advantages, torch.ones(16, 2, dtype=torch.bool))
    loss = policy_loss(batch, GRPOSettings(beta=0.0, loss_type="dr_grpo"), UpdateSize(16, 32.0, 32.0, 1)).loss
    for found, wanted in zip(torch.autograd.grad(loss, [first, second]), expected, strict=True):
        torch.testing.assert_close(-found, wanted, rtol=1e-6, atol=1e-9)


def stats(**values: float) -> LossStats:
    names = ("loss", "tokens", "kl", "entropy", "ratios", "clipped_low", "clipped_high")
    return LossStats(*(torch.tensor(values.get(name, 0.0)) for name in names))


def test_metrics_by_hand():
    """Two updates of 4 and 12 tokens. KL (2 + 6) / 16; low clips 1 of 4 and 0 of 12: mean 1 / 16, lowest 0; high
    clips 0 of 4 and 6 of 12: mean 6 / 16, highest one half."""
    updates = [
        stats(loss=1.0, tokens=4, kl=2.0, entropy=4.0, ratios=4, clipped_low=1),
        stats(loss=2.0, tokens=12, kl=6.0, entropy=4.0, ratios=12, clipped_high=6),
    ]
    assert loss_metrics(torch.stack([update.pack() for update in updates]), has_kl=True) == {
        "loss": 1.5,
        "kl": 0.5,
        "entropy": 0.5,
        "clip_ratio/low_mean": 0.0625,
        "clip_ratio/low_min": 0.0,
        "clip_ratio/high_mean": 0.375,
        "clip_ratio/high_max": 0.5,
        "clip_ratio/region_mean": 0.4375,
    }


def test_no_kl_is_reported_without_a_reference():
    assert "kl" not in loss_metrics(stats(loss=1.0, tokens=1).pack()[None], has_kl=False)


def test_counted_clips_by_hand():
    """Advantages 1 and -1, ratios 1.5, 0.5, 1 each: one clipped above for the first, one below for the second."""
    batch = make_batch([[1.5, 0.5, 1], [1.5, 0.5, 1]], [1.0, -1.0])
    found = policy_loss(batch, GRPOSettings(beta=0.0), whole(batch)).stats
    assert (found.clipped_high.item(), found.clipped_low.item(), found.ratios.item()) == (1, 1, 6)
