import pytest
import torch
from doubles import (
    PLAN,
    Constant,
    LowTokens,
    NeedsBoxes,
    NeedsMasks,
    adapter,
    fit,
    loader,
    module_of,
    trainer_of,
)

from datamodules.errors import ConfigError, RewardError
from grpo import losses
from grpo.sampling import Sampling
from lightning_modules.optim import Schedule
from lightning_modules.phases import IDLE, STEP_PHASES
from models.reasoner import Reasoner
from rewards.base import Reward

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def clips(make_clip):
    return [make_clip("a"), make_clip("b", has_audio=False)]


@pytest.fixture
def speaks_plans(monkeypatch):
    """Every completion reads as the same plan, whatever its tokens are."""
    monkeypatch.setattr(Reasoner, "decode", lambda self, ids: PLAN)


def test_reward_rises_on_something_that_can_be_learned(make_reasoner, make_clip):
    """A random policy puts 64 of 320 tokens into the low ids, 0.2; thirty updates on one prompt double that."""
    module = module_of(
        make_reasoner(adapter_scale=0.0),
        group_size=12,
        beta=0.0,
        optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=2e-2),
    )
    watch = fit(module, [make_clip()], 30)
    rewards = [metrics["reward"] for metrics in watch.metrics]
    assert sum(rewards[:5]) / 5 < 0.3
    assert sum(rewards[-5:]) / 5 > 0.5


def test_a_resumed_run_goes_on_as_if_nothing_had_happened(make_reasoner, clips, tmp_path):
    """Four epochs at once, and two epochs, a checkpoint, a new process's worth of objects and two more: same bits.

    With dropout in the adapter, and with the global random state disturbed in between.
    """

    def fresh():
        optimizer = lambda parameters: torch.optim.AdamW(parameters, lr=1e-2)  # noqa: E731
        return module_of(make_reasoner(dropout=0.3), optimizer=optimizer, updates_per_rollout=2)

    whole, first, second = fresh(), fresh(), fresh()
    expected = fit(whole, clips, 8, max_epochs=4)
    saved = trainer_of(max_epochs=2)
    saved.fit(first, loader(clips))
    saved.save_checkpoint(tmp_path / "half.ckpt")
    assert first.rollout_step == 2
    torch.rand(17)
    trainer = trainer_of(max_epochs=4)
    trainer.fit(second, loader(clips), ckpt_path=tmp_path / "half.ckpt")
    assert second.num_tokens == whole.num_tokens > first.num_tokens
    for name, value in adapter(whole).items():
        assert torch.equal(value, adapter(second)[name]), name
    logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
    assert all(logged[name] == value for name, value in expected.metrics[-1].items() if not name.startswith("time/"))


def test_checkpoints_hold_the_adapter_and_plain_types_only(make_reasoner, clips, tmp_path):
    module = module_of(make_reasoner())
    trainer = trainer_of(max_steps=1)
    trainer.fit(module, loader(clips))
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    checkpoint = torch.load(tmp_path / "one.ckpt", weights_only=True)
    assert set(checkpoint["state_dict"]) == set(adapter(module))
    assert all("lora_" in name for name in checkpoint["state_dict"])
    assert checkpoint["num_tokens"] == module.num_tokens


def test_later_updates_on_the_same_rollout_have_another_ratio(make_reasoner, clips, monkeypatch):
    seen = []

    def spy(batch, settings):
        ratio = original(batch, settings)
        seen.append(float((ratio - 1).abs().max()))
        return ratio

    original = losses.importance_ratio
    monkeypatch.setattr(losses, "importance_ratio", spy)
    fit(module_of(make_reasoner(), updates_per_rollout=2), clips, 2)
    first, second = seen
    assert first < 1e-5
    assert second > 1e-3


def test_completions_do_not_depend_on_the_batch_that_a_clip_comes_in(make_reasoner, clips):
    together = fit(module_of(make_reasoner()), clips, 1).groups[0]
    alone = fit(module_of(make_reasoner()), clips[1:], 1, batch_size=1).groups[0]
    for left, right in zip(together[1].rollouts, alone[0].rollouts, strict=True):
        assert torch.equal(left.completion_ids, right.completion_ids)


def test_the_next_rollout_step_samples_afresh(make_reasoner, clips):
    watch = fit(module_of(make_reasoner(), rewards={"same": Constant()}, beta=0.0), clips[:1], 2)
    first, second = (groups[0].rollouts for groups in watch.groups)
    assert not any(torch.equal(a.completion_ids, b.completion_ids) for a, b in zip(first, second, strict=True))


