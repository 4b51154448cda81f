"""What System 2 costs for a group of G rollouts on one clip, beside a single rollout.

    python benchmarks/system2.py
    python benchmarks/system2.py --size large --device cuda
    python benchmarks/system2.py --size large --device cuda --grounder reasoner --shape 7b

A clip of moving discs is grounded and propagated for groups of 2, 4, 8 and 16 rollouts in turn, every time anew, and
for each rollout singly with nothing kept between them, as a trainer does that calls System 2 per completion. There are
three kinds of groups. *Apart*: every rollout picks two frames of its own and describes them in its own words, the worst
there can be. *Alike*: half of the rollouts say what another one says, as happens when a policy has an opinion.
*Sampled* (`--kinds`) is not made up: it takes `--clips` held-out clips of the generated RefAVS benchmark and what the
embedded reasoner answers to them before any training; a group is the first G answers to a clip. What a group costs is
compared with the mean of single rollouts, without those that name no frame, which cost nothing.

`--size tiny` are the embedded weights, `random` the same without weights on disk, and `large` are random weights in the
published sizes of OWL-ViT L/14 and SAM2.1 Hiera L. `--grounder reasoner` asks the base model instead, as real runs do:
random weights in the shape of Qwen2.5-Omni, keyframes of 840 x 840 pixels, answers of `--answer_tokens`; `--unshared`
reads a keyframe again with every question.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch

from callbacks.media import markdown_table
from datamodules.avshapes.settings import WORLDS
from datamodules.records import Clip, Frames, Keyframe, ParseReport, Plan
from models.detector import DetectorGrounder
from models.grounder import Grounder
from models.pipeline import TwoSystemPipeline
from models.propagator import SAM2Propagator
from models.sam2_loading import build_predictor, released_configs
from models.tiny.detector import DetectorSizes, build_detector, build_detector_processor
from models.tiny.propagator import build_tiny_propagator
from speed.asking import build_grounder
from speed.laps import Laps
from speed.results import FOLDER, Results
from speed.sampled_groups import sampled_groups, unseen
from speed.shapes import SHAPES

COLORS = {
    "red": (230, 40, 40), "green": (40, 200, 60), "blue": (50, 80, 230), "yellow": (240, 220, 40),
    "purple": (150, 60, 200), "orange": (250, 140, 30), "cyan": (40, 210, 220), "pink": (250, 150, 190),
}  # fmt: skip
WORDS = ("the {} disc", "a {} disc that moves", "the disc that is {}", "something round and {}")
LARGE = DetectorSizes(
    side=840,
    patch=14,
    vision_hidden=1024,
    vision_layers=24,
    vision_heads=16,
    vision_feed_forward=4096,
    text_hidden=768,
    text_layers=12,
    text_heads=12,
)
PARTS = ("boxes", "masks")
KINDS = ("apart", "alike", "sampled")


class DiscFrames(Frames):
    """Eight discs of different colors, each moving on its own circle."""

    def __init__(self, count: int, side: int) -> None:
        """Draw all frames.

        Args:
            count: How many.
            side: Height and width in pixels.
        """
        self.count, self.fps = count, 1.0
        self.pixels = np.full((count, side, side, 3), 24, dtype=np.uint8)
        y, x = np.mgrid[:side, :side] / side
        for number, color in enumerate(COLORS.values()):
            row, column = divmod(number, 4)
            for frame, picture in enumerate(self.pixels):
                angle = 2 * np.pi * (frame / max(count, 8) + number / 8)
                center = (0.25 + 0.5 * row + 0.08 * np.sin(angle), 0.125 + 0.25 * column + 0.05 * np.cos(angle))
                picture[(y - center[0]) ** 2 + (x - center[1]) ** 2 < 0.07**2] = color

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.pixels.shape[1], self.pixels.shape[2]

    def read(self, indices: Sequence[int], *, max_pixels: int | None = None) -> np.ndarray:
        """Frames at their size, which is within every budget here."""
        del max_pixels
        return self.pixels[list(indices)]


def main() -> None:
    """Measure what is missing and write the page."""
    options = parse()
    results = Results(options.out)
    torch.set_num_threads(options.threads)
    pipeline = None
    for run in range(options.runs):
        for point in points(options):
            if results.missing(point, run):
                pipeline = pipeline or build(options)
                values = measure(pipeline, point, options)
                results.add(point, run, values)
                print(table(results, [point]), flush=True)
    results.write_page("System 2 for a group of rollouts", table(results, results.points()))


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=["tiny", "random", "large"], default="tiny")
    parser.add_argument("--grounder", choices=["detector", "reasoner"], default="detector")
    parser.add_argument("--shape", choices=list(SHAPES), default="7b", help="of the reasoner that is asked")
    parser.add_argument("--answer_tokens", type=int, default=48, help="of each of its answers; a box takes some 40")
    parser.add_argument("--unshared", action="store_true", help="read a keyframe with every question about it")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--groups", nargs="+", type=int, default=[2, 4, 8, 16])
    parser.add_argument("--frames", nargs="+", type=int, default=[10], help="frames of the clip")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=["apart", "alike"])
    parser.add_argument("--clips", type=int, default=8, help="of sampled answers")
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds per run, after one that is not")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="one tiny point, to see that it works")
    parser.add_argument("--out", type=Path, default=FOLDER / "system2.json")
    options = parser.parse_args()
    if min(options.groups) < 2:
        parser.error(f"--groups are of at least 2 rollouts, found {min(options.groups)}; 1 is always measured.")
    if options.quick:
        options.size, options.groups, options.frames, options.kinds = "random", [2], [3], ["apart"]
        options.rounds, options.runs, options.shape, options.answer_tokens = 1, 1, "quick", 4
    return options


def points(options: argparse.Namespace) -> list[dict[str, Any]]:
    """What to measure; sampled answers belong to clips of one length."""
    fixed = {"size": size_name(options), "device": options.device}
    made = [kind for kind in options.kinds if kind != "sampled"]
    found = [fixed | {"frames": frames, "kind": kind} for frames in options.frames for kind in made]
    if "sampled" in options.kinds:
        found.append(fixed | {"frames": WORLDS["refavs"].frames, "kind": f"sampled, {options.clips} clips"})
    return found


def size_name(options: argparse.Namespace) -> str:
    """Size of the parts, and what takes the detector's place."""
    if options.grounder == "detector":
        return str(options.size)
    how = ", unshared" if options.unshared else ""
    return f"{options.size}, reasoner {options.shape}, answers of {options.answer_tokens}{how}"


