"""One real training step at the released sizes with random weights, and its memory against the plan.

    python benchmarks/step_memory.py
    python benchmarks/step_memory.py --models Qwen/Qwen2.5-Omni-3B

Needs a GPU and no download. The model, its adapter, the shared engine, the loss, AdamW and System 2 (the base model
asked for boxes, SAM2.1 large) are those of a run; prompts are noise of the length that RefAVS has, clips and keyframes
are noise too, and the boxes that masks begin with are made up. Activations are computed again in the backward pass, and
once more kept, in passes of the length that `configs/scale/7b_80gb.yaml` has. The second of two steps is measured, when
the optimizer has its states. Written: `benchmarks/results/step_memory.json`, in GB (1e9 bytes) per part of the step:
what was allocated at most, what `models.memory` plans for it without context and fragments, and the ratio. Exit code 1
when a plan is off by more than `MOST_OFF`.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.resources import files
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import Qwen2_5OmniThinkerConfig

from datamodules.records import Clip, FrameGrounding, Frames, Grounding
from grpo.engine import SampleRequest
from grpo.engines import build_engine
from grpo.losses import UpdateSize
from grpo.noise import noise_key
from grpo.rollout import evaluation_mode
from grpo.sampling import Sampling
from grpo.settings import GRPOSettings
from grpo.update import PromptGroup, cut, micro_batch_loss, reference_logprobs
from models.adapter import LoRA
from models.box_answers import BOX_QUESTION
from models.box_grounder import ReasonerGrounder
from models.memory import GB, PHASES, Workload, plan_memory
from models.processing import EncodedPrompt
from models.propagator import SAM2Propagator
from models.published import RELEASED, released_config
from models.reasoner import Reasoner
from models.sam2_loading import build_predictor
from models.sam2_predictor import ClipPredictor
from models.sharded_loading import on_meta
from models.sizes import measure
from models.system2_memory import Asking, Segmenter
from models.tiny.reasoner import TinySizes, build_processor, build_tokenizer

MOST_OFF = 0.15
"""Largest difference of a plan, as a share of what was measured."""
RESULTS = Path(__file__).parent / "results" / "step_memory.json"
SAM2 = "configs/sam2.1/sam2.1_hiera_l.yaml"
IMAGE = (720, 1280)
"""Height and width of a frame of a clip."""
_LOAD = Workload(prompt_tokens=1490, segmenter=Segmenter("large"), asking=Asking(920))
WORKLOADS = {
    "computed again": _LOAD,
    "kept": replace(_LOAD, checkpointing=False, micro_batch_tokens=6144),
}
"""By what becomes of the activations."""
_TOKENS = {
    "image_token_id": "<|IMAGE|>",
    "video_token_id": "<|VIDEO|>",
    "audio_token_id": "<|AUDIO|>",
    "audio_start_token_id": "<|audio_bos|>",
    "audio_end_token_id": "<|audio_eos|>",
    "vision_start_token_id": "<|vision_bos|>",
    "vision_end_token_id": "<|vision_eos|>",
}
"""What the published configurations number as in the published vocabulary, by its name in ours."""


class NoiseFrames(Frames):
    """A clip of noise at one frame per second."""

    def __init__(self, count: int, seed: int) -> None:
        """Draw all frames.

        Args:
            count: How many.
            seed: Of the noise.
        """
        self.count, self.fps = count, 1.0
        self._pixels = np.random.default_rng(seed).integers(0, 255, (count, *IMAGE, 3), dtype=np.uint8)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return IMAGE

    def read(self, indices: Sequence[int], *, max_pixels: int | None = None) -> np.ndarray:
        """Frames at their size."""
        del max_pixels
        return self._pixels[list(indices)]


@dataclass(frozen=True)
class System2:
    """Both halves of System 2, and how they are used.

    Attributes:
        grounder: The base model, asked.
        propagator: SAM2.
        asking: What a group asks about at most.
        segmenter: How SAM2 is used.
    """

    grounder: ReasonerGrounder
    propagator: SAM2Propagator
    asking: Asking
    segmenter: Segmenter


def random_system_2(reasoner: Reasoner, load: Workload, predictor: ClipPredictor) -> System2:
    """System 2 over random weights, as a workload says."""
    if load.asking is None or load.segmenter is None:
        raise ValueError("expected a workload with both halves of System 2")
    grounder = ReasonerGrounder(
        max_new_tokens=load.asking.answer_tokens, batch_size=load.asking.batch_size, shared=load.asking.shared
    )
    grounder.load(reasoner)
    propagator = SAM2Propagator(
        "random",
        dtype="bfloat16",
        frames_per_encode=load.segmenter.frames_per_encode,
        objects_per_pass=load.segmenter.objects_per_pass,
    )
    propagator.use(predictor)
    return System2(grounder, propagator.to(reasoner.device), load.asking, load.segmenter)


def random_reasoner(
    config: Qwen2_5OmniThinkerConfig, lora: LoRA, device: torch.device, *, checkpointing: bool = True
) -> Reasoner:
    """A thinker of a configuration with random bfloat16 weights."""
    tokenizer = build_tokenizer(["find the red circle"], vocabulary=300)
    for name, token in _TOKENS.items():
        setattr(config, name, tokenizer.convert_tokens_to_ids(token))
    thinker: Any = on_meta(config, dtype=torch.bfloat16).to_empty(device=device)
    for module in thinker.modules():
        thinker._init_weights(module)
    reasoner = Reasoner(template="short", lora=lora, dtype="bfloat16", gradient_checkpointing=checkpointing)
    reasoner.attach(thinker, build_processor(tokenizer, TinySizes(close_up_side=840)))
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


def look_closer(system_2: System2, group_size: int, number: int, device: torch.device) -> dict[str, float]:
    """Boxes and masks for one group, as many as the plan expects; the peaks in GB."""
    found, asking = dict[str, float](), system_2.asking
    side = 28 * math.isqrt(asking.image_tokens)
    images = np.random.default_rng(number).integers(0, 255, (asking.keyframes, side, side, 3), dtype=np.uint8)
    with peak(device, found, "boxes"):
        # One question about each of many keyframes, and all of a group about the same one.
        system_2.grounder.find(images, [["the disc"]] * len(images))
        system_2.grounder.find(images[:1], [[f"disc {index}" for index in range(group_size)]])
    frames = NoiseFrames(system_2.segmenter.kept_frames, seed=number)
    clip = Clip(id="noise", task="video", split="", kind="", expression="", frames=frames)
    groundings = [
        Grounding((FrameGrounding(index % frames.count, _two_boxes(index), np.ones(2, dtype=np.float32)),))
        for index in range(group_size)
    ]
    with peak(device, found, "masks"):
        system_2.propagator.propagate(clip, groundings)
    return found


def _two_boxes(index: int) -> np.ndarray:
    x, y = 40.0 * (index % 8), 60.0 * (index // 8)
    return np.array([[x, y, x + 200, y + 200], [x + 500, y + 300, x + 700, y + 500]], dtype=np.float32)


def step(
    reasoner: Reasoner, system_2: System2, optimizer: torch.optim.Optimizer, load: Workload, number: int
) -> dict[str, float]:
    """Sample one group, look closer, score it, update the adapter; the peaks in GB."""
    device, found = reasoner.device, dict[str, float]()
    settings = GRPOSettings(group_size=load.group_size, micro_batch_tokens=load.micro_batch_tokens)
    sampling, engine = Sampling(max_new_tokens=load.max_new_tokens), build_engine(settings)
    prompt = random_prompt(load.prompt_tokens, reasoner.embed_tokens.weight.shape[1], device)
    keys = [noise_key(seed=0, rollout_step=number, sample_id="noise", index=i) for i in range(load.group_size)]
    with torch.autocast(device.type, torch.bfloat16, cache_enabled=False):
        with peak(device, found, "rollout"):
            (completions,) = engine.sample(reasoner, [SampleRequest(prompt, keys)], sampling)
        with torch.no_grad(), evaluation_mode(reasoner):
            found |= look_closer(system_2, load.group_size, number, device)
        group = PromptGroup(prompt, tuple(completions), torch.linspace(-1, 1, load.group_size, device=device))
        tokens = float(sum(len(completion.ids) for completion in completions))
        size = UpdateSize(load.group_size, tokens, tokens, load.max_new_tokens)
        with peak(device, found, "update"):
            for micro in cut(engine, [group], settings):
                reference = reference_logprobs(engine, reasoner, micro, temperature=1.0)
                output = micro_batch_loss(
                    engine, reasoner, micro, reference=reference, settings=settings, size=size, temperature=1.0
                )
                output.loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad()
    return found


def compare(
    config: Qwen2_5OmniThinkerConfig, load: Workload, device: torch.device, predictor: ClipPredictor
) -> dict[str, dict[str, float]]:
    """Measured and planned memory of all parts of a step; on a device that is no GPU nothing is measured."""
    torch.manual_seed(0)
    lora = LoRA(r=64, alpha=128)
    reasoner = random_reasoner(config, lora, device, checkpointing=load.checkpointing)
    system_2 = random_system_2(reasoner, load, predictor)
    # Our small vocabulary spells questions out.
    spelled = len(reasoner.builder.turn_ids(BOX_QUESTION.render("the disc"), media="image"))
    plan = plan_memory(measure(config, lora), replace(load, asking=replace(system_2.asking, question_tokens=spelled)))
    optimizer = torch.optim.AdamW([p for p in reasoner.parameters() if p.requires_grad], lr=1e-6)
    found: dict[str, float] = {}
    for number in range(2):
        found = step(reasoner, system_2, optimizer, load, number)
    table = {}
    for index, part in enumerate(PHASES):
        planned = plan.totals[index] - plan.rows["context, fragments"][index]
        table[part] = {"planned": planned}
        if part in found:
            table[part] |= {"measured": found[part], "planned / measured": planned / found[part]}
    return table


def off(report: dict[str, Any]) -> list[str]:
    """Plans that are too far from what was measured, one line each.

    Args:
        report: Tables from `compare` by model and workload; other entries are passed over.
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
    device = torch.device("cuda")
    report: dict[str, Any] = {"device": torch.cuda.get_device_name(device), "torch": torch.__version__}
    for model, (kind, load) in product(models, WORKLOADS.items()):
        predictor, name = build_predictor(Path(str(files("sam2") / SAM2))), f"{model}, activations {kind}"
        report[name] = compare(released_config(model), load, device, predictor)
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
