import logging
import shutil
from collections import Counter
from types import SimpleNamespace

import pytest
import torch

from datamodules.errors import ConfigError, DataLayoutError, MediaError
from datamodules.modules import RefAVSDataModule
from datamodules.serving import read_ahead


def ids(loader):
    return [clip.id for batch in loader for clip in batch]


def refavs(root, *, stage="fit", **settings):
    module = RefAVSDataModule(str(root), **settings)
    module.setup(stage)
    return module


def test_a_training_batch_is_a_list_of_clips(refavs_root):
    module = refavs(refavs_root, prompts_per_step=2)

    batches = list(module.train_dataloader())
    assert [len(batch) for batch in batches] == [2, 2]
    assert {clip.split for batch in batches for clip in batch} == {"train"}
    assert (module.task, batches[0][0].task) == ("refavs", "refavs")


def test_budgets_and_frames_reach_the_clips(refavs_root):
    module = refavs(
        refavs_root,
        glance_frames=3,
        glance_max_pixels=12 * 16,
        close_up_max_pixels=6 * 8,
        clip_frames=5,
        eval_clip_frames=4,
        fps=2.0,
    )
    train, val = next(iter(module.train_dataloader()))[0], next(iter(module.val_dataloader()))[0]

    assert train.glance.frames.shape == (3, 12, 16, 3)
    assert train.close_up([0]).shape == (1, 6, 8, 3)
    assert (train.frames.count, train.frames.fps, val.frames.count) == (5, 1.0, 4)


def test_epochs_are_counted_in_rollout_phases_and_steps(refavs_root):
    """Four training prompts, two per step."""
    module = refavs(refavs_root, prompts_per_step=2)

    assert module.rollouts_per_epoch == 2
    assert module.steps_per_epoch(updates_per_rollout=3) == 6


@pytest.mark.parametrize("change", [{"train_size": 4, "null_fraction": 0.75}, {"clip_frames": 4}, {"fps": 2.0}])
def test_a_run_does_not_go_on_with_other_prompts(refavs_root, tmp_path, change):
    """Two prompts with a target and two without; every setting serves four. A copied folder is no other data."""
    state = refavs(refavs_root).train_dataloader().state_dict()
    shutil.copytree(refavs_root, tmp_path / "copy")

    refavs(tmp_path / "copy", glance_frames=3).train_dataloader().load_state_dict(state)
    with pytest.raises(ConfigError, match="4 other prompts"):
        refavs(refavs_root, **change).train_dataloader().load_state_dict(state)


def test_processes_share_training_and_evaluation(refavs_root):
    modules = [refavs(refavs_root, val_batch_size=1, val_null_fraction=None) for _ in range(2)]
    for rank, module in enumerate(modules):
        module.trainer = SimpleNamespace(global_rank=rank, world_size=2)
    alone = refavs(refavs_root, val_null_fraction=None)

    assert modules[0].rollouts_per_epoch == 2
    assert Counter(ids(modules[0].train_dataloader()) + ids(modules[1].train_dataloader())) == Counter(
        ids(alone.train_dataloader())
    )
    assert [ids(module.val_dataloader()) for module in modules] == [[name] for name in ids(alone.val_dataloader())]


def test_training_sizes_draw_a_fixed_set(refavs_root):
    first = ids(refavs(refavs_root, train_size=2, seed=1).train_dataloader())

    assert len(first) == 2
    assert sorted(first) == sorted(ids(refavs(refavs_root, train_size=2, seed=1).train_dataloader()))
    assert RefAVSDataModule().train_size == 1600
    assert len(ids(refavs(refavs_root).train_dataloader())) == 4


def test_held_out_clips_are_the_same_for_every_seed(refavs_root):
    """One of two clips is drawn to validate and to test on; over ten seeds a draw by the seed would show both."""
    drawn = [refavs(refavs_root, seed=seed, val_size=1, val_null_fraction=None) for seed in range(10)]
    assert len({tuple(ids(module.val_dataloader())) for module in drawn}) == 1
    assert len({tuple(ids(module.train_dataloader())) for module in drawn}) > 1
    tested = [refavs(refavs_root, stage="test", seed=seed, test_splits=["test_u"], test_size=1) for seed in range(10)]
    assert len({tuple(ids(module.test_dataloader()[0])) for module in tested}) == 1


@pytest.mark.parametrize(("share", "nulls"), [(None, 2), (0.0, 0), (0.75, 6)])
def test_the_share_of_null_prompts_is_set_per_epoch(refavs_root, share, nulls):
    """Two prompts with a target and two without; a share of 3/4 beside two prompts needs six."""
    clips = [clip for batch in refavs(refavs_root, null_fraction=share).train_dataloader() for clip in batch]

    assert sum(clip.is_null for clip in clips) == nulls
    assert sum(not clip.is_null for clip in clips) == 2


def test_validation_holds_a_share_of_null_clips(refavs_root):
    def kinds(**settings):
        return [clip.kind for batch in refavs(refavs_root, **settings).val_dataloader() for clip in batch]

    assert kinds(val_size=2, val_null_fraction=0.5) == ["seen", "null"]
    assert kinds(val_size=1, val_null_fraction=1.0) == ["null"]
    assert kinds(val_size=2, val_null_fraction=0.0) == ["seen"]
    assert kinds(val_size=None, val_null_fraction=0.0) == ["seen", "null"]