def test_a_clip_that_a_step_asks_again_is_answered_afresh(make_reasoner, clips):
    """The first of the two groups is what the clip gets when it is alone; the second is no copy of it."""
    alone = fit(module_of(make_reasoner()), clips[:1], 1, batch_size=1).groups[0][0].rollouts
    first, second = (group.rollouts for group in fit(module_of(make_reasoner()), clips[:1] * 2, 1).groups[0])
    assert all(torch.equal(a.completion_ids, b.completion_ids) for a, b in zip(alone, first, strict=True))
    assert not any(torch.equal(a.completion_ids, b.completion_ids) for a in first for b in second)


def test_the_trained_weights_are_the_adapter(make_reasoner, clips):
    module = module_of(make_reasoner())
    frozen = {name: p.detach().clone() for name, p in module.named_parameters() if not p.requires_grad}
    before = adapter(module)
    fit(module, clips, 1)
    assert all("lora_" in name for name in before)
    assert all(not torch.equal(value, before[name]) for name, value in adapter(module).items())
    assert all(torch.equal(p, frozen[name]) for name, p in module.named_parameters() if not p.requires_grad)


def test_no_kl_penalty_means_no_reference_pass(make_reasoner, clips, monkeypatch):
    def refuse(self):
        raise AssertionError("the reference was asked")

    monkeypatch.setattr(Reasoner, "reference", refuse)
    watch = fit(module_of(make_reasoner(), beta=0.0), clips, 1)
    assert "kl" not in watch.metrics[0]


def test_the_kl_penalty_is_measured_against_the_base_model(make_reasoner, clips):
    """A fresh adapter is the base model: no divergence. One that differs has some."""
    assert fit(module_of(make_reasoner(adapter_scale=0.0)), clips, 1).metrics[0]["kl"] == 0.0
    assert fit(module_of(make_reasoner(adapter_scale=0.3)), clips, 1).metrics[0]["kl"] > 1e-3


@pytest.mark.parametrize(
    ("reward", "groundings", "propagations"), [(LowTokens, 0, 0), (NeedsBoxes, 2, 0), (NeedsMasks, 2, 2)]
)
def test_system_2_runs_as_far_as_a_weighted_reward_needs_it(
    make_reasoner, clips, speaks_plans, reward, groundings, propagations
):
    """Two prompts: one call each, for all completions together; a term of weight 0 needs nothing."""
    module = module_of(make_reasoner(), rewards={"term": reward(), "unused": NeedsMasks(weight=0.0)}, beta=0.0)
    fit(module, clips, 1)
    assert (module.grounder.calls, module.propagator.calls) == (groundings, propagations)


def test_a_group_record_tells_the_whole_story(make_reasoner, clips, speaks_plans):
    module = module_of(make_reasoner(), rewards={"low": LowTokens(), "masks": NeedsMasks(weight=0.5)})
    fit(module, clips, 1)
    assert [record.rollouts[0].clip.id for record in module.last_groups] == ["a", "b"]
    for record in module.last_groups:
        assert [rollout.index for rollout in record.rollouts] == [0, 1, 2, 3]
        assert all(rollout.plan.keyframes[0].frame == 1 for rollout in record.rollouts)
        assert record.rewards.values["masks"] == [1.0] * 4
        totals = torch.tensor(record.rewards.totals)
        expected = (totals - totals.mean()) / (totals.std() + 1e-4)
        torch.testing.assert_close(torch.tensor(record.advantages), expected, rtol=1e-4, atol=1e-5)


def test_everything_is_logged_under_the_names_of_the_field(make_reasoner, clips):
    watch = fit(module_of(make_reasoner(), updates_per_rollout=2), clips, 2)
    assert set(watch.metrics[0]) == {
        "reward", "reward_std", "frac_reward_zero_std", "rewards/low/mean", "rewards/low/std",
        "rewards/low/not_applicable", "kl", "entropy", "loss", "grad_norm", "lr", "num_tokens", "rollout_step",
        "clip_ratio/low_mean", "clip_ratio/low_min", "clip_ratio/high_mean", "clip_ratio/high_max",
        "clip_ratio/region_mean", "completions/mean_length", "completions/min_length", "completions/max_length",
        "completions/clipped_ratio", "completions/parse_failures", "completions/absent", "time/rollout_s",
        "time/system_2_s", "time/rewards_s", "time/exchange_s", "time/update_s",
    }  # fmt: skip
    rollouts = [rollout for record in watch.groups[0] for rollout in record.rollouts]
    lengths = [len(rollout.completion_ids) for rollout in rollouts]
    metrics = watch.metrics[0]
    assert metrics["completions/mean_length"] == pytest.approx(sum(lengths) / len(lengths))
    assert metrics["completions/parse_failures"] == 1.0
    assert metrics["reward"] == pytest.approx(sum(t for r in watch.groups[0] for t in r.rewards.totals) / 8)
    assert 4.0 < metrics["entropy"] < 5.77  # log 320 = 5.768
    assert metrics["lr"] == 1.0


