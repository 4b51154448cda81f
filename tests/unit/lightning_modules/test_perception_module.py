import lightning as L
import numpy as np
import pytest
import torch

from datamodules.avshapes.perception import HEARD_WORDS, SEEN_WORDS
from datamodules.avshapes.recipes import PerceptionData
from lightning_modules.perception_module import PerceptionModule, lesson_text
from models.reasoner import Reasoner


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Three steps of the recipe on small batches."""
    folder = tmp_path_factory.mktemp("perception")
    module = PerceptionModule(str(folder), steps=3)
    trainer = L.Trainer(
        max_steps=3,
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(module, PerceptionData(3, pairs=4, clips=2, val_pairs=4, workers=0))
    return module, trainer, folder


def test_the_text_of_the_lessons_is_the_same_for_a_seed():
    assert list(lesson_text(3, lessons=2)) == list(lesson_text(3, lessons=2)) != list(lesson_text(4, lessons=2))


def test_only_the_towers_are_trained(trained):
    module, _, _ = trained
    names = [name for name, weights in module.named_parameters() if weights.requires_grad]
    assert names
    assert all(".visual." in name or ".audio_tower." in name for name in names)


def test_every_word_has_a_score_on_held_out_scenes(trained):
    _, trainer, _ = trained
    for words, kind in ((SEEN_WORDS, "seen"), (HEARD_WORDS, "heard")):
        for word in words:
            for part in ("val", "val/unseen_pairs"):
                assert 0 <= trainer.callback_metrics[f"{part}/{kind}/{word}"] <= 1


def test_what_is_saved_is_a_reasoner(trained):
    module, _, folder = trained
    reasoner = Reasoner(str(folder), lora=None, template="short")
    reasoner.load()
    saved = reasoner.thinker.state_dict()
    for name, weights in module.thinker.state_dict().items():
        torch.testing.assert_close(saved[name], weights, msg=name)


def test_tokens_that_are_the_sum_of_their_words_cost_next_to_nothing(trained):
    module, _, _ = trained
    labels = np.zeros((1, 3, len(SEEN_WORDS)), dtype=bool)
    labels[0, 0, [SEEN_WORDS.index("red"), SEEN_WORDS.index("star")]] = True
    labels[0, 1, SEEN_WORDS.index("blue")] = True
    known = np.ones_like(labels)
    right = torch.from_numpy(labels[0]).float() @ module.word_embeddings(SEEN_WORDS)
    losses = [
        float(module._naming_loss(tokens.detach(), labels, known, SEEN_WORDS))
        for tokens in (right, torch.zeros_like(right), right[[1, 0, 2]])
    ]
    assert losses[0] < losses[1] < losses[2]
    assert losses[0] < 0.5


def test_tokens_without_a_certain_label_do_not_count(trained):
    module, _, _ = trained
    labels = np.zeros((1, 3, len(SEEN_WORDS)), dtype=bool)
    labels[0, 0, 0] = True
    known = np.ones_like(labels)
    known[0, 2] = False
    tokens = torch.randn(3, module.word_embeddings(SEEN_WORDS).shape[1], requires_grad=True)
    module._naming_loss(tokens, labels, known, SEEN_WORDS).backward()
    assert tokens.grad[:2].abs().sum(dim=1).min() > 0
    assert tokens.grad[2].abs().sum() == 0


def test_a_word_of_several_tokens_is_refused(trained):
    module, _, _ = trained
    with pytest.raises(ValueError, match="expected 'counterrevolution' to be one token, found"):
        module.word_embeddings(["counterrevolution"])
