import math

import lightning as L
import pytest
import torch
from doubles import BoxPropagator, FixedGrounder, LowTokens, loader, module_of, trainer_of
from torch.utils.data import DataLoader

from datamodules.errors import ConfigError
from datamodules.lessons import Demonstration, Lesson, Turn, lesson_from_labels
from lightning_modules.answers import answers_in_rows, answers_with_marks
from lightning_modules.evaluation import EvaluationSettings
from lightning_modules.sft_module import SFTModule
from lightning_modules.sharded_strategy import ShardedStrategy
from models.plan import parse_plan
from models.prompts import choose_template
from models.reasoner import Reasoner


class Fixed(L.LightningDataModule):
    """The same batch at every step."""

    def __init__(self, batch, steps: int) -> None:
        super().__init__()
        self.batches = [batch] * steps

    def train_dataloader(self):
        return DataLoader(self.batches, batch_size=None, collate_fn=None)

    def val_dataloader(self):
        return DataLoader(self.batches[:1], batch_size=None, collate_fn=None)


def train(module: SFTModule, batch, steps: int) -> L.Trainer:
    trainer = L.Trainer(
        max_steps=steps,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        check_val_every_n_epoch=1,
    )
    trainer.fit(module, Fixed(batch, steps))
    return trainer


def lesson(clip, *turns: tuple[str, str, str], shown: tuple[Demonstration, ...] = ()) -> Lesson:
    return Lesson(clip, tuple(Turn(*turn) for turn in turns), shown)


@pytest.mark.parametrize("what", ["adapter", "language", "all"])
def test_only_what_is_named_is_trained(make_reasoner, what):
    module = SFTModule(make_reasoner(), train=what)
    module.trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    module.configure_model()
    names = [name for name, weights in module.named_parameters() if weights.requires_grad]
    assert names
    if what == "adapter":
        assert all("lora" in name for name in names)
    else:
        assert any("embed_tokens" in name for name in names)
        assert any("audio_tower" in name for name in names) == (what == "all")


def test_answers_are_learned_by_heart(make_reasoner, make_clip):
    clips = [make_clip("a"), make_clip("b", has_audio=False)]
    batch = [
        lesson(clips[0], ("is it red", "yes", "color"), ("is it blue", "no", "color")),
        lesson(clips[1], ("is it red", "no", "color"), ("what is it", "a circle", "shape")),
    ]
    module = SFTModule(make_reasoner(), train="language", learning_rate=1e-2, steps=60, decay_share=0.2)
    trainer = train(module, batch, 60)
    assert trainer.callback_metrics["val/exact/color"] == 1
    assert trainer.callback_metrics["val/exact/shape"] == 1
    assert trainer.callback_metrics["val/auc/color"] == 1
    assert "val/auc/shape" not in trainer.callback_metrics


def test_the_auc_of_odds_that_ignore_the_clip_is_one_half(make_reasoner, make_clip):
    module = SFTModule(make_reasoner(), train="adapter", learning_rate=0.0, steps=1)
    batch = [
        lesson(make_clip("a"), ("is it red", "yes", "color")),
        lesson(make_clip("a"), ("is it red", "no", "color")),
    ]
    assert train(module, batch, 1).callback_metrics["val/auc/color"] == pytest.approx(0.5)


def test_a_labeled_clip_teaches_its_own_answer(make_reasoner, make_clip):
    """Its answer comes from masks and expression alone."""
    module = SFTModule(make_reasoner(), train="adapter")
    clips = [make_clip("a"), make_clip("b", is_null=True)]
    _, turns, evidence = module.prepare([lesson_from_labels(clip, keyframes=2) for clip in clips])
    assert evidence == [["demonstration"], ["demonstration"]]
    answers = [module.reasoner.builder.tokenizer.decode(row[0].answer) for row in turns]
    assert answers[0].count("the red circle") >= 2
    shown, absent = (parse_plan(answer, fps=1.0, frames=4, max_keyframes=2) for answer in answers)
    assert shown.keyframes
    assert not shown.is_absent
    assert absent.is_absent


