from dataclasses import replace

import pytest
import torch
from doubles import PLAN, LowTokens, NeedsMasks, adapter, loader, module_of, trainer_of

from datamodules.errors import ConfigError
from grpo.sampling import Sampling
from lightning_modules.evaluation import ClipResult, EvaluationSettings, evaluation_metrics, gather_results
from metrics.clips import ClipScores
from models.reasoner import Reasoner

pytestmark = pytest.mark.filterwarnings("ignore")
ABSENT = '<think>not there</think><answer>{"absent": true}</answer>'


def result(clip_id: str, kind: str = "seen", total: float = 1.0, value: float | None = 1.0, **scores) -> ClipResult:
    defaults = {"is_null": False, "says_absent": False}
    return ClipResult(
        clip_id=clip_id,
        kind=kind,
        task="refavs",
        video=clip_id,
        text="",
        is_unparsable=clip_id == "a",
        rewards={"term": value},
        total=total,
        scores=ClipScores(clip_id, kind, **defaults | scores),
    )


def test_means_by_hand():
    """Two seen clips (J 0.2 and 0.6, F 0.4 and 0.8), one unseen (1, 1, but called absent), two null ones."""
    results = [
        result("a", j=0.2, f=0.4, total=2.0, value=None),
        result("b", j=0.6, f=0.8),
        result("c", "unseen", j=1.0, f=1.0, says_absent=True),
        result("d", "null", is_null=True, s=0.5, is_null_right=False, is_null_empty=True, value=3.0),
        result("e", "null", is_null=True, s=0.0, is_null_right=True, is_null_empty=True, value=4.0, says_absent=True),
    ]
    assert evaluation_metrics(results, prefix="val/") == pytest.approx({
        "val/j": 0.6,
        "val/f": 2.2 / 3,
        "val/jf": 2.0 / 3,
        "val/false_absent": 1 / 3,
        "val/s": 0.25,
        "val/null_accuracy": 0.5,
        "val/null_empty": 1.0,
        "val/seen/j": 0.4,
        "val/seen/f": 0.6,
        "val/seen/jf": 0.5,
        "val/seen/false_absent": 0.0,
        "val/unseen/j": 1.0,
        "val/unseen/f": 1.0,
        "val/unseen/jf": 1.0,
        "val/unseen/false_absent": 1.0,
        "val/null/s": 0.25,
        "val/null/null_accuracy": 0.5,
        "val/null/null_empty": 1.0,
        "val/reward": 6 / 5,
        "val/parse_failures": 0.2,
        "val/rewards/term": 9 / 4,
    })  # fmt: skip


def test_nothing_evaluated_logs_nothing():
    assert evaluation_metrics([], prefix="val/") == {}


def test_a_clip_that_a_loader_repeats_counts_once_and_order_does_not_matter():
    found = gather_results([result("b"), result("a"), result("b")])
    assert [record.clip_id for record in found] == ["a", "b"]


def say(monkeypatch, **answers: str) -> None:
    """Let the reasoner answer by clip: `decode` sees ids only, so answers go by the order of the clips."""
    texts = iter(answers.values())
    monkeypatch.setattr(Reasoner, "decode", lambda self, ids: next(texts))


def test_validation_scores_masks_and_keeps_every_clip(make_reasoner, make_clip, monkeypatch):
    """The box is exactly the object, so J is 1; the null clip is called absent, which is right; nonsense scores 0."""
    say(monkeypatch, a=PLAN, b=ABSENT, c="nonsense")
    clips = [make_clip("a"), make_clip("b", is_null=True), make_clip("c")]
    module = module_of(make_reasoner(), rewards={"masks": NeedsMasks()})
    logged = trainer_of(limit_val_batches=1.0).validate(module, loader(clips), verbose=False)[0]
    assert logged["val/seen/j"] == pytest.approx(0.5)
    assert logged["val/null_accuracy"] == 1.0
    assert logged["val/s"] == 0.0
    assert logged["val/parse_failures"] == pytest.approx(1 / 3)
    assert logged["val/rewards/masks"] == pytest.approx(1 / 3)
    kept = module.last_validation
    assert kept is not None
    assert kept.metrics == pytest.approx(logged)
    assert [(r.clip_id, r.text, r.scores and r.scores.j) for r in kept.results] == [
        ("a", PLAN, pytest.approx(1.0)),
        ("b", ABSENT, None),
        ("c", "nonsense", 0.0),
    ]
    assert kept.rollouts[0].masks is not None
    assert kept.rollout_step == 0


def test_nonsense_about_an_absent_target_is_not_right(make_reasoner, make_clip, monkeypatch):
    say(monkeypatch, a="nonsense", b=ABSENT)
    module = module_of(make_reasoner(), rewards={"masks": NeedsMasks()})
    clips = [make_clip(name, is_null=True) for name in "ab"]
    logged = trainer_of(limit_val_batches=1.0).validate(module, loader(clips), verbose=False)[0]
    assert (logged["val/null_accuracy"], logged["val/null_empty"]) == (0.5, 1.0)