def test_every_test_split_has_a_loader_of_its_own(refavs_root):
    module = refavs(refavs_root, stage="test")

    assert module.test_splits == ("test_s", "test_u", "test_n")
    assert [len(ids(loader)) for loader in module.test_dataloader()] == [1, 2, 1]
    some = refavs(refavs_root, stage="test", test_splits=["test_n", "test_u"], test_size=1)
    assert [[name.split("/")[1] for name in ids(loader)] for loader in some.test_dataloader()] == [
        ["test_n"],
        ["test_u"],
    ]


def test_validating_alone_reads_no_training_split(refavs_root):
    module = refavs(refavs_root, stage="validate")

    assert len(ids(module.val_dataloader())) == 1
    with pytest.raises(RuntimeError, match=r"the train clips \(train\) are not open yet; call setup"):
        module.train_dataloader()


def test_only_what_a_stage_needs_must_be_there(refavs_root):
    """No file of the test splits is needed to train, and the check comes before anything is opened."""
    shutil.rmtree(refavs_root / "gt_mask" / "-bcdefghij__5000_15000" / "fid_4")

    refavs(refavs_root)
    with pytest.raises(DataLayoutError, match="targets have no masks"):
        refavs(refavs_root, stage="test")


def test_setting_up_opens_no_media(refavs_root, no_media):
    for stage in ("fit", "validate", "test"):
        refavs(refavs_root, stage=stage)


def test_all_settings_that_cannot_work_are_named_at_once():
    with pytest.raises(ConfigError) as caught:
        RefAVSDataModule(
            prompts_per_step=0,
            null_fraction=1.5,
            val_null_fraction=-0.1,
            fps=0.0,
            num_workers=-1,
            glance_frames=0,
            test_splits=["test_x"],
        )
    text = str(caught.value)
    assert "data.prompts_per_step is 0; it must be at least 1. Set --data.prompts_per_step 1 or more." in text
    assert "data.null_fraction is 1.5; it is a share" in text
    assert "data.val_null_fraction is -0.1; it is a share" in text
    assert "data.fps is 0.0; frames per second are above 0" in text
    assert "data.num_workers is -1; it must be at least 0" in text
    assert "data.glance_frames is 0; it must be at least 1" in text
    assert "data.test_splits names test_x; the benchmark has test_s, test_u, test_n" in text


def test_null_clips_that_do_not_exist_cannot_be_asked_for(refavs_root):
    path = refavs_root / "metadata.csv"
    path.write_text("\n".join(line for line in path.read_text().splitlines() if "_null_" not in line))

    with pytest.raises(ConfigError, match=r"data\.val_null_fraction is 0\.25, but none of the 1 prompts"):
        refavs(refavs_root)


def test_broken_clips_are_counted_over_all_loaders(refavs_root, caplog):
    module = refavs(refavs_root, on_bad_sample="skip", val_null_fraction=None, val_size=None)
    for path in (refavs_root / "media").glob("abcdefghijk*/audio.wav"):
        path.write_bytes(b"")

    with caplog.at_level(logging.WARNING):
        assert len(ids(module.train_dataloader())) == 4
        assert len(ids(module.val_dataloader())) == 1
    assert sum(module.skipped.values()) == 2
    with pytest.raises(MediaError, match=r"audio\.wav cannot be decoded"):
        ids(refavs(refavs_root).train_dataloader())


def test_a_missing_file_is_left_out_where_that_was_asked_for(refavs_root):
    """The second training clip has lost its sound: the check warns, and the next prompt takes its place."""
    (refavs_root / "media" / "-bcdefghij__5000_15000" / "audio.wav").unlink()

    with pytest.raises(DataLayoutError, match="1 of 3 clips have no sound; first"):
        refavs(refavs_root)
    with pytest.warns(UserWarning, match="1 of 3 clips have no sound; .* such clips are left out"):
        module = refavs(refavs_root, on_bad_sample="skip")
    assert len(ids(module.train_dataloader())) == 4
    assert [name.rsplit("_", 2)[-2] for name in module.skipped] == ["hair-dryer"]


def test_reading_ahead_can_be_replaced(refavs_root):
    module = refavs(refavs_root)
    seen = []
    module.prefetch = lambda clip: (read_ahead(clip), seen.append(clip.id))

    assert ids(module.train_dataloader()) == seen


def test_batches_pass_through_lightning_untouched(refavs_root):
    """Lightning would look into the records for tensors, and refuses frozen ones."""
    module = refavs(refavs_root)
    batch = next(iter(module.train_dataloader()))

    assert module.transfer_batch_to_device(batch, torch.device("cpu"), 0) is batch


def test_the_generated_benchmark_is_made_on_first_use(tmp_path):
    sizes = {"train": 4, "val": 2, "test_s": 1, "test_u": 1, "test_n": 1, "null_train": 1, "null_val": 1}
    data = RefAVSDataModule(avshapes_sizes=sizes, avshapes_cache=str(tmp_path), val_size=4)
    data.prepare_data()
    data.setup("fit")

    assert data.data_root.parent == tmp_path
    clip = next(iter(data.train_dataloader()))[0]
    assert clip.glance.frames.shape[0] == 10
    assert clip.audio.shape == (160_000,)
