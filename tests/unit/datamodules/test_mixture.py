"""The four benchmarks joined, on small trees of the real layouts."""

import shutil
import warnings
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from benchmark_trees import PLAIN, write_refavs, write_revos, write_video
from mevis_tree import write_mevis
from refcocog_tree import row, rows, write_refcocog

from datamodules.errors import ConfigError, DataLayoutError
from datamodules.mixture import MixtureDataModule
from datamodules.mixture_sources import Source, Sources


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """4 prompts of RefAVS; videos to train on: 1 or 2 of ReVOS, 2 of MeViS; 5 pictures."""
    write_refavs(tmp_path / "all" / "refavs")
    write_revos(tmp_path / "all" / "revos")
    write_mevis(tmp_path / "all" / "mevis")
    table = [row(f"refcocog_{number}", f"thing {number}", rows()[0]["solution"], 20 * number) for number in range(6)]
    write_refcocog(tmp_path / "all" / "refcocog", table)
    return tmp_path / "all"


def mixture(root: Path | str, stage: str = "fit", **settings) -> MixtureDataModule:
    data = MixtureDataModule(str(root), **{"val_null_fraction": None} | settings)
    data.setup(stage)
    return data


def tasks(loader) -> list[set[str]]:
    return [{clip.task for clip in batch} for batch in loader]


def only(**weights: float) -> Sources:
    names = ("refavs", "revos", "mevis", "refcocog")
    return Sources(**{name: Source(weight=weights.get(name, 0.0)) for name in names})


def test_a_step_is_of_one_benchmark_and_an_epoch_of_all(root):
    data = mixture(root)
    batches = list(data.train_dataloader())

    assert all(len({clip.task for clip in batch}) == 1 for batch in batches)
    counts = Counter(clip.task for batch in batches for clip in batch)
    assert counts == {name: len(part.train_clips()) for name, part in data.parts.items()}
    assert counts["refavs"] == 4
    assert counts["refcocog"] == 5
    assert data.rollouts_per_epoch == data.steps_per_epoch() == sum(counts.values())


def test_processes_work_on_the_same_benchmark(root):
    halves = []
    for rank in range(2):
        data = mixture(root, sources=only(refavs=1.0, refcocog=1.0))
        data.trainer = SimpleNamespace(global_rank=rank, world_size=2)
        halves.append(tasks(data.train_dataloader()))

    assert halves[0] == halves[1]
    assert Counter(next(iter(step)) for step in halves[0]) == {"refavs": 2, "refcocog": 2}


def test_weights_say_how_often_a_prompt_is_asked(root):
    """Twice each of 4; half of 5 (rounded to 2); 0 drops the others, whose folders need not be there."""
    for name in ("revos", "mevis"):
        shutil.rmtree(root / name)
    data = mixture(root, sources=only(refavs=2.0, refcocog=0.5))
    clips = [clip for batch in data.train_dataloader() for clip in batch]

    assert Counter(clip.task for clip in clips) == {"refavs": 8, "refcocog": 2}
    assert set(Counter(clip.id for clip in clips if clip.task == "refavs").values()) == {2}
    assert [len(part.train_clips()) for part in data.parts.values()] == [4, 5]


def test_a_source_may_lie_elsewhere(root, tmp_path):
    (root / "refavs").rename(tmp_path / "other")
    sources = Sources(**{**vars(only(refcocog=1.0)), "refavs": Source(root=str(tmp_path / "other"))})

    assert {"refavs", "refcocog"} == set().union(*tasks(mixture(root, sources=sources).train_dataloader()))
    with pytest.raises(DataLayoutError, match="Ref-AVS") as caught:
        mixture(root, sources=only(refavs=1.0))
    assert "Point --data.sources.refavs.root at the right folder" in str(caught.value)
    assert "--data.root" not in str(caught.value)


def test_every_source_is_validated_on_and_those_with_test_splits_tested(root):
    data = mixture(root)
    assert [set().union(*tasks(loader)) for loader in data.val_dataloader()] == [
        {"refavs"},
        {"revos"},
        {"mevis"},
        {"refcocog"},
    ]
    data = mixture(root, "test")
    splits = [{clip.split for batch in loader for clip in batch} for loader in data.test_dataloader()]
    assert splits == [{"test_s"}, {"test_u"}, {"test_n"}, {"valid"}, {"valid_u"}]
    predicted = mixture(root, "predict", sources=only(mevis=1.0, refcocog=1.0)).predict_dataloader()
    assert [clip.masks for loader in predicted for batch in loader for clip in batch] == [None, None]
    with pytest.raises(ConfigError, match="none of the sources refcocog has a test split"):
        mixture(root, "test", sources=only(refcocog=1.0))


def test_settings_of_a_source_reach_it(root):
    sources = Sources(
        refavs=Source(null_fraction=0.0),
        revos=Source(fps=4.0, clip_frames=2),
        mevis=Source(weight=0.0),
        refcocog=Source(fps=0.1, train_size=3),
    )
    data = mixture(root, sources=sources, glance_frames=1, close_up_max_pixels=70)
    clips = [clip for batch in data.train_dataloader() for clip in batch]

    assert not any(clip.is_null for clip in clips if clip.task == "refavs")
    assert {clip.frames.count for clip in clips if clip.task == "revos"} == {2}
    assert [clip.duration_s for clip in clips if clip.task == "refcocog"] == [10.0] * 3
    assert {len(clip.glance.indices) for clip in clips} == {1}
    assert clips[0].budget.close_up_max_pixels == 70


