"""Held-out results: one record per clip, and the means that are logged.

Records of all processes are put together before any mean is taken, so that a value does not depend on how clips were
spread; a clip that a loader repeated to fill up a batch counts once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import torch.distributed as dist

from datamodules.records import Clip, Rollout, Task
from metrics.clips import ClipScores, Place, official_scores

_Item = TypeVar("_Item")


@dataclass(frozen=True)
class EvaluationSettings:
    """How held-out clips are answered and what is kept of it.

    Attributes:
        max_new_tokens: Longest answer in tokens; None takes `model.sampling.max_new_tokens`, or 192 in supervised
            training, which samples nothing.
        segment: Run System 2 to the end and score masks; without it System 2 runs as far as a weighted reward needs.
        keep_rollouts: How many answers per process are kept with their boxes and masks, for pictures.
    """

    max_new_tokens: int | None = None
    segment: bool = True
    keep_rollouts: int = 16


@dataclass(frozen=True)
class ClipResult:
    """How one held-out clip was answered.

    Attributes:
        scores: Clip id, kind, J, F, S and null answer; see `ClipScores`. None when masks were not scored.
        clip_id: Which clip.
        kind: Group that results are reported by.
        text: The greedy completion.
        rewards: Value of each reward term, None where it does not apply; empty without ground truth.
        total: Weighted sum of the rewards; None without ground truth.
        is_unparsable: The completion gave neither a keyframe nor an absent answer.
        task: The clip's benchmark.
        video: What the clip is a question about; questions about one video are not independent.
    """

    scores: ClipScores | None
    clip_id: str
    kind: str
    text: str
    rewards: dict[str, float | None]
    total: float | None
    is_unparsable: bool
    task: Task
    video: str


@dataclass(frozen=True)
class Evaluation:
    """One pass over held-out clips.

    Attributes:
        rollout_step: Training rollouts before it.
        results: All clips of all processes, each once, in order of their ids.
        rollouts: Some answers of this process with boxes and masks.
        metrics: What was logged.
        official: The benchmarks' own averages, per benchmark by ``<group>/<score>``, 0..1; empty during a training.
    """

    rollout_step: int
    results: tuple[ClipResult, ...]
    rollouts: tuple[Rollout, ...]
    metrics: dict[str, float]
    official: dict[Task, dict[str, float]] = field(default_factory=dict)


def of_all_processes(items: Iterable[_Item]) -> list[_Item]:
    """What every process has, process by process; every process must call it."""
    shares = [list(items)]
    if dist.is_available() and dist.is_initialized():
        own, shares = shares[0], [[] for _ in range(dist.get_world_size())]
        dist.all_gather_object(shares, own)
    return [item for share in shares for item in share]


def gather_results(results: Sequence[ClipResult]) -> tuple[ClipResult, ...]:
    """Results of all processes, each clip once, in order of their ids; every process must call it."""
    by_id = {result.clip_id: result for result in of_all_processes(results)}
    return tuple(by_id[clip_id] for clip_id in sorted(by_id))


def place_of(clip: Clip) -> Place:
    """Where a clip with ground truth stands in its benchmark."""
    objects = 0 if clip.masks is None or clip.is_null else clip.masks.objects
    return Place(clip.task, clip.split, clip.group, clip.position, objects)


def official_metrics(official: Mapping[Task, Mapping[str, float]], *, prefix: str) -> dict[str, float]:
    """The benchmarks' own averages by log key, ``<prefix>official/<benchmark>/<group>/<score>``."""
    return {
        f"{prefix}official/{task}/{name}": value for task, scores in official.items() for name, value in scores.items()
    }


def official_results(results: Sequence[ClipResult]) -> dict[Task, dict[str, float]]:
    """The benchmarks' own averages over clips that were scored; see `metrics.clips.official_scores`."""
    return official_scores(result.scores for result in results if result.scores is not None)


def evaluation_metrics(results: Sequence[ClipResult], *, prefix: str) -> dict[str, float]:
    """Means by log key.

    Args:
        results: From `gather_results`.
        prefix: What every key begins with, such as "val/".

    Returns:
        Under the prefix: "j", "f", "jf" and "false_absent" over clips with a target, "s", "null_accuracy" and
        "null_empty" over null clips, all in 0..1; "reward", "rewards/<term>" and "parse_failures" over all clips. The
        first seven also per kind, as "<kind>/j", and per benchmark where there are several, as "<benchmark>/j". A key
        that no clip counts for is left out.
    """
    metrics = _score_means(results, prefix)
    for kind in sorted({result.kind for result in results}):
        metrics |= _score_means([result for result in results if result.kind == kind], f"{prefix}{kind}/")
    tasks = sorted({result.task for result in results})
    for task in tasks if len(tasks) > 1 else ():
        metrics |= _score_means([result for result in results if result.task == task], f"{prefix}{task}/")
    metrics |= _mean(f"{prefix}reward", (result.total for result in results))
    metrics |= _mean(f"{prefix}parse_failures", (result.is_unparsable for result in results))
    for name in dict.fromkeys(name for result in results for name in result.rewards):
        metrics |= _mean(f"{prefix}rewards/{name}", (result.rewards.get(name) for result in results))
    return metrics


def _score_means(results: Iterable[ClipResult], prefix: str) -> dict[str, float]:
    scores = [result.scores for result in results if result.scores is not None]
    columns: dict[str, Iterable[float | None]] = {
        "j": (score.j for score in scores),
        "f": (score.f for score in scores),
        "jf": (score.jf for score in scores),
        "false_absent": (None if score.is_null else score.says_absent for score in scores),
        "s": (score.s for score in scores),
        "null_accuracy": (score.is_null_right for score in scores),
        "null_empty": (score.is_null_empty for score in scores),
    }
    return {key: value for name, column in columns.items() for key, value in _mean(prefix + name, column).items()}


def _mean(key: str, column: Iterable[float | None]) -> dict[str, float]:
    """The mean of what is not None under its key; nothing when there is nothing."""
    values = [float(value) for value in column if value is not None]
    return {key: sum(values) / len(values)} if values else {}