def test_a_failing_reward_stops_the_run_with_its_name(make_reasoner, clips):
    class Broken(Reward):
        def __call__(self, rollouts):
            return [float("nan")] * len(rollouts)

    with pytest.raises(RewardError, match=r"rewards\.mine on clip a: expected a list of 4 finite numbers or None"):
        fit(module_of(make_reasoner(), rewards={"mine": Broken()}), clips, 1)


@pytest.mark.parametrize("rewards", [{"low": LowTokens()}, {"same": Constant()}])
def test_skipping_groups_without_spread_saves_work_and_changes_nothing(make_reasoner, clips, rewards, monkeypatch):
    """With beta 0. When no group has spread one is still run, because processes wait for each other in backward."""
    results, scored = [], []
    for is_skipping in (False, True):
        module = module_of(make_reasoner(), rewards=rewards, beta=0.0, skip_zero_advantage=is_skipping, engine="plain")
        score, scored = module.engine.score, []
        spy = lambda reasoner, requests, **k: scored.extend(requests) or score(reasoner, requests, **k)  # noqa: B023, E731
        monkeypatch.setattr(module.engine, "score", spy)
        fit(module, clips, 1)
        results.append((adapter(module), len(scored)))
    assert all(torch.equal(value, results[1][0][name]) for name, value in results[0][0].items())
    assert [count for _, count in results] == ([2, 1] if "same" in rewards else [2, 2])


def test_masked_truncated_completions_are_not_trained(make_reasoner, clips):
    """At most one token each and hardly ever an end of turn: nothing is left to train."""
    module = module_of(make_reasoner(), beta=0.0, mask_truncated=True, sampling=Sampling(max_new_tokens=1))
    before = adapter(module)
    watch = fit(module, clips, 1)
    assert watch.metrics[0]["completions/clipped_ratio"] == 1.0
    assert watch.metrics[0]["reward_std"] > 0
    assert all(torch.equal(value, before[name]) for name, value in adapter(module).items())


def test_a_run_goes_on_with_the_updates_per_rollout_that_it_was_counted_in(make_reasoner, clips, tmp_path):
    """Two updates are one rollout of two or two of one, and the number of the rollout names its noise."""
    trainer = trainer_of(max_steps=2)
    trainer.fit(module_of(make_reasoner(), updates_per_rollout=2), loader(clips))
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    with pytest.raises(ConfigError, match=r"updates_per_rollout is 1, but the run that is resumed has 2\. Set"):
        trainer_of(max_steps=4).fit(module_of(make_reasoner()), loader(clips), ckpt_path=tmp_path / "a.ckpt")
    validating = trainer_of(limit_val_batches=1)
    validating.validate(module_of(make_reasoner()), loader(clips), ckpt_path=tmp_path / "a.ckpt", verbose=False)


def test_rewards_name_the_clip_that_they_are_about(make_reasoner, clips):
    """A reward may take long, and others wait for it."""
    seen = []

    class Looks(LowTokens):
        def __call__(self, rollouts):
            seen.append((module.phase, module.clock.sample, rollouts[0].clip.id))
            return super().__call__(rollouts)

    module = module_of(make_reasoner(), rewards={"low": Looks()})
    fit(module, clips, 1)
    assert seen == [("rewards", clip.id, clip.id) for clip in clips[:2]]


def test_phases_are_announced_in_order(make_reasoner, clips):
    module, heard = module_of(make_reasoner()), []
    module.clock.listeners.append(heard.append)
    fit(module, clips, 1)
    assert heard == [name for phase in STEP_PHASES for name in (phase, IDLE)]
    assert module.phase == "idle"


def test_nothing_to_learn_from_is_refused_before_weights_are_read(make_reasoner, clips):
    with pytest.raises(ConfigError, match=r"rewards: expected at least one reward .* --rewards\.format FormatReward"):
        fit(module_of(make_reasoner(), rewards={"low": LowTokens(weight=0.0)}), clips, 1)


def test_an_end_that_nobody_knows_is_refused(make_reasoner, clips):
    with pytest.raises(ConfigError, match=r"model\.schedule\.decay is 'linear'.*Set --trainer\.max_steps"):
        fit(module_of(make_reasoner(), schedule=Schedule(decay="linear")), clips, -1)


def test_the_learning_rate_falls_to_its_floor(make_reasoner, clips):
    """Two warm-up updates (1/2, 1), then linearly from 1 to the floor over the remaining two: 1, 0.6."""
    schedule = Schedule(warmup_steps=2, decay="linear", floor=0.2)
    watch = fit(module_of(make_reasoner(), schedule=schedule), clips, 4)
    assert [metrics["lr"] for metrics in watch.metrics] == pytest.approx([0.5, 1.0, 1.0, 0.6])