def test_held_out_answers_are_greedy(make_reasoner, make_clip):
    """Another seed of the training noise changes nothing, and neither does the order of the clips."""
    clips = [make_clip("a"), make_clip("b")]
    texts = []
    for seed, order in ((0, clips), (1, clips[::-1])):
        module = module_of(make_reasoner(gain=3.0), sampling=Sampling(max_new_tokens=6, seed=seed))
        trainer_of(limit_val_batches=1.0).validate(module, loader(order), verbose=False)
        texts.append([record.text for record in module.last_validation.results])
    assert texts[0] == texts[1]


def test_evaluation_without_masks_runs_no_system_2(make_reasoner, make_clip, monkeypatch):
    say(monkeypatch, a=PLAN)
    module = module_of(make_reasoner(), evaluation=EvaluationSettings(segment=False, keep_rollouts=0))
    logged = trainer_of(limit_val_batches=1.0).validate(module, loader([make_clip("a")]), verbose=False)[0]
    assert (module.grounder.calls, module.propagator.calls) == (0, 0)
    assert "val/j" not in logged
    assert "val/rewards/low" in logged
    assert module.last_validation.rollouts == ()


def test_clips_without_ground_truth_are_answered_and_not_scored(make_reasoner, make_clip, monkeypatch):
    say(monkeypatch, a=PLAN)
    module = module_of(make_reasoner(), rewards={"masks": NeedsMasks()})
    clip = replace(make_clip("a"), mask_source=None)
    logged = trainer_of(limit_test_batches=1.0).test(module, loader([clip]), verbose=False)[0]
    assert logged == {"test/parse_failures": 0.0}
    assert module.last_test.results[0].scores is None
    assert module.last_test.results[0].text == PLAN


def test_prediction_gives_masks_without_reading_ground_truth(make_reasoner, make_clip, monkeypatch):
    def refuse():
        raise AssertionError("ground truth was read")

    say(monkeypatch, a=PLAN, b=ABSENT)
    clips = [replace(make_clip(name), mask_source=refuse, task="video") for name in ("a", "b")]
    module = module_of(make_reasoner(), rewards={})
    first, second = trainer_of().predict(module, loader(clips))[0]
    assert first.masks.areas.tolist() == [[256]] * 4
    assert first.grounding.keyframes[0].frame == 1
    assert second.masks.objects == 0


def test_validation_inside_training_leaves_training_as_it_was(make_reasoner, make_clip):
    """The same weights with and without a validation pass after every epoch; a sanity check is not kept."""
    clips, results = [make_clip("a")], []
    for is_validating in (False, True):
        module = module_of(make_reasoner(), rewards={"low": LowTokens()})
        trainer = trainer_of(max_steps=3, limit_val_batches=1.0 if is_validating else 0, num_sanity_val_steps=1)
        trainer.fit(module, loader(clips), loader([make_clip("v")]))
        results.append(adapter(module))
    assert module.last_validation.rollout_step == 3
    assert all(torch.equal(value, results[1][name]) for name, value in results[0].items())


@pytest.mark.parametrize(("steps", "is_kept"), [(1, False), (-1, True)])
def test_a_sanity_check_is_kept_when_it_is_a_whole_pass(make_reasoner, make_clip, steps, is_kept):
    module = module_of(make_reasoner())
    trainer = trainer_of(max_steps=1, limit_val_batches=1.0, num_sanity_val_steps=steps, check_val_every_n_epoch=5)
    trainer.fit(module, loader([make_clip("a")]), loader([make_clip("v")]))
    assert (module.last_validation is not None) == is_kept
    assert not is_kept or module.last_validation.rollout_step == 0


def test_a_checkpoint_without_the_adapter_is_refused(make_reasoner, make_clip, tmp_path):
    module = module_of(make_reasoner())
    trainer = trainer_of(max_steps=1)
    trainer.fit(module, loader([make_clip("a")]))
    trainer.save_checkpoint(tmp_path / "good.ckpt")
    checkpoint = torch.load(tmp_path / "good.ckpt")
    del checkpoint["state_dict"][next(iter(checkpoint["state_dict"]))]
    torch.save(checkpoint, tmp_path / "bad.ckpt")
    with pytest.raises(ConfigError, match=r"does not fit the adapter: .*lora_A.* is missing.*--model\.reasoner\.lora"):
        trainer_of(limit_val_batches=1.0).validate(
            module_of(make_reasoner()), loader([make_clip("a")]), ckpt_path=tmp_path / "bad.ckpt", verbose=False
        )
