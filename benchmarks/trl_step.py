"""A whole step of GRPO, ours beside TRL's: rollout, reward and update on the same prompts, in one process, in turn.

    python benchmarks/trl_step.py                                      lengths of prompts and completions: hours
    python benchmarks/trl_step.py --points 1024x64 --groups 4 16       and group sizes beside 8
    python benchmarks/trl_step.py --points 1024x256 2048x256 --lengths varied
    python benchmarks/trl_step.py --points 2048x64 --runs 1
    python benchmarks/trl_step.py --device cuda --shape 7b --checkpointing

Both sides have the same weights, images, completion lengths, LoRA, reward and sampling, and take steps alternately. A
point is a prompt length and a completion length; *varied* lengths rise evenly from an eighth of the longest to it. TRL
runs with its default cache and with its static one. Every run is a process of its own with one thread, in which the
allocator keeps what was freed: otherwise page faults make TRL up to a quarter slower. What is there in the results file
is not measured again, so an interrupted measurement goes on where it stopped. A point that does not fit on the GPU is
kept as such, with the side that ran out of memory. Needs `pip install -e ".[bench]"`.

Not counted on either side: the optimizer. Counted on TRL's: what its trainer does around the model within a step.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from callbacks.media import markdown_table
from grpo.sampling import Sampling
from grpo.settings import GRPOSettings
from models.reasoner import LoRA
from speed.laps import Laps, medians
from speed.ours import FixedLengths, OurSide
from speed.processes import in_process
from speed.prompts import PartsReasoner, image_prompt
from speed.results import FOLDER, Point, Results
from speed.shapes import SHAPES, build_model
from speed.step_ratios import RATIOS, completion_lengths, ratios, spread, token_ideal

GRID = ["512x64", "1024x64", "1024x256", "2048x64", "2048x256", "4096x64", "4096x256", "2048x512"]


def main() -> None:
    """Measure what is missing, each in a process of its own, and write the page."""
    options = parse()
    if options.one:
        print(json.dumps(measure(json.loads(options.one))))
        return
    results = Results(options.out)
    for run in range(options.runs):
        for point in points(options):
            if results.missing(point, run):
                print(f"run {run}: {describe(point)}", flush=True)
                results.add(point, run, in_process(Path(__file__), point))
                print(table(results, [point]), flush=True)
    results.write_page("A step of GRPO beside TRL's", table(results, results.points()))
    print(table(results, list(points(options))))


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", nargs="+", default=GRID, help="prompt and longest completion in tokens")
    parser.add_argument("--groups", nargs="+", type=int, default=[8])
    parser.add_argument("--lengths", nargs="+", choices=["fixed", "varied"], default=["fixed"])
    parser.add_argument("--caches", nargs="+", choices=["default", "static"], default=["default", "static"])
    parser.add_argument("--family", choices=["vl", "omni"], default="vl")
    parser.add_argument("--shape", choices=list(SHAPES), default="small")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--beta", type=float, default=0.04)
    parser.add_argument("--checkpointing", action="store_true", help="on both sides")
    parser.add_argument("--steps", type=int, default=2, help="measured steps per run, after one that is not")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one tiny point, to see that it works")
    parser.add_argument("--out", type=Path, default=FOLDER / "trl_step.json")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.quick:
        options.points, options.groups, options.shape, options.runs, options.steps = ["96x8"], [4], "quick", 1, 1
    return options


def points(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Everything that is asked for."""
    shared = {name: getattr(options, name) for name in ("family", "shape", "device", "beta", "checkpointing", "steps")}
    for size in options.points:
        prompt, completion = (int(part) for part in size.split("x"))
        for group in options.groups:
            for lengths in options.lengths:
                for cache in options.caches:
                    sizes = {"prompt": prompt, "completion": completion, "group": group}
                    yield {**sizes, "lengths": lengths, "cache": cache, **shared}


