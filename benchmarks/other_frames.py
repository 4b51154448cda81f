"""Other keyframes for answers that were already given: what System 2 makes of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from baselines import revos_part
from datamodules.avshapes.oracle import TrueDescriptions
from datamodules.lessons import fullest_frames
from datamodules.mixture import MixtureDataModule, Source, Sources
from datamodules.records import Clip, Keyframe, ParseReport, Plan, Rollout
from metrics.clips import rules_for, score_clip
from models.detector import DetectorGrounder
from models.pipeline import TwoSystemPipeline
from models.plan import parse_plan
from models.propagator import SAM2Propagator
from outcomes import Outcome, this_code
from side_by_side import digest_of, weights_digest

POLICIES = ("own", "oracle", "uniform", "random", "first")
"""Whose frames: the answer's own, of equal parts the fullest each by the ground truth, their middles, drawn at random,
the clip's first."""

WORDS = ("own", "true", "expression")
"""Whose descriptions: the answer's own, the true one, the expression as it is."""

DRAWS = 4
"""How often frames are drawn at random, for a mean over them."""


def choose_frames(policy: str, plan: Plan, clip: Clip, *, count: int, rng: np.random.Generator) -> tuple[int, ...]:
    """Frames of a plan by one of `POLICIES`.

    Args:
        policy: Which.
        plan: The model's own.
        clip: With masks.
        count: How many.
        rng: For random frames.

    Returns:
        In time order, from 0; fewer than asked for of a shorter clip, or where the target shows on fewer (oracle).

    Raises:
        ValueError: No such policy.
    """
    total = clip.frames.count
    if policy == "own":
        return tuple(keyframe.frame for keyframe in plan.keyframes)
    if policy == "oracle":
        return () if clip.masks is None else fullest_frames(clip.masks.areas.sum(axis=1), count)
    if policy == "uniform":
        # The middles of equal parts: with one frame the middle of the clip, not its start.
        return tuple(int((2 * index + 1) * total / (2 * count)) for index in range(min(count, total)))
    if policy == "random":
        return tuple(sorted(int(frame) for frame in rng.choice(total, size=min(count, total), replace=False)))
    if policy == "first":
        return (0,)
    raise ValueError(f"{policy!r} is none of {', '.join(POLICIES)}")


def plan_with(frames: Sequence[int], descriptions: Sequence[str], clip: Clip) -> Plan:
    """A plan of given frames; descriptions, at least one, are used in turn."""
    fps = clip.frames.fps
    words = [descriptions[index % len(descriptions)] for index in range(len(frames))]
    pairs = zip(frames, words, strict=False)
    keyframes = tuple(Keyframe(frame, text, frame / fps, (frame + 1) / fps) for frame, text in pairs)
    return Plan(keyframes, False, ParseReport(is_well_formed=True))


def frame_values(
    clip: Clip, text: str, words: str, pipeline: TwoSystemPipeline, rng: np.random.Generator
) -> dict[str, float]:
    """J&F of one clip for every policy and all of `WORDS`.

    Args:
        clip: With masks.
        text: The completion.
        words: The true description.
        pipeline: System 2.
        rng: For random frames.

    Returns:
        By ``<words>/<policy>``; empty for an answer that names no moment.
    """
    own = parse_plan(text, fps=clip.frames.fps, frames=clip.frames.count)
    count = len(own.keyframes)
    if not count:
        return {}
    chosen = [
        (policy, choose_frames(policy, own, clip, count=count, rng=rng))
        for policy in POLICIES
        for _ in range(DRAWS if policy == "random" else 1)
    ]
    said = {
        "own": [keyframe.description for keyframe in own.keyframes],
        "true": [words],
        "expression": [clip.expression],
    }
    plans = [
        (f"{source}/{policy}", plan_with(frames, said[source], clip)) for source in WORDS for policy, frames in chosen
    ]
    nothing = torch.zeros(0)
    rollouts = [Rollout(clip, index, "", nothing.long(), nothing, False, plan) for index, (_, plan) in enumerate(plans)]
    found = pipeline.fill(rollouts, {"boxes", "masks"})
    values: dict[str, list[float]] = {}
    for (name, _), rollout in zip(plans, found, strict=True):
        if rollout.masks is None:
            raise ValueError(f"{clip.id}: System 2 gave no masks")
        rules = rules_for(clip.task)
        scores = score_clip(clip.kind, rollout.masks, clip.masks, rules=rules, is_null=False, plan_absent=False)
        values.setdefault(name, []).append(float(scores.jf or 0.0))
    return {name: float(np.mean(scores)) for name, scores in values.items()}


def measured_clips(data: MixtureDataModule) -> Iterator[tuple[Clip, str]]:
    """Test clips with a target, with their true descriptions.

    Args:
        data: Of generated benchmarks; test clips must be drawn as they were when the answers were given.
    """
    data.prepare_data()
    data.setup("test")
    words = {name: TrueDescriptions(part.data_root) for name, part in data.parts.items()}
    for loader in data.test_dataloader():
        for batch in loader:
            clips = [clip for clip in batch if isinstance(clip, Clip) and not clip.is_null]
            yield from ((clip, words[clip.task](clip, 0)) for clip in clips)


