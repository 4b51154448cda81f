"""Training with either engine, in portions of any size."""

from dataclasses import replace

import pytest
import torch
from doubles import adapter, fit, module_of
from peft.tuners.lora import LoraLayer

from datamodules.errors import RunError
from grpo.logprobs import token_logprobs

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def clips(make_clip):
    return [make_clip("a"), make_clip("b", has_audio=False)]


@pytest.mark.parametrize("engine", ["shared", "plain"])
@pytest.mark.parametrize("loss_type", ["grpo", "dapo", "dr_grpo"])
def test_micro_batches_never_change_the_result(make_reasoner, clips, loss_type, engine):
    """One completion at a time, some, and everything together."""
    results = []
    for tokens in (1, 150, 10_000):
        module = module_of(
            make_reasoner(), micro_batch_tokens=tokens, loss_type=loss_type, updates_per_rollout=2, engine=engine
        )
        before = adapter(module)
        watch = fit(module, clips, 2)
        results.append((adapter(module), watch.metrics[-1]))
    assert max((results[0][0][name] - value).abs().max() for name, value in before.items()) > 1e-3
    for weights, metrics in results[1:]:
        for name, value in results[0][0].items():
            torch.testing.assert_close(weights[name], value, rtol=0, atol=1e-6)
        for name in ("loss", "kl", "entropy", "grad_norm"):
            assert metrics[name] == pytest.approx(results[0][1][name], rel=1e-4, abs=1e-6)


@pytest.mark.parametrize(
    "settings",
    [
        {"beta": 0.0},
        {"beta": 0.2, "updates_per_rollout": 2, "loss_type": "dapo"},
        {"beta": 0.1, "importance_level": "sequence", "updates_per_rollout": 2, "gradient_checkpointing": True},
    ],
)
def test_the_shared_engine_trains_what_the_plain_one_trains(make_reasoner, clips, settings):
    """Weights, losses and completions of two rollouts; the engine checks itself on the first."""
    results = []
    for engine in ("plain", "shared"):
        own = dict(settings)
        reasoner = make_reasoner(gradient_checkpointing=own.pop("gradient_checkpointing", False))
        module = module_of(reasoner, engine=engine, **own)
        watch = fit(module, clips, 2 * own.get("updates_per_rollout", 1))
        ids = [rollout.completion_ids.tolist() for groups in watch.groups for g in groups for rollout in g.rollouts]
        results.append((adapter(module), watch.metrics, ids))
    (plain, plain_metrics, plain_ids), (shared, shared_metrics, shared_ids) = results
    assert plain_ids == shared_ids
    for name, value in plain.items():
        torch.testing.assert_close(shared[name], value, rtol=1e-4, atol=1e-5)
    for left, right in zip(plain_metrics, shared_metrics, strict=True):
        for name in ("loss", "entropy", "grad_norm", "reward", "clip_ratio/region_mean"):
            assert right[name] == pytest.approx(left[name], rel=1e-4, abs=1e-6)


@pytest.mark.parametrize(("every", "checked"), [(0, ["a", "b"]), (2, ["a", "b", "a"])])
def test_the_engine_is_compared_with_the_plain_one(make_reasoner, clips, monkeypatch, every, checked):
    """In the first two of three rollouts, and in every second one when asked; prompts take turns."""
    calls = []
    watched = lambda *a, **k: calls.append(a[1].clip_id) or token_logprobs(*a, **k)  # noqa: E731
    monkeypatch.setattr("grpo.self_check.token_logprobs", watched)
    fit(module_of(make_reasoner(), check_every=every, beta=0.0), clips, 3)
    assert calls == [name for name in checked for _ in range(4)]


def test_sampling_without_the_adapter_stops_the_run_once_there_is_something_in_it(make_reasoner, clips, monkeypatch):
    """In the first rollout a fresh adapter changes nothing, so nothing is wrong yet."""
    module = module_of(make_reasoner(adapter_scale=0.0))
    sample = module.engine.sample

    def without_adapter(reasoner, *rest):
        with reasoner.reference():
            return sample(reasoner, *rest)

    monkeypatch.setattr(module.engine, "sample", without_adapter)
    with pytest.raises(RunError, match="when sampled and when scored"):
        fit(module, clips, 2)
    assert module.self_check.checked == 1


def test_an_engine_that_is_wrong_stops_the_run(make_reasoner, clips, monkeypatch):
    module = module_of(make_reasoner())
    score = module.engine.score
    wrong = lambda *a, **k: replace(s := score(*a, **k), logprobs=s.logprobs * 1.01)  # noqa: E731
    monkeypatch.setattr(module.engine, "score", wrong)
    with pytest.raises(RunError, match=r"clip a .*Train with --model\.grpo\.engine plain"):
        fit(module, clips, 1)


@pytest.mark.parametrize("is_reference", [False, True])
def test_an_engine_that_is_wrong_where_prompts_share_a_row_stops_the_run(
    make_reasoner, clips, monkeypatch, is_reference
):
    """For the last prompt of the row alone, under the policy or under the reference, in the first rollout."""
    module = module_of(make_reasoner(), beta=0.1)
    score = module.engine.score

    def wrong(reasoner, requests, *, temperature):
        scores = score(reasoner, requests, temperature=temperature)
        adapters = [layer for layer in reasoner.modules() if isinstance(layer, LoraLayer)]
        if len(requests) > 1 and adapters[0].disable_adapters is is_reference:
            scores.logprobs.detach()[-4:] += 0.01
        return scores

    monkeypatch.setattr(module.engine, "score", wrong)
    kind = "of the reference scored together and one by one" if is_reference else "when sampled and when scored"
    with pytest.raises(RunError, match=rf"{kind}.* clip b "):
        fit(module, clips, 1)


def test_the_check_keeps_to_the_token_budget(make_reasoner, clips, monkeypatch):
    """Groups of four in portions of at most 66 tokens, which one group exceeds: what is checked is what is trained."""
    module, sizes = module_of(make_reasoner(), micro_batch_tokens=66), {True: [], False: []}
    score = module.engine.score

    def watched(reasoner, requests, *, temperature):
        tokens = [
            module.engine.tokens(r.encoded.embeddings.shape[1], [len(ids) for ids in r.completion_ids])
            for r in requests
        ]
        sizes[torch.is_grad_enabled()].append(sum(tokens))
        return score(reasoner, requests, temperature=temperature)

    monkeypatch.setattr(module.engine, "score", watched)
    fit(module, clips, 1)
    assert len(sizes[True]) > 1
    assert set(sizes[False]) == set(sizes[True])
    assert max(sizes[False]) <= 66