def measure(point: Point) -> dict[str, Any]:
    """Both sides in turn; medians of their parts over the measured steps, and the ratios of every step."""
    from speed.trl_side import TrlSettings, run_trl

    device = torch.device(point["device"])
    lengths, lora = completion_lengths(point), LoRA(r=8, alpha=16)
    dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    model, processor = build_model(point["family"], SHAPES[point["shape"]], device=device, dtype=dtype)
    ours = our_side(point, copy.deepcopy(model), processor, lengths, lora)
    steps = point["steps"] + 1
    conversations = [image_prompt(processor, point["prompt"], seed=seed) for seed in range(steps)]
    sides: dict[str, list[dict[str, float]]] = {"trl": [], "ours": []}
    turn = "trl"

    def after_step(number: int, seconds: dict[str, float]) -> None:
        nonlocal turn
        sides["trl"].append(seconds)
        turn = "ours"
        sides["ours"].append(ours.step(conversations[number], number))
        turn = "trl"

    settings = TrlSettings(
        lengths, point["beta"], lora, point["cache"] == "static", point["checkpointing"], steps=steps
    )
    try:
        run_trl(model, processor, conversations, settings, reward=reward, device=device, after_step=after_step)
    except torch.OutOfMemoryError:
        return {"out_of_memory": turn}
    rounds = {side: rows[1:] for side, rows in sides.items()}
    middle = {side: medians(rows) for side, rows in rounds.items()}
    each = [ratios(*pair) for pair in zip(rounds["trl"], rounds["ours"], strict=True)]
    return {"seconds": middle, "ratios": ratios(middle["trl"], middle["ours"]), "each": each}


def our_side(point: Point, model: Any, processor: Any, lengths: list[int], lora: LoRA) -> OurSide:
    """Ours, ready to take steps."""
    reasoner = PartsReasoner(point["family"], model, processor, lora=lora, checkpointing=point["checkpointing"])
    trained = [parameter for parameter in reasoner.parameters() if parameter.requires_grad]
    return OurSide(
        reasoner=reasoner,
        processor=processor,
        engine=FixedLengths(lengths),
        settings=GRPOSettings(group_size=point["group"], beta=point["beta"]),
        sampling=Sampling(max_new_tokens=point["completion"]),
        reward=reward,
        optimizer=torch.optim.AdamW(trained, lr=1e-5),
        laps=Laps(torch.device(point["device"])),
    )


def reward(texts: list[str]) -> list[float]:
    """Something cheap that differs between completions."""
    return [float(len(set(text))) for text in texts]


def describe(point: Point) -> str:
    """A point in words."""
    return (
        f"prompt {point['prompt']}, completion {point['completion']} {point['lengths']}, group {point['group']}, "
        f"{point['cache']} cache, {point['family']} {point['shape']} on {point['device']}"
        + (", checkpointing" if point["checkpointing"] else "")
        + (f", beta {point['beta']}" if point["beta"] != 0.04 else "")
    )


def table(results: Results, wanted: list[dict[str, Any]]) -> str:
    """One row per point: seconds of a step on both sides, and ratios, the median over runs with the extremes."""
    header = ["point", "runs", "TRL s", "ours s", *RATIOS, "token ideal"]
    rows = []
    for point in wanted:
        runs = results.fitting(point)
        if not runs:
            sides = sorted({row["out_of_memory"] for row in results.of(point)})
            if sides:
                rows.append([describe(point), "0", *("does not fit" if s in sides else "-" for s in ("trl", "ours"))])
                rows[-1] += ["-"] * len(RATIOS) + [f"{token_ideal(point):.2f}"]
            continue
        seconds = [
            statistics.median(sum(run["seconds"][side].get(part, 0.0) for part in RATIOS["step"]) for run in runs)
            for side in ("trl", "ours")
        ]
        cells = [describe(point), str(len(runs)), *(f"{value:.2f}" for value in seconds)]
        cells += [spread([run["ratios"][name] for run in runs]) for name in RATIOS]
        rows.append([*cells, f"{token_ideal(point):.2f}"])
    return markdown_table(header, rows)


if __name__ == "__main__":
    main()