def build(options: argparse.Namespace) -> TwoSystemPipeline:
    """Both halves of System 2."""
    size, device = options.size, torch.device(options.device)
    propagator = SAM2Propagator("weights/tiny/propagator", dtype="bfloat16" if size == "large" else "float32")
    if size == "tiny":
        propagator.load()
    else:
        released = Path(str(files("sam2") / released_configs()["sam2.1_hiera_l"]))
        propagator.use(build_predictor(released) if size == "large" else build_tiny_propagator())
    grounder: Grounder
    if options.grounder == "detector":
        grounder = detector(size)
    else:
        grounder = build_grounder(
            options.shape,
            device=device,
            dtype=torch.bfloat16 if size == "large" else torch.float32,
            answer_tokens=options.answer_tokens,
            shared=not options.unshared,
        )
    return TwoSystemPipeline(grounder.to(device), propagator.to(device))


def detector(size: str) -> DetectorGrounder:
    """A detector whose best box always counts, so that there is something to propagate."""
    grounder = DetectorGrounder(threshold=0.0, keep_best=True, max_boxes=1, batch_size=16)
    if size == "tiny":
        grounder.load()
    else:
        sizes = LARGE if size == "large" else DetectorSizes()
        processor = build_detector_processor([text.format("red") for text in WORDS], sizes)
        grounder.use(build_detector(processor, sizes), processor)
    return grounder