@dataclass(frozen=True)
class Drawn:
    """Which test clips were answered, as `benchmarks/baselines.py` draws them.

    Attributes:
        clips: Most clips of each split of RefAVS.
        weights: Folder of grounder and propagator.
        cache: Folder of the generated benchmarks; None for the user's cache.
        sizes: Sizes of the generated benchmarks that differ from the defaults, by benchmark.
    """

    clips: int
    weights: Path
    cache: Path | None
    sizes: Mapping[str, Mapping[str, int]]

    def data(self) -> MixtureDataModule:
        """The clips."""
        made = {name: dict(self.sizes[name]) if name in self.sizes else None for name in ("refavs", "revos")}
        sources = Sources(
            refavs=Source(avshapes_sizes=made["refavs"]),
            revos=Source(avshapes_sizes=made["revos"], fps=1.0, **revos_part(self.clips)),
            mevis=Source(weight=0.0),
            refcocog=Source(weight=0.0),
        )
        cache = None if self.cache is None else str(self.cache)
        return MixtureDataModule(
            sources=sources, test_size=self.clips, close_up_max_pixels=224**2, avshapes_cache=cache
        )


Values = dict[str, dict[str, float]]
"""By clip id, J&F by ``<words>/<policy>``; nothing for an answer that names no moment."""


@dataclass(frozen=True)
class Measured:
    """What a run's answers would have given with other keyframes.

    Attributes:
        values: Of every clip with a target.
        codes: Commits of the code that has measured them.
    """

    values: Values
    codes: tuple[str, ...]


def measure(name: str, texts: Mapping[str, str], *, folder: Path, drawn: Drawn, code: str) -> Measured:
    """The values of every clip that is drawn; what an earlier call has measured is kept, with the commit that it had.

    Args:
        name: Of the run that gave the answers.
        texts: Its answers, by clip id, to all of the drawn clips.
        folder: Where measured values are kept, one file for these answers, weights and this very file.
        drawn: The clips.
        code: Commit of the code that measures now.
    """
    digest = digest_of(Path(__file__).read_text(), json.dumps(texts), weights_digest(drawn.weights))
    kept = folder / f"frames_{name}_{digest}.jsonl"
    lines = _whole_lines(kept)
    found: dict[str, tuple[dict[str, float], str]] = {clip: (values, by) for clip, values, by in map(json.loads, lines)}
    grounder = DetectorGrounder(str(drawn.weights / "grounder"))
    propagator = SAM2Propagator(str(drawn.weights / "propagator"))
    grounder.load()
    propagator.load()
    pipeline = TwoSystemPipeline(grounder, propagator)
    with kept.open("a") as file:
        for clip, words in measured_clips(drawn.data()):
            if clip.id not in found:
                rng = np.random.default_rng(sum(clip.id.encode()))
                found[clip.id] = frame_values(clip, texts[clip.id], words, pipeline, rng), code
                file.write(json.dumps([clip.id, *found[clip.id]]) + "\n")
                file.flush()
    codes = dict.fromkeys(by for _, by in found.values())
    return Measured({clip: values for clip, (values, _) in found.items()}, tuple(codes))


def _whole_lines(path: Path) -> list[str]:
    """The lines of a file that is begun or will be; one that was cut off is taken out."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = path.read_text() if path.exists() else ""
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        new = path.with_suffix(".new")
        new.write_text(whole)
        new.replace(path)
    return whole.splitlines()


def refuse_equal_names(answers: Sequence[Path]) -> None:
    """Runs are told apart by the names of their folders.

    Args:
        answers: Folders of runs.

    Raises:
        SystemExit: Two have one name.
    """
    by_name = {path.name: [str(one) for one in answers if one.name == path.name] for path in answers}
    twice = [" and ".join(paths) for paths in by_name.values() if len(paths) > 1]
    if twice:
        raise SystemExit(
            f"runs are told apart by the names of their folders, and these share one: {'; '.join(twice)}. Name one of"
            " them with --answers, or rename a folder."
        )


def refuse_other_clips(answers: Mapping[str, Outcome], drawn: Drawn) -> None:
    """All answers about a target have to be about the clips that are drawn here; absent targets have no frames.

    Args:
        answers: By the name of the run.
        drawn: The clips.

    Raises:
        SystemExit: A run was tested on more of them, on fewer, or on others.
    """
    here = {clip.id for clip, _ in measured_clips(drawn.data())}
    other = []
    for name, outcome in answers.items():
        tested = {clip for clip, values in outcome.clips.items() if "jf" in values}
        if tested != here:
            other.append(
                f"{name} answered {len(tested)} test clips with a target, {len(tested & here)} of them drawn here"
            )
    if other:
        raise SystemExit(
            f"{len(here)} test clips with a target are drawn here, and answers are about others: {'; '.join(other)}."
            " Give as many --clips as they were tested with, and name the sizes and the folder of generated clips by"
            " --avshapes-sizes and --cache."
        )


def measure_all(answers: Mapping[str, Outcome], folder: Path, drawn: Drawn, *, processes: int) -> dict[str, Measured]:
    """The values of several runs, by their names.

    Args:
        answers: By the name of the run, about the drawn clips; see `refuse_other_clips`.
        folder: Where measured values are kept.
        drawn: The clips.
        processes: How many runs at a time.
    """
    texts = [outcome.texts for outcome in answers.values()]
    work = partial(measure, folder=folder, drawn=drawn, code=this_code())
    if processes == 1:
        found = list(map(work, answers, texts))
    else:
        with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
            found = list(pool.map(work, answers, texts))
    return dict(zip(answers, found, strict=True))