@pytest.mark.parametrize("template", ["short", "refavs", "revos"])
def test_what_is_learned_is_what_is_asked_later(make_reasoner, make_clip, template):
    """Media and question of a lesson are the prompt that the same clip is answered from, system message included."""
    reasoner = make_reasoner()
    reasoner.builder.template = template
    clip = make_clip("a")
    _, turns, _ = SFTModule(reasoner).prepare([lesson_from_labels(clip, keyframes=2)])
    system = choose_template(template, clip).system
    ids = reasoner.builder.media_only(clip, system=system).input_ids[0].tolist() + turns[0][0].question
    assert ids == reasoner.prepare(clip).input_ids[0].tolist()
    assert bool(system) == (template != "short")


def test_clips_without_answers_are_refused(make_reasoner, make_clip):
    with pytest.raises(ConfigError, match=r"Set --data\.answers labels"):
        SFTModule(make_reasoner()).training_step([make_clip()], 0)
    with pytest.raises(ConfigError, match=r"Set --data\.answers null"):
        module_of(make_reasoner()).training_step([lesson(make_clip())], 0)


def test_held_out_clips_go_through_both_systems(make_reasoner, make_clip):
    """The keys are those of GRPO; what is trained on are lessons, what is validated on clips."""
    clips = [make_clip("a"), make_clip("b", is_null=True)]
    module = SFTModule(
        make_reasoner(),
        grounder=FixedGrounder(),
        propagator=BoxPropagator(),
        rewards={"low": LowTokens()},
        evaluation=EvaluationSettings(max_new_tokens=4),
    )
    data = Fixed([lesson_from_labels(clip, keyframes=2) for clip in clips], 1)
    data.val_dataloader = lambda: loader(clips)
    trainer = trainer_of(max_steps=1, limit_val_batches=1.0)
    trainer.fit(module, data)
    keys = {"val/j", "val/f", "val/jf", "val/s", "val/null_accuracy", "val/false_absent", "val/reward", "loss"}
    assert keys <= set(trainer.callback_metrics)
    assert {result.clip_id for result in module.last_validation.results} == {"a", "b"}
    assert module.steps == 1


def test_the_schedule_needs_an_end(make_reasoner):
    module = SFTModule(make_reasoner())
    module.trainer = trainer_of()
    with pytest.raises(ConfigError, match=r"Set --trainer\.max_steps or --model\.steps"):
        module.configure_optimizers()


def test_answering_clips_takes_system_2(make_reasoner, make_clip):
    module = SFTModule(make_reasoner(), evaluation=EvaluationSettings(max_new_tokens=2))
    with pytest.raises(ConfigError, match=r"Set --model\.grounder and --model\.propagator"):
        trainer_of(limit_val_batches=1.0).validate(module, loader([make_clip()]), verbose=False)


@pytest.mark.parametrize(("asked", "found"), [(None, 192), (7, 7)])
def test_held_out_answers_are_as_long_as_asked(make_reasoner, asked, found):
    module = SFTModule(make_reasoner(), evaluation=EvaluationSettings(max_new_tokens=asked))
    assert module.greedy.max_new_tokens == found


def test_the_loss_is_the_mean_over_answer_tokens(make_reasoner, make_clip):
    """Against one turn after the other, each with its own prompt."""
    reasoner = make_reasoner(gain=3.0)
    module = SFTModule(reasoner, train="adapter")
    module.trainer = trainer_of()
    module.log_dict = lambda *_, **__: None
    turns = [("is it red", "yes", "x"), ("what is it", "a circle", "x")]
    total, count = 0.0, 0
    for question, answer, _ in turns:
        encoded = reasoner.encode(reasoner.builder.from_question(make_clip(), question))
        ids = torch.tensor([reasoner.builder.answer_ids(answer)])
        whole = torch.cat([encoded.embeddings, reasoner.embed_tokens(ids)], dim=1)
        new = (encoded.next_position + torch.arange(ids.shape[1])).expand(3, 1, -1)
        hidden = reasoner.language_model(
            inputs_embeds=whole, position_ids=torch.cat([encoded.positions, new], dim=2)
        ).last_hidden_state
        logits = reasoner.lm_head(hidden)[0, -ids.shape[1] - 1 : -1]
        total += float(torch.nn.functional.cross_entropy(logits, ids[0], reduction="sum"))
        count += ids.shape[1]
    loss = float(module.training_step([lesson(make_clip(), *turns)], 0))
    assert loss == pytest.approx(total / count, rel=1e-4)


