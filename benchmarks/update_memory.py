"""Peak memory of one update, forward and backward, of one group on one prompt.

    python benchmarks/update_memory.py
    python benchmarks/update_memory.py --device cuda --shape 7b --family omni --checkpointing

Three sides: *shared* is the packed row, *plain* the naive form (one row per completion, logits at completion positions
only and all at once), *trl* the forward pass of TRL's trainer with a plain policy-gradient loss behind it. Every number
comes from a process of its own, and is what the peak lies above what was there before the update: resident memory on a
CPU, allocated memory on a GPU. The same allocator settings as in `trl_step.py`, under which freed memory stays
resident; it is given back before the start, or an update that fits into it would seem to need nothing. Needs
`pip install -e ".[bench]"` for TRL's side.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from callbacks.media import markdown_table
from grpo.engine import PlainEngine, ScoreRequest
from grpo.shared_engine import SharedEngine
from models.reasoner import LoRA
from speed.processes import in_process
from speed.prompts import PartsReasoner, image_prompt, read_prompt
from speed.results import FOLDER, Point, Results
from speed.shapes import SHAPES, build_model, with_vocabulary

SIDES = ("shared", "plain", "trl")


def main() -> None:
    """Measure what is missing, each in a process of its own, and write the page."""
    options = parse()
    if options.one:
        print(json.dumps(measure(json.loads(options.one))))
        return
    results = Results(options.out)
    for run in range(options.runs):
        for size in options.points:
            for side in options.sides:
                point = make_point(options, size, side)
                if results.missing(point, run):
                    results.add(point, run, in_process(Path(__file__), point))
                    print(table(results, [point]), flush=True)
    results.write_page("Peak memory of an update", table(results, results.points()))


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", nargs="+", default=["1024x256", "2048x64", "2048x256"])
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--vocabulary", type=int, default=152064)
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--family", choices=["vl", "omni"], default="vl")
    parser.add_argument("--shape", choices=list(SHAPES), default="small")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="one tiny point, to see that it works")
    parser.add_argument("--out", type=Path, default=FOLDER / "update_memory.json")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.quick:
        options.points, options.group, options.vocabulary, options.shape = ["96x8"], 2, 4096, "quick"
    return options


def make_point(options: argparse.Namespace, size: str, side: str) -> dict[str, Any]:
    """One thing to measure."""
    prompt, completion = (int(part) for part in size.split("x"))
    shared = {name: getattr(options, name) for name in ("group", "vocabulary", "family", "shape", "device")}
    return {"side": side, "prompt": prompt, "completion": completion, "checkpointing": options.checkpointing, **shared}


def measure(point: Point) -> dict[str, Any]:
    """Bytes that one update needs at its peak, if there are as many."""
    device = torch.device(point["device"])
    dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    shape = with_vocabulary(SHAPES[point["shape"]], point["vocabulary"])
    model, processor = build_model(point["family"], shape, device=device, dtype=dtype)
    conversation = image_prompt(processor, point["prompt"], seed=0)
    torch.manual_seed(0)
    completions = torch.randint(20, 400, (point["group"], point["completion"]), device=device)
    side = trl_scores if point["side"] == "trl" else our_scores
    scores = side(point, model, processor, read_prompt(processor, conversation, device), completions)
    start = reset_peak(device)
    try:
        logprobs = scores()
        advantages = torch.linspace(-1, 1, point["group"], device=device)[:, None]
        (torch.exp(logprobs - logprobs.detach()) * advantages).mean().backward()
    except torch.OutOfMemoryError:
        return {"out_of_memory": point["side"]}
    return {"bytes": peak(device) - start}


def our_scores(
    point: Point, model: Any, processor: Any, inputs: dict[str, Tensor], completions: Tensor
) -> Callable[[], Tensor]:
    """Log-probabilities by one of the project's engines; the tower runs within, as on TRL's side."""
    reasoner = PartsReasoner(
        point["family"], model, processor, lora=LoRA(r=8, alpha=16), checkpointing=point["checkpointing"]
    )
    reasoner.train()
    engine = SharedEngine() if point["side"] == "shared" else PlainEngine()

    def scores() -> Tensor:
        request = ScoreRequest(reasoner.encode_inputs(inputs), list(completions))
        return engine.score(reasoner, [request], temperature=1.0).logprobs

    return scores


def trl_scores(
    point: Point, model: Any, processor: Any, inputs: dict[str, Tensor], completions: Tensor
) -> Callable[[], Tensor]:
    """Log-probabilities as TRL's loss takes them."""
    from speed.trl_side import TrlSettings, make_trainer, repeated

    settings = TrlSettings(
        [completions.shape[1]] * len(completions), 0.04, LoRA(r=8, alpha=16), False, point["checkpointing"], steps=1
    )
    conversation = image_prompt(processor, point["prompt"], seed=0)
    trainer = make_trainer(
        model, processor, [conversation], settings, reward=lambda texts: [0.0] * len(texts), device=completions.device
    )
    trainer.model.train()
    rows = repeated(inputs, len(completions))
    ids = torch.cat([rows.pop("input_ids"), completions], dim=1)
    if "mm_token_type_ids" in rows:
        rows["mm_token_type_ids"] = torch.cat([rows["mm_token_type_ids"], torch.zeros_like(completions)], dim=1)
    images = len(rows["image_grid_thw"]) // len(completions)

    def scores() -> Tensor:
        found: Tensor = trainer._get_per_token_logps_and_entropies(
            trainer.model,
            ids,
            torch.ones_like(ids),
            completions.shape[1],
            num_images=[images] * len(completions),
            **{name: value for name, value in rows.items() if name != "attention_mask"},
        )[0]
        return found

    return scores


def reset_peak(device: torch.device) -> int:
    """Give freed memory back and forget earlier peaks; bytes in use now."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the kernel's way to set the peak to what is resident now
    return _resident("VmRSS")


def peak(device: torch.device) -> int:
    """Most bytes in use since `reset_peak`."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else _resident("VmHWM")


def _resident(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"expected {name} in /proc/self/status, which is how Linux tells resident memory")


def table(results: Results, wanted: Sequence[dict[str, Any]]) -> str:
    """One row per point, and how much of the plain form's memory it takes."""
    rows = []
    for point in wanted:
        middle = _median(results, point)
        plain = _median(results, {**point, "side": "plain"})
        share = f"{middle / plain:.2f}" if middle is not None and plain else "-"
        sizes = ", ".join(f"{name} {point[name]}" for name in ("prompt", "completion", "group", "vocabulary"))
        where = f"{point['family']} {point['shape']} on {point['device']}"
        rows.append([f"{sizes}, {where}" + (", checkpointing" if point["checkpointing"] else ""), point["side"]])
        rows[-1] += ["does not fit" if middle is None else f"{middle / 2**30:.2f}", share]
    return markdown_table(["point", "side", "GiB above the start", "of the plain form"], rows)


def _median(results: Results, point: dict[str, Any]) -> float | None:
    values = [row["bytes"] for row in results.fitting(point)]
    return statistics.median(values) if values else None


if __name__ == "__main__":
    main()
