"""Whether System 1 has learned to write where the target is: on prompts that it was trained on, and on others.

A row that never learned to write boxes is told from one that cannot find the targets of new clips.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from jaxtyping import Bool

from datamodules.lessons import Lesson, place
from datamodules.mixture import MixtureDataModule, Source, Sources
from datamodules.records import Clip
from datamodules.revos import ReVOS
from grpo.engine import SampleRequest
from grpo.sampling import Sampling
from grpo.shared_engine import SharedEngine
from models.places import parse_places
from models.plan import parse_plan
from models.reasoner import Reasoner
from outcomes import newest_run, read_outcome, this_code
from side_by_side import digest_of, weights_digest

PROMPTS = 64
"""Training prompts that are answered once more."""


def place_iou(clip: Clip, text: str) -> float:
    """How well the places of an answer cover the target.

    Args:
        clip: With masks and a target.
        text: The completion.

    Returns:
        0..1: the mean over keyframes of intersection over union of stated and true boxes, several joined; 0 for an
        answer without keyframes.
    """
    plan = parse_plan(text, fps=clip.frames.fps, frames=clip.frames.count)
    ious = []
    for keyframe in plan.keyframes:
        stated, true = _painted(keyframe.description), _painted(place(clip, keyframe.frame))
        ious.append((stated & true).sum() / max(1, (stated | true).sum()))
    return float(np.mean(ious)) if ious else 0.0


def _painted(text: str) -> Bool[np.ndarray, "100 100"]:
    """The percents of a frame that places cover."""
    covered = np.zeros((100, 100), dtype=bool)
    for left, top, right, bottom in parse_places(text):
        covered[top:bottom, left:right] = True
    return covered


@dataclass(frozen=True)
class Learned:
    """Mean IoU of the places that a job's System 1 writes.

    Attributes:
        training: Over prompts that it was trained on.
        held_out: Over its test clips with a target.
        chance: Over these clips, with the places stated for others; what is no better than this finds nothing.
        measured_by: Commit of the code that measured.
    """

    training: float
    held_out: float
    chance: float
    measured_by: str


def learned(job: Path, root: Path, *, fps: float) -> Learned:
    """What a finished job has learned; measured once for its adapter, its answers and this very file.

    Args:
        job: Its folder, where that is kept.
        root: ReVOS tree that it was trained and tested on.
        fps: Frames per second of the videos.

    Raises:
        FileNotFoundError: The job has no training.
    """
    run, texts = newest_run(job), read_outcome(job).texts
    if run is None:
        raise FileNotFoundError(f"{job} has no training; only trained jobs have learned places")
    digest = digest_of(Path(__file__).read_text(), json.dumps(texts), weights_digest(run / "adapter"))
    kept = job / f"places_{digest}.json"
    if not kept.is_file():
        reader = ReVOS(root, split="valid", fps=fps)
        tested = [(clip, texts[clip.id]) for clip in reader if clip.id in texts and not clip.is_null]
        found = Learned(_mean_iou(training_answers(run)), _mean_iou(tested), _mean_iou(swapped(tested)), this_code())
        kept.write_text(json.dumps(asdict(found)) + "\n")
    return Learned(**json.loads(kept.read_text()))


def swapped(answers: Sequence[tuple[Clip, str]]) -> Iterator[tuple[Clip, str]]:
    """Every clip with the answer to another, half the list away, so that it is not one about the same video.

    Args:
        answers: Clips with their answers, at least two.
    """
    half = len(answers) // 2
    clips, texts = zip(*answers, strict=True)
    yield from zip(clips, [*texts[half:], *texts[:half]], strict=True)


def _mean_iou(answers: Sequence[tuple[Clip, str]] | Iterator[tuple[Clip, str]]) -> float:
    return float(np.mean([place_iou(clip, text) for clip, text in answers]))


def training_answers(run: Path) -> Iterator[tuple[Clip, str]]:
    """Greedy answers to prompts of a run's first epoch that have a target.

    Args:
        run: Run folder with the resolved configuration and the exported adapter.
    """
    config = yaml.safe_load((run / "config.yaml").read_text())
    model, data = config["model"]["init_args"], _data(config["data"]["init_args"])
    settings = model["reasoner"]["init_args"]
    reasoner = Reasoner(settings["path"], template=settings["template"], adapter=str(run / "adapter"))
    reasoner.load()
    greedy = Sampling(max_new_tokens=model["evaluation"]["max_new_tokens"], temperature=0.0)
    lessons = (item for batch in data.train_dataloader() for item in batch if isinstance(item, Lesson))
    clips = [lesson.clip for lesson in islice(lessons, PROMPTS) if not lesson.clip.is_null]
    for start in range(0, len(clips), 16):
        batch = clips[start : start + 16]
        requests = [SampleRequest(reasoner.encode(reasoner.prepare(clip)), [0]) for clip in batch]
        for clip, group in zip(batch, SharedEngine().sample(reasoner, requests, greedy), strict=True):
            yield clip, reasoner.decode(group[0].ids)


def _data(settings: dict[str, Any]) -> MixtureDataModule:
    sources = Sources(**{name: Source(**own) for name, own in settings["sources"].items()})
    data = MixtureDataModule(**{**settings, "sources": sources})
    data.setup("fit")
    return data
