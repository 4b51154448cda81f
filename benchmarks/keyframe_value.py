"""What keyframes are worth, and what the compute of two systems would buy for one.

    python benchmarks/keyframe_value.py
    python benchmarks/keyframe_value.py --quick

*Frames.* The answers of finished runs (`--answers`; those of `benchmarks/baselines.py` without training and with all
rewards, if they are there) keep their descriptions and get other keyframes: drawn at random, spread evenly, the fullest
by the ground truth (oracle), the first frame alone. The same with true descriptions, so that only the frames differ.
System 2 makes the masks; nothing is trained.

*Compute.* On ReVOS-like clips of 20 frames, the same prompts train policies of two kinds: two systems (System 1 sees 10
frames and describes, System 2 looks closer), and System 1 alone, which writes where the target is on each keyframe and
spends the compute on more frames, more pixels, or both. Masks are propagated by the same SAM2 for all. Compute is
counted in floating-point operations per clip. Written: `docs/results_keyframes.md` and the numbers beside those of the
other table.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from baselines import GRPO, PARTS, SFT
from callbacks.media import markdown_table
from compute import ComputeMeter
from datamodules.avshapes.make import ensure_avshapes
from datamodules.avshapes.settings import WORLDS
from datamodules.mixture import MixtureDataModule, Source, Sources
from metrics.version import commit
from other_frames import frame_table
from score_tables import column, interval, scored, shown
from side_by_side import (
    ROOT,
    Job,
    Outcome,
    config_digests,
    read_outcome,
    remember,
    results_of,
    run_jobs,
    weights_digest,
)

FRAMES, FPS = 20, 2.0
PLACES = "configs/baselines/sft_places.yaml"


@dataclass(frozen=True)
class Variant:
    """One way to spend compute.

    Attributes:
        name: Of its folder.
        title: What the table calls it.
        configs: Configuration files.
        frames: Frames that System 1 sees.
        side: Side of these frames in pixels.
        alone: Whether System 1 finds the target itself.
    """

    name: str
    title: str
    configs: tuple[str, ...]
    frames: int
    side: int
    alone: bool


VARIANTS = (
    Variant("two_grpo", "two systems, GRPO", (GRPO,), 10, 112, alone=False),
    Variant("two_sft", "two systems, supervised", (SFT,), 10, 112, alone=False),
    Variant("one", "System 1 alone", (SFT, PLACES), 10, 112, alone=True),
    Variant("one_frames", "System 1 alone, all 20 frames", (SFT, PLACES), 20, 112, alone=True),
    Variant("one_pixels", "System 1 alone, 4 x the pixels", (SFT, PLACES), 10, 224, alone=True),
    Variant("one_both", "System 1 alone, both", (SFT, PLACES), 20, 224, alone=True),
)


ANSWERED = ("base_seed0", "rk_ra_rg_seed0")
"""Runs of `benchmarks/baselines.py` whose frames are replaced unless others are named."""

AGAINST = ("two_sft", "two_grpo")
"""What others are compared with: the first of these that was made. System 1 alone is supervised, as the first is."""


def finished_answers(quick: bool) -> list[Path]:
    """Folders of the runs in `ANSWERED` that have been tested."""
    folder = ROOT / "runs" / ("baselines_quick" if quick else "baselines")
    return [folder / name for name in ANSWERED if results_of(folder / name) is not None]


def answered_clips(options: argparse.Namespace) -> MixtureDataModule:
    """The test clips of `benchmarks/baselines.py`, drawn as there."""
    sizes = json.loads(options.avshapes_sizes)
    made = {name: sizes.get(name) for name in ("refavs", "revos")}
    sources = Sources(
        refavs=Source(avshapes_sizes=made["refavs"]),
        revos=Source(avshapes_sizes=made["revos"], fps=1.0),
        mevis=Source(weight=0.0),
        refcocog=Source(weight=0.0),
    )
    cache = None if options.cache is None else str(options.cache)
    return MixtureDataModule(sources=sources, test_size=options.clips, close_up_max_pixels=224**2, avshapes_cache=cache)


def long_clips(options: argparse.Namespace) -> Path:
    """ReVOS-like videos with twice the frames, so that System 1 can see more than it is shown."""
    world = replace(WORLDS["revos"], frames=FRAMES, fps=FPS)
    sizes = {"train": options.videos, "valid": max(2, options.videos // 3)}
    return ensure_avshapes("revos", sizes=sizes, world=world, cache_dir=options.cache)


def make_jobs(options: argparse.Namespace, root: Path, seeds: Sequence[int], extra: Sequence[str]) -> list[Job]:
    """One job per variant and seed."""
    revos = [f"--data.sources.revos.root={root}", f"--data.sources.revos.fps={FPS}"]
    revos += [f"--data.sources.revos.clip_frames={FRAMES}", "--data.sources.refavs.weight=0"]
    quiet = ["--trainer.limit_val_batches=0", "--trainer.num_sanity_val_steps=0", "--overlays.clips=0"]
    jobs = []
    for seed in seeds:
        for one in (variant for variant in VARIANTS if variant.name in options.variants):
            looks = [f"--data.glance_frames={one.frames}", f"--data.glance_max_pixels={one.side**2}"]
            seeded = [f"--seed_everything={seed}", f"--data.seed={seed}"]
            seeded += [f"--data.sources.revos.train_size={options.prompts}"]
            seeded += [f"--model.sampling.seed={seed}"] if one.configs[0] == GRPO else []
            paths = [flag for flag in extra if not (one.alone and flag.startswith("--model.grounder"))]
            fit = [*revos, *looks, *seeded, *quiet, *paths]
            test = ["--data.seed=0", f"--data.test_size={options.clips}", "--overlays.clips=0"]
            jobs.append(Job(f"{one.name}_seed{seed}", one.configs, tuple(fit), tuple(test)))
    return jobs


def compute_table(
    table: Mapping[str, Sequence[Outcome]], root: Path, weights: Path, *, against: str
) -> tuple[str, dict[str, Any]]:
    """Compute and scores of every variant.

    Args:
        table: Runs by variant.
        root: Folder of the clips.
        weights: Folder of all three models.
        against: Variant that the others are compared with.
    """
    keys = ("referring/jf", "reasoning/jf")
    meter = ComputeMeter(weights, root, fps=FPS)
    header = ["", "frames", "side", "System 1", "grounder", "SAM2", "J&F", f"minus {against}", "seconds"]
    rows, numbers = [], {}
    for one in (variant for variant in VARIANTS if variant.name in table):
        outcomes = table[one.name]
        spent = meter.measure(frames=one.frames, side=one.side, alone=one.alone)
        values = [column(outcome, keys) for outcome in outcomes]
        change = "" if one.name == against else shown(interval(outcomes, table[against], keys))
        seconds = np.mean([outcome.seconds for outcome in outcomes])
        shares = [f"{value:.2f}" for value in (spent.system_1, spent.grounder, spent.propagator)]
        rows.append(
            [one.title, str(one.frames), str(one.side), *shares, scored(np.array(values)), change, f"{seconds:.0f}"]
        )
        numbers[one.name] = {"gflop": vars(spent), "jf": values}
    return markdown_table(header, rows), numbers


def parse(arguments: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """Options, and flags that are passed on to every training."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one seed, fewer prompts, fewer test clips")
    parser.add_argument("--seeds", nargs="+", type=int, help="default: 0 1 2, with --quick 0")
    parser.add_argument("--variants", nargs="*", choices=[v.name for v in VARIANTS], default=[v.name for v in VARIANTS])
    parser.add_argument(
        "--answers",
        nargs="*",
        type=Path,
        help="folders of finished runs whose frames are replaced (default: those of runs/baselines that are named in"
        " ANSWERED; no folder leaves this part out)",
    )
    parser.add_argument("--prompts", type=int, help="training prompts (default: 256, with --quick 96)")
    parser.add_argument("--clips", type=int, help="most test clips of each split (default: 120, with --quick 40)")
    parser.add_argument("--videos", type=int, default=300, help="training videos with 20 frames")
    parser.add_argument("--processes", type=int, default=2, help="runs side by side")
    parser.add_argument("--folder", type=Path, help="where the run folders go (default: runs/keyframes or ..._quick)")
    parser.add_argument("--cache", type=Path, help="where generated clips go (default: the user's cache)")
    parser.add_argument(
        "--avshapes-sizes", default="{}", help="JSON of the sizes by benchmark that the answered clips were made with"
    )
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "results_keyframes.md")
    parser.add_argument("--json", type=Path, default=ROOT / "benchmarks" / "results" / "keyframe_value.json")
    parser.add_argument("--weights", type=Path, default=ROOT / "weights" / "tiny")
    return parser.parse_known_args(arguments)