def measure(pipeline: TwoSystemPipeline, point: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """All rollouts singly and every group size in every round; medians of seconds, and of the ratios to one rollout."""
    laps, cases = Laps(torch.device(point["device"])), clips_and_plans(point, options)
    rounds = [one_round(pipeline, cases, options.groups, laps) for _ in range(options.rounds + 1)][1:]
    names, plans = list(rounds[0]), [plan for _, group in cases for plan in group]
    return {
        "seconds": {
            name: {part: statistics.median(found[name][part] for found in rounds) for part in PARTS} for name in names
        },
        "ratios": {
            name: statistics.median(sum(found[name].values()) / sum(found["1"].values()) for found in rounds)
            for name in names
        },
        "share_without_frames": sum(not plan.keyframes for plan in plans) / len(plans),
    }


def one_round(
    pipeline: TwoSystemPipeline, cases: Sequence[tuple[Clip, list[Plan]]], groups: Sequence[int], laps: Laps
) -> dict[str, dict[str, float]]:
    """Mean seconds per clip: of one rollout that names frames, of every group, and of the largest one by one."""
    found = {name: dict.fromkeys(PARTS, 0.0) for name in ("1", *map(str, groups), f"{max(groups)}, one by one")}

    def add(name: str, taken: Mapping[str, float], share: float) -> None:
        for part in PARTS:
            found[name][part] += share * taken[part] / len(cases)

    for clip, plans in cases:
        for group in groups:
            fill(pipeline, unseen(clip), plans[:group], laps)
            add(str(group), laps.take(), 1.0)
        named = sum(bool(plan.keyframes) for plan in plans)
        for plan in plans:
            fill(pipeline, unseen(clip), [plan], laps)
            taken = laps.take()
            add(f"{max(groups)}, one by one", taken, 1.0)
            if plan.keyframes:
                add("1", taken, 1.0 / named)
    return found


def clips_and_plans(point: Mapping[str, Any], options: argparse.Namespace) -> list[tuple[Clip, list[Plan]]]:
    """Clips, each with the plans of its largest group; smaller groups are their beginnings."""
    most = max(options.groups)
    if point["kind"].startswith("sampled"):
        return [case for case in sampled_groups(options.clips, most) if any(plan.keyframes for plan in case[1])]
    frames = DiscFrames(point["frames"], picture_side(options))
    clip = Clip(id="discs", task="video", split="", kind="", expression="", frames=frames)
    return [(clip, plans_of_group(most, point))]


def picture_side(options: argparse.Namespace) -> int:
    """Pixels on a side of a frame; 840 x 840 is the budget of a keyframe in real runs."""
    if options.size != "large":
        return 224
    return 1024 if options.grounder == "detector" else 840


def fill(pipeline: TwoSystemPipeline, clip: Clip, group: Sequence[Plan], laps: Laps) -> None:
    """What `TwoSystemPipeline.fill` does, with a clock between its two parts."""
    with laps.part("boxes"):
        groundings = pipeline.ground(clip, group)
    with laps.part("masks"):
        pipeline.propagate(clip, groundings)


def plans_of_group(count: int, point: Mapping[str, Any]) -> list[Plan]:
    """Answers about the discs; alike ones repeat every second plan."""
    numbers = range(count) if point["kind"] == "apart" else [number // 2 for number in range(count)]
    return [plan_number(number, point["frames"]) for number in numbers]


def plan_number(number: int, frames: int) -> Plan:
    """Two keyframes, and words for them, that no other number below 32 has together."""
    color = list(COLORS)[number % len(COLORS)]
    text = WORDS[(number // len(COLORS) + number) % len(WORDS)].format(color)
    picked = sorted({number % frames, (number + frames // 2) % frames})
    return Plan(tuple(Keyframe(frame, text, frame, frame) for frame in picked), False, ParseReport(True))


def table(results: Results, wanted: Sequence[dict[str, Any]]) -> str:
    """One row per point and group size."""
    rows = []
    for point in wanted:
        runs = results.of(point)
        absent = runs[0]["share_without_frames"]
        kind = point["kind"] + (f", {absent:.0%} of the answers without frames" if absent else "")
        for name in runs[0]["seconds"]:
            seconds = [statistics.median(run["seconds"][name][part] for run in runs) for part in PARTS]
            ratios = [run["ratios"][name] for run in runs]
            rows.append(
                [
                    f"{point['size']} on {point['device']}, {point['frames']} frames, {kind}",
                    name,
                    *(f"{1000 * value:.0f}" for value in seconds),
                    f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
                ]
            )
    return markdown_table(["point", "rollouts", "boxes ms", "masks ms", "times one rollout"], rows)


if __name__ == "__main__":
    main()
