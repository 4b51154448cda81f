import pytest
from benchmark_trees import OVIS, STILL, TAO, UVO, edit_json

from datamodules.modules import ReVOSDataModule


def ids(loader):
    return [clip.id for batch in loader for clip in batch]


def revos(root, *, stage="fit", **settings):
    module = ReVOSDataModule(str(root), **{"val_null_fraction": None, **settings})
    module.setup(stage)
    return module


@pytest.mark.parametrize("stage", ["fit", "validate", "test"])
def test_setting_up_opens_no_media(revos_root, no_media, stage):
    revos(revos_root, stage=stage)


def test_revos_trains_on_one_question_per_video(revos_root):
    module = revos(revos_root, val_split="valid", clip_frames=3)
    clips = [clip for batch in module.train_dataloader() for clip in batch]

    assert {clip.video for clip in clips} == {UVO, TAO}
    assert {clip.frames.count for clip in clips} == {3}
    assert [clip.frames.count for batch in module.val_dataloader() for clip in batch] == [3, 3]
    assert module.benchmark_splits == ("valid",)


@pytest.mark.parametrize(("same", "different"), [(False, 3), (True, 1)])
def test_epochs_of_revos_ask_other_questions_unless_told_otherwise(revos_root, same, different):
    module = revos(revos_root, val_split="valid", same_questions=same)
    loader = module.train_dataloader()
    asked = set()
    for epoch in range(3):
        loader.sampler.set_epoch(epoch)
        asked |= {name for name in ids(loader) if UVO in name}

    assert len(asked) == different


def test_revos_validates_on_training_videos_that_it_does_not_train_on(revos_root):
    """Three videos: one is held out, the same one whatever the seed."""
    module = revos(revos_root, seed=1)
    held_out = {clip.video for batch in module.val_dataloader() for clip in batch}
    trained = {clip.video for batch in module.train_dataloader() for clip in batch}

    assert len(held_out) == 1
    assert held_out.isdisjoint(trained)
    assert held_out | trained | {STILL} == {UVO, TAO, STILL}
    assert {clip.video for batch in revos(revos_root, seed=2).val_dataloader() for clip in batch} == held_out


def test_revos_tests_on_the_whole_valid_split(revos_root):
    module = revos(revos_root, stage="test")

    assert [ids(loader) for loader in module.test_dataloader()] == [[f"revos/valid/{OVIS}/0", f"revos/valid/{OVIS}/1"]]


def test_a_test_of_limited_size_holds_a_share_of_null_clips(revos_root):
    """The split has one question of either kind."""

    def nulls(**settings):
        loaders = revos(revos_root, stage="test", **settings).test_dataloader()
        return [clip.is_null for loader in loaders for batch in loader for clip in batch]

    assert nulls(test_size=1, test_null_fraction=1.0) == [True]
    assert nulls(test_size=1, test_null_fraction=0.0) == [False]
    assert nulls(test_size=None, test_null_fraction=0.0) == [False, True]


def test_the_share_of_null_prompts_of_revos_is_set_per_epoch(revos_root):
    """Two videos, one of which has an unanswerable question: half of the prompts are to be such."""
    module = revos(revos_root, val_split="valid", null_fraction=0.5)
    clips = [clip for batch in module.train_dataloader() for clip in batch]

    assert sorted((clip.video, clip.is_null) for clip in clips) == [
        (TAO, False),
        (UVO, False),
        (UVO, True),
        (UVO, True),
    ]


def test_oddities_of_a_folder_are_warned_about(revos_root):
    edit_json(revos_root / "meta_expressions_valid_.json", lambda table: table["videos"][OVIS]["frames"].reverse())

    with pytest.warns(UserWarning, match="list their frames out of order"):
        revos(revos_root, stage="test")