def test_pictures_alone_stand_still_for_several_frames(root):
    data = mixture(root, sources=Sources(**{**vars(only(refcocog=1.0)), "refcocog": Source(still_frames=3)}))
    assert {clip.frames.count for batch in data.train_dataloader() for clip in batch} == {3}
    with pytest.raises(ConfigError, match=r"^data\.sources\.mevis\.still_frames is 2, and mevis has videos"):
        mixture(root, sources=Sources(mevis=Source(still_frames=2)))


def test_a_source_may_have_a_test_size_of_its_own(root):
    sources = Sources(revos=Source(test_size=1, test_null_fraction=1.0, same_questions=True), refcocog=Source(weight=0))
    data = mixture(root, "test", sources=sources, test_size=2)
    tested = [clip for loader in data.test_dataloader() for batch in loader for clip in batch]

    assert [clip.is_null for clip in tested if clip.task == "revos"] == [True]
    assert Counter(clip.task for clip in tested) == {"refavs": 4, "revos": 1, "mevis": 2}
    assert [part.same_questions for part in data.parts.values()] == [False, True, False]


def test_a_broken_clip_is_replaced_within_its_benchmark(root):
    for path in (root / "refavs" / "media").glob(f"*{PLAIN}/audio.wav"):
        path.write_bytes(b"")
    data = mixture(root, sources=only(refavs=1.0, refcocog=1.0), on_bad_sample="skip", prompts_per_step=2, val_size=1)

    assert Counter(next(iter(step)) for step in tasks(data.train_dataloader())) == {"refavs": 2, "refcocog": 2}
    assert sum(data.skipped.values()) >= 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sources": only()}, "every source of the mixture has weight 0"),
        ({"sources": only(mevis=-1.0)}, r"data\.sources\.mevis\.weight is -1\.0"),
        (
            {"sources": Sources(revos=Source(fps=0.0, test_null_fraction=2.0))},
            r"^data\.sources\.revos\.test_null_fraction is 2\.0; .*--data\.sources\.revos\.test_null_fraction to .*\n"
            r"data\.sources\.revos\.fps is 0\.0; .* Set --data\.sources\.revos\.fps 1\.$",
        ),
        ({"prompts_per_step": 0, "fps": -1.0}, r"data\.prompts_per_step is 0; .*\n.*data\.fps is -1\.0"),
    ],
)
def test_what_cannot_work_is_named(settings, message):
    with pytest.raises(ConfigError, match=message):
        MixtureDataModule(**settings)


def test_what_a_source_cannot_give_is_named_with_its_own_flag(root):
    """Null clips of RefAVS are a split of their own; the share that all sources validate with is one flag."""
    sources = Sources(refavs=Source(test_size=2, test_null_fraction=0.5))
    flag = r"data\.sources\.refavs\.test_null_fraction"
    with pytest.raises(
        ConfigError, match=rf"^{flag} is 0\.5, but none of the \d+ prompts of test_s .*--{flag} null\.$"
    ):
        mixture(root, "test", sources=sources)
    shared = (
        r"^data\.sources\.revos: data\.val_null_fraction is 0\.5, .* of train .* Set --data\.val_null_fraction null\.$"
    )
    with pytest.raises(ConfigError, match=shared):
        mixture(root, sources=only(revos=1.0), val_null_fraction=0.5)


def test_generated_sizes_that_cannot_be_written_are_named_with_their_source(tmp_path):
    sources = Sources(**{**vars(only()), "mevis": Source(avshapes_sizes={"no": 1})})
    data = MixtureDataModule(sources=sources, avshapes_cache=str(tmp_path))
    with pytest.raises(ConfigError, match=r"^data\.sources\.mevis: .*AVShapes settings"):
        data.prepare_data()


def test_a_video_file_needs_no_benchmark(tmp_path):
    data = MixtureDataModule("nowhere", video=str(write_video(tmp_path / "v.mp4")), expression="the tone.")
    data.prepare_data()
    data.setup("predict")
    ((batch,),) = data.predict_dataloader()
    assert batch[0].expression == "the tone"


class Recorder(L.LightningModule):
    """Writes down what it is given; one optimizer step per batch."""

    automatic_optimization = False

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen = []
        self.validated = Counter()

    def training_step(self, batch, batch_idx):
        self.manual_backward(self.weight.sum() * 0)
        self.optimizers().step()
        self.seen.append((self.current_epoch, [clip.id for clip in batch]))

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        self.validated.update(clip.task for clip in batch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1.0)


def fit(root: Path, folder: Path, checkpoint: Path | None = None) -> Recorder:
    """Two epochs; a checkpoint after every step."""
    saved = L.pytorch.callbacks.ModelCheckpoint(folder, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    trainer = L.Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=2,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        check_val_every_n_epoch=None,
        val_check_interval=3,
        callbacks=[saved],
    )
    module = Recorder()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = MixtureDataModule(str(root), sources=only(refavs=1.0, mevis=1.0, refcocog=0.6), val_null_fraction=None)
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint)
    return module


def test_lightning_resumes_to_what_would_have_come(root, tmp_path):
    whole = fit(root, tmp_path / "whole")
    assert {len(ids) for _, ids in whole.seen} == {1}
    assert [epoch for epoch, _ in whole.seen] == sorted(epoch for epoch, _ in whole.seen)
    assert set(whole.validated) == {"refavs", "mevis", "refcocog"}
    for done in (1, len(whole.seen) // 2, len(whole.seen) // 2 + 1):
        checkpoint = tmp_path / "whole" / f"step={done}.ckpt"
        assert fit(root, tmp_path / "again", checkpoint).seen == whole.seen[done:], done
