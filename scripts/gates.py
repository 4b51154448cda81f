"""Measure whether a tiny reasoner is a fit start for reinforcement learning, with System 2 behind it.

    python scripts/gates.py --reasoner weights/tiny/reasoner

A good start uses the evidence and answers in form, but chooses and describes only roughly, so that there is something
to win. Printed for held-out scenes, and for such with looks and tones of the unseen split: the AUC of the yes/no
log-odds for every kind of evidence. Printed for held-out clips of both generated benchmarks: well-formed answers,
descriptions that are right (greedy, and best of 8), groups whose rewards differ, null answers, and how far the oracle
plan (best frame, true description) through the same System 2 is ahead of the greedy one.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
import yaml
from jsonargparse import ArgumentParser
from tqdm import tqdm

from datamodules.avshapes.descriptions import is_right_description
from datamodules.avshapes.make import ensure_avshapes
from datamodules.avshapes.oracle import true_description
from datamodules.avshapes.recipes import LessonData
from datamodules.avshapes.truth import Truth, read_truth
from datamodules.base import ClipDataModule
from datamodules.lessons import fullest_frames
from datamodules.modules import RefAVSDataModule, ReVOSDataModule
from datamodules.records import Clip, Keyframe, ParseReport, Plan, Rollout
from grpo.engine import SampleRequest
from grpo.noise import noise_key
from grpo.sampling import Sampling
from grpo.shared_engine import SharedEngine
from lightning_modules.sft_module import SFTModule
from metrics.region import region_j
from models.detector import DetectorGrounder
from models.pipeline import TwoSystemPipeline
from models.plan import parse_plan
from models.propagator import SAM2Propagator
from models.reasoner import Reasoner
from rewards import catalog  # noqa: F401 (a configuration names rewards by their bare names once they are imported)
from rewards.base import Reward
from rewards.suite import RewardSuite

CONFIGS = Path(__file__).parents[1] / "configs"
"""The runs whose start is judged, one per benchmark: measured is with their rewards, sampling and frames."""

SHOWN = ("fps", "clip_frames", "glance_frames", "glance_max_pixels", "close_up_max_pixels")
"""Settings of a data module that decide what is seen of a clip."""


@dataclass(frozen=True)
class ClipGates:
    """What one held-out clip showed; averages over clips are the gates."""

    is_null: bool
    well_formed: float
    right_greedy: float
    right_sampled: float
    right_best: float
    absent_greedy: float
    absent_sampled: float
    reward_spread: float
    reward_greedy: float
    reward_best: float
    j_greedy: float
    j_best: float
    j_oracle: float


def measure(
    reasoner: Reasoner, pipeline: TwoSystemPipeline, suite: RewardSuite, clip: Clip, truth: Truth, sampling: Sampling
) -> ClipGates:
    """Answer one clip greedily, eight times by sampling, and once by the oracle."""
    encoded = reasoner.encode(reasoner.prepare(clip))
    keys = [noise_key(seed=sampling.noise_seed, rollout_step=0, sample_id=clip.id, index=index) for index in range(8)]
    greedy = Sampling(max_new_tokens=sampling.max_new_tokens, temperature=0)
    engine = SharedEngine()
    completions = engine.sample(reasoner, [SampleRequest(encoded, [0])], greedy)[0]
    completions += engine.sample(reasoner, [SampleRequest(encoded, keys)], sampling)[0]
    rollouts = []
    for index, completion in enumerate(completions):
        text = reasoner.decode(completion.ids)
        plan = parse_plan(text, fps=clip.frames.fps, frames=clip.frames.count, max_keyframes=reasoner.max_keyframes)
        rollouts.append(Rollout(clip, index, text, completion.ids, completion.logprobs, completion.is_truncated, plan))
    ideal = oracle_plan(clip, truth, reasoner.max_keyframes)
    oracle = Rollout(clip, 9, "", completions[0].ids, completions[0].logprobs, False, ideal)
    filled = pipeline.fill([*rollouts, oracle], {"boxes", "masks"})
    totals = suite.score([filled[1:9]])[0].totals
    right = [all_right(rollout.plan, truth) for rollout in rollouts]
    j = [clip_j(rollout) for rollout in filled]
    return ClipGates(
        is_null=clip.is_null,
        well_formed=mean(rollout.plan.parse.is_well_formed for rollout in rollouts[1:]),
        right_greedy=right[0],
        right_sampled=mean(right[1:]),
        right_best=max(right[1:]),
        absent_greedy=float(rollouts[0].plan.is_absent),
        absent_sampled=mean(rollout.plan.is_absent for rollout in rollouts[1:]),
        reward_spread=float(np.std(totals) > 1e-3),
        reward_greedy=suite.score([filled[:1]])[0].totals[0],
        reward_best=max(totals),
        j_greedy=j[0],
        j_best=max(j[1:9]),
        j_oracle=j[9],
    )


def evidence_auc(reasoner: Reasoner, *, lessons: int, unseen_share: float) -> dict[str, float]:
    """AUC of the log-odds of "is it there" by kind of evidence, on scenes that no recipe draws.

    Args:
        reasoner: What is judged.
        lessons: Scenes.
        unseen_share: Share of the scenes that hold a look or a tone of the benchmark's unseen split.
    """
    module = SFTModule(reasoner)
    data = LessonData(
        1,
        expressions=10,
        demonstrations=0,
        world_questions=0,
        val_steps=-(-lessons // 8),
        val_unseen_share=unseen_share,
        seed=77,
    )
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    trainer.validate(module, data, verbose=False)
    prefix = "val/auc/there/"
    found = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith(prefix)}
    return {name.removeprefix(prefix): value for name, value in found.items()}


def oracle_plan(clip: Clip, truth: Truth, keyframes: int) -> Plan:
    """The frames that show most of the target, spread over the clip, with its true description; absent if null."""
    if clip.is_null or clip.masks is None:
        return Plan((), True, ParseReport(True))
    frames = fullest_frames(clip.masks.areas.sum(axis=1), keyframes)
    words = true_description(truth)
    fps = clip.frames.fps
    picks = tuple(Keyframe(frame, words, frame / fps, (frame + 1) / fps) for frame in frames)
    return Plan(picks, False, ParseReport(True))


def all_right(plan: Plan, truth: Truth) -> float:
    """1 when the plan names keyframes and each description picks out the targets and nothing else."""
    right = [is_right_description(keyframe.description, truth.things, truth.targets) for keyframe in plan.keyframes]
    return float(bool(right) and all(right))


def clip_j(rollout: Rollout) -> float:
    """Mean region J over the frames."""
    if rollout.masks is None or rollout.clip.masks is None:
        raise ValueError(f"{rollout.clip.id} has no masks to compare")
    return float(region_j(rollout.masks.union(), rollout.clip.masks.union()).mean())


def mean(values: Sequence[float] | object) -> float:
    """Average; NaN of nothing."""
    found = [float(value) for value in values]  # type: ignore[attr-defined]
    return float(np.mean(found)) if found else float("nan")


def report(rows: Sequence[ClipGates]) -> dict[str, float]:
    """The gates over all clips."""
    there = [row for row in rows if not row.is_null]
    null = [row for row in rows if row.is_null]
    return {
        "well_formed": mean(row.well_formed for row in rows),
        "right_greedy": mean(row.right_greedy for row in there),
        "right_sampled": mean(row.right_sampled for row in there),
        "right_best_of_8": mean(row.right_best for row in there),
        "absent_when_there_greedy": mean(row.absent_greedy for row in there),
        "absent_when_there_sampled": mean(row.absent_sampled for row in there),
        "absent_when_null_greedy": mean(row.absent_greedy for row in null),
        "absent_when_null_sampled": mean(row.absent_sampled for row in null),
        "groups_with_spread": mean(row.reward_spread for row in rows),
        "reward_greedy": mean(row.reward_greedy for row in rows),
        "reward_best_of_8": mean(row.reward_best for row in rows),
        "j_greedy": mean(row.j_greedy for row in there),
        "j_best_of_8": mean(row.j_best for row in there),
        "j_oracle": mean(row.j_oracle for row in there),
        "clips": float(len(rows)),
    }


def settings_of(config: Path) -> tuple[RewardSuite, Sampling, dict[str, Any]]:
    """How a run rewards and samples, made as the command line makes it, and what it shows of a clip."""
    content = yaml.safe_load(config.read_text())
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--rewards", type=dict[str, Reward])
    terms: dict[str, Reward] = parser.instantiate_classes(parser.parse_object({"rewards": content["rewards"]})).rewards
    data = content["data"]["init_args"]
    shown = {name: data[name] for name in SHOWN if name in data}
    return RewardSuite(terms), Sampling(**content["model"]["init_args"]["sampling"]), shown


def main() -> None:
    """Measure both benchmarks and print one table each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--reasoner", default="weights/tiny/reasoner")
    parser.add_argument("--grounder", default="weights/tiny/grounder")
    parser.add_argument("--propagator", default="weights/tiny/propagator")
    parser.add_argument("--clips", type=int, default=100)
    parser.add_argument("--lessons", type=int, default=240, help="held-out scenes whose evidence is asked for")
    parser.add_argument("--benchmarks", nargs="+", default=["refavs", "revos"], choices=["refavs", "revos"])
    options = parser.parse_args()
    torch.set_num_threads(1)
    reasoner = Reasoner(options.reasoner, template="short")
    reasoner.load()
    reasoner.eval()
    for share, title in ((0.0, "evidence AUC"), (1.0, "evidence AUC, scenes with unseen pairs")):
        auc = evidence_auc(reasoner, lessons=options.lessons, unseen_share=share)
        print(title, json.dumps({name: round(value, 3) for name, value in auc.items()}, indent=1))
    pipeline = TwoSystemPipeline(DetectorGrounder(options.grounder), SAM2Propagator(options.propagator))
    pipeline.grounder.load()
    pipeline.propagator.load()
    modules: dict[str, type[ClipDataModule]] = {"refavs": RefAVSDataModule, "revos": ReVOSDataModule}
    for benchmark in options.benchmarks:
        suite, sampling, shown = settings_of(CONFIGS / f"{benchmark}.yaml")
        data = modules[benchmark](val_size=options.clips, **shown)
        data.prepare_data()
        data.setup("validate")
        truths = {(truth.clip, truth.expression_id): truth for truth in read_truth(Path(ensure_avshapes(benchmark)))}
        rows = []
        for clip in tqdm([clip for batch in data.val_dataloader() for clip in batch], benchmark, mininterval=5):
            row = clip.expression_id.partition("_")[0]
            truth = truths[clip.video, str(int(row)) if benchmark == "refavs" else clip.expression_id]
            rows.append(measure(reasoner, pipeline, suite, clip, truth, sampling))
        print(benchmark, json.dumps({name: round(value, 3) for name, value in report(rows).items()}, indent=1))


if __name__ == "__main__":
    main()