_FRAMES = """\
Answers keep their descriptions (*own*), or get a true one (*true*), and the same number of other keyframes: the fullest
by the ground truth (oracle), evenly spread, at random (a mean over four draws), or the clip's first frame alone. J&F
times 100 over test clips with a target; differences are paired over clips, with 95 % intervals over videos. An answer
that names no moment counts as empty masks wherever its own words or frames are needed."""

_COMPUTE = """\
ReVOS-like clips of 20 frames; the same training prompts for every row. *System 1 alone* is supervised to write where
the target is on each keyframe and looks no closer; masks are propagated by the same SAM2. Compute in GFLOP per clip:
System 1 reads its frames and writes four keyframes, the grounder looks at four keyframes, SAM2 propagates one object.
J&F is the mean of referring and reasoning, times 100. What the others are compared with is supervised as they are, so
that the way of training is the same; a row with GRPO has one more advantage. Intervals are over videos."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is left, write and print."""
    options, extra = parse(arguments)
    seeds = options.seeds or ([0] if options.quick else [0, 1, 2])
    options.prompts = options.prompts or (96 if options.quick else 256)
    options.clips = options.clips or (40 if options.quick else 120)
    parts = ["# Keyframes and compute"]
    numbers: dict[str, Any] = {}
    if options.answers is None:
        options.answers = finished_answers(options.quick)
        if not options.answers:
            print(
                "no finished runs in runs/baselines: frames are not replaced. Make them, or name others with --answers"
            )
    if options.answers:
        answers = {folder.name: read_outcome(folder) for folder in options.answers}
        text, numbers["frames"] = frame_table(answers, answered_clips(options), options.weights)
        parts += ["## What other keyframes would have given", _FRAMES, text]
    if options.variants:
        folder = (options.folder or ROOT / "runs" / ("keyframes_quick" if options.quick else "keyframes")).resolve()
        extra = [*(f"--model.{part}.path={options.weights / part}" for part in PARTS), *extra]
        kept = {"prompts": options.prompts, "clips": options.clips, "videos": options.videos, "extra": extra}
        root = long_clips(options)
        jobs = make_jobs(options, root, seeds, extra)
        remember(folder, kept | {"weights": weights_digest(options.weights)} | config_digests(jobs))
        run_jobs(jobs, folder, processes=options.processes)
        table = {name: [read_outcome(folder / f"{name}_seed{seed}") for seed in seeds] for name in options.variants}
        text, numbers["compute"] = compute_table(
            table, root, options.weights, against=next((one for one in AGAINST if one in table), options.variants[0])
        )
        parts += ["## The same compute for one system", _COMPUTE, text]
    source = {
        "command": " ".join(["python", "benchmarks/keyframe_value.py", *(arguments or sys.argv[1:])]),
        "commit": commit(ROOT),
        "weights": weights_digest(options.weights),
    }
    parts.append("\n".join(f"- {name}: {value}" for name, value in source.items()))
    for path, content in (
        (options.page, "\n\n".join(parts)),
        (options.json, json.dumps({"provenance": source} | numbers)),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content + "\n")
    print("\n\n".join(parts))


if __name__ == "__main__":
    main()
