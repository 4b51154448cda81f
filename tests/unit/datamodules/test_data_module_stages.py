"""The data modules under Lightning's own trainer."""

from collections import Counter

import lightning as L
import pytest
from benchmark_trees import write_video

from datamodules.errors import ConfigError, MediaError
from datamodules.mixture import MixtureDataModule
from datamodules.modules import RefAVSDataModule, ReVOSDataModule


class Counting(L.LightningModule):
    """Counts clips by split."""

    automatic_optimization = False

    def __init__(self):
        super().__init__()
        self.splits = Counter()

    def training_step(self, batch, batch_idx):
        self.splits.update(clip.split for clip in batch)

    def validation_step(self, batch, batch_idx):
        self.splits.update(clip.split for clip in batch)

    def test_step(self, batch, batch_idx, dataloader_idx):
        self.splits.update((clip.split, dataloader_idx) for clip in batch)

    def predict_step(self, batch, batch_idx):
        return [(clip.expression, clip.frames.count, clip.masks) for clip in batch]

    def configure_optimizers(self):
        return None


QUIET = {"accelerator": "cpu", "devices": 1, "logger": False, "enable_checkpointing": False} | {
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "num_sanity_val_steps": 0,
}


@pytest.mark.filterwarnings("ignore")
def test_lightning_runs_every_stage(refavs_root, tmp_path):
    video = write_video(tmp_path / "v.mp4", sound_s=10.0)
    data = RefAVSDataModule(str(refavs_root), video=str(video), expression="The tone.")
    trainer, module = L.Trainer(max_epochs=1, **QUIET), Counting()

    trainer.fit(module, datamodule=data)
    trainer.test(module, datamodule=data, verbose=False)

    assert module.splits == {"train": 4, "val": 1, ("test_s", 0): 1, ("test_u", 1): 2, ("test_n", 2): 1}
    assert trainer.predict(module, datamodule=data) == [[("the tone", 10, None)]]


@pytest.mark.filterwarnings("ignore")
def test_predicting_needs_no_benchmark(tmp_path):
    """The folder does not exist, nor is the generated benchmark made."""
    video = str(write_video(tmp_path / "v.mp4"))
    made = {"avshapes_cache": str(tmp_path / "cache")}
    for settings in ({"root": str(tmp_path / "nothing")}, made):
        data = ReVOSDataModule(video=video, expression="it", eval_clip_frames=7, **settings)
        assert L.Trainer(**QUIET).predict(Counting(), datamodule=data) == [[("it", 7, None)]]
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("module", [RefAVSDataModule, MixtureDataModule])
def test_a_video_that_is_not_there_is_found_before_anything_is_loaded(tmp_path, module):
    """Lightning sets the data up first, then reads the weights."""
    with pytest.raises(MediaError, match=r"there is no video file .*no\.mp4.*--data\.video"):
        module(video=str(tmp_path / "no.mp4"), expression="it").setup("predict")


@pytest.mark.parametrize(
    "settings", [{"video": "v.mp4"}, {"expression": "it"}, {"video": "v.mp4", "expression": " . "}, {"video": ""}]
)
def test_half_a_question_about_a_video_names_the_flags(settings):
    with pytest.raises(ConfigError, match=r"--data\.video FILE --data\.expression .* or neither for the test splits"):
        RefAVSDataModule(**settings).predict_dataloader()


@pytest.mark.filterwarnings("ignore")
def test_without_a_video_the_test_splits_are_predicted_on_without_ground_truth(refavs_root):
    class Predicting(Counting):
        def predict_step(self, batch, batch_idx, dataloader_idx):
            return [(clip.split, clip.kind, clip.is_null, clip.masks, clip.expression_id) for clip in batch]

    data = RefAVSDataModule(str(refavs_root), test_splits=["test_u", "test_n"])
    assert L.Trainer(**QUIET).predict(Predicting(), datamodule=data) == [
        [[("test_u", "test_u", False, None, "00009_saw_4"), ("test_u", "test_u", False, None, "00010_saw_4")]],
        [[("test_n", "test_n", False, None, "00012_null_1")]],
    ]
