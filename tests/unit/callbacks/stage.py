"""What callbacks act on, without a training: a trainer's face, a logger that remembers, rollouts and results."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from small_models import noisy_clip

from datamodules.masks import MaskTrack
from datamodules.records import FrameGrounding, Grounding, Keyframe, ParseReport, Plan, Rollout
from lightning_modules.evaluation import ClipResult, Evaluation, evaluation_metrics
from lightning_modules.records import GroupRecord
from metrics.clips import ClipScores
from rewards.suite import RewardOutput


class Writer:
    """Takes what TensorBoard's writer takes, and remembers it."""

    def __init__(self) -> None:
        self.texts: dict[str, tuple[str, int]] = {}
        self.images: dict[str, tuple[np.ndarray, int]] = {}
        self.sounds: dict[str, tuple[np.ndarray, int]] = {}

    def add_text(self, tag: str, text: str, step: int) -> None:
        self.texts[tag] = (text, step)

    def add_image(self, tag: str, image: np.ndarray, step: int, dataformats: str) -> None:
        assert dataformats == "HWC"
        self.images[tag] = (image, step)

    def add_audio(self, tag: str, samples: np.ndarray, step: int, sample_rate: int) -> None:
        assert sample_rate == 16_000
        self.sounds[tag] = (samples, step)


class Logger:
    """A logger around a writer, or around something that takes no media."""

    def __init__(self, experiment: object) -> None:
        self.experiment = experiment
        self.metrics: list[tuple[dict[str, float], int]] = []

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        self.metrics.append((metrics, step))


def trainer_like(loggers: Sequence[Logger] = (), *, folder: Path | None = None, **more: Any) -> Any:
    """Just what callbacks read from a trainer."""
    values: dict[str, Any] = {
        "loggers": list(loggers),
        "log_dir": None if folder is None else str(folder),
        "is_global_zero": True,
        "global_rank": 0,
        "global_step": 3,
        "world_size": 1,
        "callback_metrics": {},
        "fit_loop": SimpleNamespace(epoch_loop=SimpleNamespace(total_batch_idx=0)),
        "state": SimpleNamespace(fn="fit"),
        "sanity_checking": False,
        "checkpoint_callback": None,
        "datamodule": None,
        "lightning_module": None,
        "ckpt_path": None,
        "max_steps": -1,
        "max_epochs": None,
        "num_training_batches": 10,
    }
    return SimpleNamespace(**(values | more))


def plan_of(frames: Sequence[int], text: str = "the red circle", *, is_absent: bool = False) -> Plan:
    keyframes = tuple(Keyframe(frame, text, float(frame), frame + 0.5) for frame in frames)
    return Plan(keyframes, is_absent, ParseReport(is_well_formed=True))


def rollout_of(
    name: str = "refavs/val/0:clip", *, frames: Sequence[int] = (1, 3), text: str = "<think>a</think>", **clip: Any
) -> Rollout:
    """Keyframes with the right boxes, and masks that are right on all frames."""
    shown = noisy_clip(name, **clip)
    masks = shown.masks
    assert isinstance(masks, MaskTrack)
    boxes = [masks.boxes(frame).astype(np.float32) for frame in frames]
    found = tuple(FrameGrounding(f, b, np.ones(len(b), np.float32)) for f, b in zip(frames, boxes, strict=True))
    ids = torch.arange(4)
    plan = plan_of(frames, is_absent=not frames)
    return Rollout(shown, 0, text, ids, torch.zeros(4), False, plan, Grounding(found), masks)


def group_of(rollouts: Sequence[Rollout], **values: Sequence[float | None]) -> GroupRecord:
    totals = [float(index) for index in range(len(rollouts))]
    output = RewardOutput({name: list(column) for name, column in values.items()}, totals)
    return GroupRecord(tuple(rollouts), output, tuple(totals))


def result_of(name: str, *, kind: str = "seen", j: float | None = 0.5, total: float = 1.0, **more: Any) -> ClipResult:
    is_null = j is None
    scores = ClipScores(name, kind, is_null, more.pop("says_absent", False), j, j, None, True if is_null else None)
    return ClipResult(scores, name, kind, "text", {"format": 1.0}, total, False, "refavs", name)


def evaluation_of(
    results: Sequence[ClipResult], *, step: int = 0, rollouts: Sequence[Rollout] = (), prefix: str = "val/"
) -> Evaluation:
    return Evaluation(step, tuple(results), tuple(rollouts), evaluation_metrics(results, prefix=prefix))
