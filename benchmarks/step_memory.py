"""One real training step at the released sizes with random weights, and its memory against the plan.

    python benchmarks/step_memory.py
    python benchmarks/step_memory.py --models Qwen/Qwen2.5-Omni-3B

Needs a GPU and no download. The language model, its adapter, the shared engine, the loss and AdamW are those of a run;
prompts are noise of the length that RefAVS has, towers and System 2 stand by. The second of two steps is measured, when
the optimizer has its states. Written: `benchmarks/results/step_memory.json`, in GB (1e9 bytes) per part of the step:
what was allocated at most, what `models.memory` plans for it without context and fragments, and the ratio. Exit code 1
when a plan is off by more than `MOST_OFF`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import Qwen2_5OmniThinkerConfig

from grpo.engine import SampleRequest
from grpo.engines import build_engine
from grpo.losses import UpdateSize
from grpo.noise import noise_key
from grpo.sampling import Sampling
from grpo.settings import GRPOSettings
from grpo.update import PromptGroup, cut, micro_batch_loss, reference_logprobs
from models.adapter import LoRA
from models.memory import GB, PHASES, Workload, plan_memory
from models.processing import EncodedPrompt
from models.published import RELEASED, released_config
from models.reasoner import Reasoner
from models.sharded_loading import on_meta
from models.sizes import measure
from models.tiny.reasoner import TinySizes, build_processor, build_tokenizer

MOST_OFF = 0.15
"""Largest difference of a plan, as a share of what was measured."""
RESULTS = Path(__file__).parent / "results" / "step_memory.json"
PARTS = ("rollout", "update")


def random_reasoner(config: Qwen2_5OmniThinkerConfig, lora: LoRA, device: torch.device) -> Reasoner:
    """A thinker of a configuration with random bfloat16 weights."""
    thinker: Any = on_meta(config, dtype=torch.bfloat16).to_empty(device=device)
    for module in thinker.modules():
        thinker._init_weights(module)
    tokenizer = build_tokenizer(["find the red circle"], vocabulary=300)
    reasoner = Reasoner(template="short", lora=lora, dtype="bfloat16", gradient_checkpointing=True)
    reasoner.attach(thinker, build_processor(tokenizer, TinySizes()))
    return reasoner.to(device)


def random_prompt(length: int, hidden: int, device: torch.device) -> EncodedPrompt:
    """Noise in place of frames, sound and text."""
    embeddings = 0.02 * torch.randn(1, length, hidden, dtype=torch.bfloat16, device=device)
    positions = torch.arange(length, device=device).expand(3, 1, length)
    return EncodedPrompt("noise", torch.zeros(1, length, dtype=torch.long), embeddings, positions, length)


@contextmanager
def peak(device: torch.device, into: dict[str, float], part: str) -> Iterator[None]:
    """Note the most memory that was allocated inside the block; nothing without a GPU."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    yield
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        into[part] = torch.cuda.max_memory_allocated(device) / GB


def step(reasoner: Reasoner, optimizer: torch.optim.Optimizer, load: Workload, number: int) -> dict[str, float]:
    """Sample one group, score it, update the adapter; the peaks in GB."""
    device, found = reasoner.device, dict[str, float]()
    settings = GRPOSettings(group_size=load.group_size, micro_batch_tokens=load.micro_batch_tokens)
    sampling, engine = Sampling(max_new_tokens=load.max_new_tokens), build_engine(settings)
    prompt = random_prompt(load.prompt_tokens, reasoner.embed_tokens.weight.shape[1], device)
    keys = [noise_key(seed=0, rollout_step=number, sample_id="noise", index=i) for i in range(load.group_size)]
    with torch.autocast(device.type, torch.bfloat16, cache_enabled=False):
        with peak(device, found, PARTS[0]):
            (completions,) = engine.sample(reasoner, [SampleRequest(prompt, keys)], sampling)
        group = PromptGroup(prompt, tuple(completions), torch.linspace(-1, 1, load.group_size, device=device))
        tokens = float(sum(len(completion.ids) for completion in completions))
        size = UpdateSize(load.group_size, tokens, tokens, load.max_new_tokens)
        with peak(device, found, PARTS[1]):
            for micro in cut(engine, [group], settings):
                reference = reference_logprobs(engine, reasoner, micro, temperature=1.0)
                output = micro_batch_loss(
                    engine, reasoner, micro, reference=reference, settings=settings, size=size, temperature=1.0
                )
                output.loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad()
    return found


def compare(config: Qwen2_5OmniThinkerConfig, load: Workload, device: torch.device) -> dict[str, dict[str, float]]:
    """Measured and planned memory of both parts of a step; on a device that is no GPU nothing is measured."""
    torch.manual_seed(0)
    lora = LoRA(r=64, alpha=128)
    plan = plan_memory(measure(config, lora), load)
    reasoner = random_reasoner(config, lora, device)
    optimizer = torch.optim.AdamW([p for p in reasoner.parameters() if p.requires_grad], lr=1e-6)
    found: dict[str, float] = {}
    for number in range(2):
        found = step(reasoner, optimizer, load, number)
    table = {}
    for part in PARTS:
        index = PHASES.index(part)
        planned = plan.totals[index] - plan.rows["context, fragments"][index]
        table[part] = {"planned": planned}
        if part in found:
            table[part] |= {"measured": found[part], "planned / measured": planned / found[part]}
    return table


def off(report: dict[str, Any]) -> list[str]:
    """Plans that are too far from what was measured, one line each.

    Args:
        report: Tables from `compare` by model; other entries are passed over.
    """
    tables = {name: table for name, table in report.items() if isinstance(table, dict)}
    return [
        f"{name}, {part}: planned {row['planned']:.1f} GB, measured {row['measured']:.1f} GB"
        for name, table in tables.items()
        for part, row in table.items()
        if abs(row["planned / measured"] - 1) > MOST_OFF
    ]


def main() -> int:
    """Run the command; 1 when a plan is wrong, 2 without a GPU."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=RELEASED, default=RELEASED)
    models = parser.parse_args().models
    if not torch.cuda.is_available():
        sys.stderr.write("error: there is no GPU here, and memory is what is measured\n")
        return 2
    device, load = torch.device("cuda"), Workload(prompt_tokens=1490, segmenter=None)
    report: dict[str, Any] = {"device": torch.cuda.get_device_name(device), "torch": torch.__version__}
    for name in models:
        report[name] = compare(released_config(name), load, device)
        torch.cuda.empty_cache()
        print(name, json.dumps(report[name], indent=2))
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(report, indent=2) + "\n")
    wrong = off(report)
    for line in wrong:
        sys.stderr.write(f"error: {line}\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