def test_both_ways_to_read_answers_agree(make_reasoner, make_clip):
    """In one row, and after the keys and values of the media: turns of several lengths, media of two."""
    reasoner = make_reasoner(gain=3.0)
    turns = [("is it red", "yes", "x"), ("what is it, if it is there at all", "a circle", "x")]
    batch = [lesson(make_clip("a"), *turns), lesson(make_clip("b", has_audio=False, seconds=6), *turns[::-1])]
    media, asked, _ = SFTModule(reasoner).prepare(batch)
    answers, marks = answers_with_marks(reasoner, batch, media, asked, mark_layer=None)
    rows = answers_in_rows(reasoner, media, asked)
    assert float(marks) == 0
    torch.testing.assert_close(rows.sort().values, answers.sort().values, rtol=1e-4, atol=1e-5)
    trained = [p for p in reasoner.parameters() if p.requires_grad]
    for left, right in zip(
        torch.autograd.grad(rows.sum(), trained), torch.autograd.grad(answers.sum(), trained), strict=True
    ):
        torch.testing.assert_close(left, right, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("own", [{"train": "language"}, {"mark_weight": 0.1}], ids=str)
@pytest.mark.parametrize("how", ["checkpointing", "sharded"])
def test_what_cannot_save_memory_is_refused(make_reasoner, own, how):
    module = SFTModule(make_reasoner(gradient_checkpointing=how == "checkpointing"), **own)
    module.trainer = trainer_of(**{"strategy": ShardedStrategy()} if how == "sharded" else {})
    with pytest.raises(ConfigError, match=r"Set --model\.train adapter --model\.mark_weight 0, or neither"):
        module.setup("fit")
    module.setup("validate")


def test_an_adapter_is_trained_in_the_precision_of_the_trainer(make_reasoner, make_clip):
    seen = []

    class Watching(SFTModule):
        def prepare(self, lessons):
            seen.append(torch.is_autocast_enabled("cpu"))
            return super().prepare(lessons)

    for precision in ("32-true", "bf16-mixed"):
        trainer = trainer_of(max_steps=1, precision=precision)
        trainer.fit(Watching(make_reasoner()), Fixed([lesson(make_clip(), ("is it red", "yes", "color"))], 1))
    assert seen == [False, True]


@pytest.mark.parametrize("precision", ["16-true", "bf16-true"])
def test_an_adapter_in_16_bits_is_not_trained(make_reasoner, precision):
    module = SFTModule(make_reasoner())
    module.trainer = trainer_of(precision=precision)
    with pytest.raises(ConfigError, match=rf"precision is {precision}, .*--trainer\.precision bf16-mixed"):
        module.setup("fit")
    module.setup("validate")


def test_rates_warm_up_hold_and_fall(make_reasoner):
    module = SFTModule(make_reasoner(), steps=1000, decay_share=0.5)
    assert module._rate(0) == pytest.approx(0.03)
    assert module._rate(24) == pytest.approx(0.5)
    assert module._rate(49) == module._rate(400) == 1
    assert module._rate(750) == pytest.approx(0.5)
    assert module._rate(1000) == pytest.approx(0.03)
    assert all(math.isfinite(module._rate(step)) for step in range(1100))


def test_the_trained_model_is_saved_as_the_reasoner_reads_it(make_reasoner, make_clip, tmp_path):
    reasoner = make_reasoner()
    folder = tmp_path / "out"
    base = Reasoner(lora=None, template="short")
    base.attach(reasoner.thinker, reasoner.builder.processor)
    for name, module in list(base.thinker.named_modules()):
        if hasattr(module, "base_layer"):  # the fixture's adapter is no part of this test
            parent, _, child = name.rpartition(".")
            setattr(base.thinker.get_submodule(parent), child, module.base_layer)
    sft = SFTModule(base, train="language", steps=1, output=str(folder))
    train(sft, [lesson(make_clip(), ("is it red", "yes", "color"))], 1)
    loaded = Reasoner(str(folder), lora=None, template="short")
    loaded.load()
    for name, weights in base.thinker.state_dict().items():
        torch.testing.assert_close(loaded.thinker.state_dict()[name], weights, msg=name)


def test_a_folder_for_the_model_asks_for_a_trained_model(make_reasoner):
    with pytest.raises(ConfigError, match=r"--model\.train language"):
        SFTModule(make_reasoner(), train="adapter", output="somewhere")
