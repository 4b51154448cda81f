"""Whether a run fits on its devices, told before anything is loaded, with the flags that would make it fit."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from torch import nn

from datamodules.errors import ConfigError
from datamodules.refavs import FRAME_COUNT
from grpo.rollout_weights import NO_ROOM_TO_MERGE
from lightning_modules.memory_advice import Advice, advise
from lightning_modules.sharded_strategy import ShardedStrategy
from models.box_grounder import ReasonerGrounder
from models.loading import find_weights
from models.memory import (
    PHASES,
    MemoryPlan,
    Workload,
    frames_with_room,
    host_gb,
    plan_memory,
    prompt_tokens,
)
from models.sharding import FIRST_OF_MIXED_TYPES
from models.sizes import ReasonerSizes, sizes_of
from models.system2_memory import Asking, Segmenter

_SAM2_SIZE = re.compile(r"hiera[-_](tiny|small|base[-_]plus|large|t|s|b\+|l)")
_SAM2_SHORT = {"t": "tiny", "s": "small", "b+": "base_plus", "l": "large"}
_SILENT = ("revos", "mevis", "refcocog")
_DETECTOR_BYTES = 1_000_000_000
"""Of a detector whose weights are not on this machine; the larger open-vocabulary ones have that much."""

_BEFORE_AN_IMAGE = 20
"""Tokens of the chat template in front of a keyframe, and its marks."""
_NONE = Advice()


@dataclass(frozen=True)
class Verdict:
    """Whether a run fits.

    Attributes:
        sizes: Of the reasoner.
        load: What was planned.
        plan: What is held when.
        card_gb: Memory of a device, in 1e9 bytes.
        advice: What would make the run fit at the least cost; empty when it fits, or when nothing would.
    """

    sizes: ReasonerSizes
    load: Workload
    plan: MemoryPlan
    card_gb: float
    advice: Advice = _NONE

    @property
    def fits(self) -> bool:
        """The peak is no more than a device has."""
        return self.plan.peak <= self.card_gb

    @property
    def message(self) -> str:
        """What is wrong and what would help; empty when the run fits."""
        if self.fits:
            return ""
        peak = f"{self.plan.peak:.1f} GB for the {PHASES[self.plan.totals.index(self.plan.peak)]}"
        problem = f"the run needs {peak} on each device, which has {self.card_gb:.1f} GB. {self.advice}"
        release = ".".join(map(str, FIRST_OF_MIXED_TYPES))
        newer = self.advice.newer
        return problem if newer is None else f"{problem} With PyTorch {release} or later: {newer}"


def judge(sizes: ReasonerSizes, load: Workload, card_gb: float) -> Verdict:
    """Plan a run, and look for flags if it does not fit."""
    plan = plan_memory(sizes, load)
    return Verdict(sizes, load, plan, card_gb, _NONE if plan.peak <= card_gb else advise(sizes, load, card_gb))


def workload(module: Any, data: Any, *, devices: int, strategy: Any, precision: str) -> tuple[ReasonerSizes, Workload]:  # noqa: ANN401
    """What a run will hold, by its settings.

    Args:
        module: A `GRPOModule` whose weights are not loaded yet.
        data: Its data module.
        devices: Of all nodes together.
        strategy: Of the trainer, or its name.
        precision: Of the trainer.

    Raises:
        ConfigError: There are no such weights, the devices cannot be divided as the strategy says, or layers that come
            and go are to be merged.
    """
    reasoner, settings = module.reasoner, module.grpo
    path = find_weights(reasoner.path, flag="model.reasoner.path", required=[("config.json",)])
    sizes = sizes_of(path, reasoner.lora)
    is_sharded = isinstance(strategy, ShardedStrategy)
    shards = strategy.shards_of(devices) if isinstance(strategy, ShardedStrategy) else 1
    # Of a mixture, the source with the longest prompts and the one with the longest clips.
    parts = list(getattr(data, "parts", {}).values()) or [data]
    load = Workload(
        devices=devices,
        is_sharded=is_sharded,
        shards=shards,
        offload=getattr(strategy, "offload", False),
        gather=getattr(strategy, "gather", "model"),
        base_bytes=4 if reasoner.dtype == "float32" else 2,
        compute_bytes=4 if str(precision).startswith("32") else 2,
        states=_optimizer_states(module.optimizer),
        group_size=settings.group_size,
        is_shared=settings.engine == "shared",
        rollout_rows=settings.rollout_rows,
        micro_batch_tokens=settings.micro_batch_tokens,
        is_merged=bool(settings.merge_adapter) and settings.engine == "shared",
        prompts=data.prompts_per_step,
        prompt_tokens=max(_prompt_tokens(sizes, part) for part in parts),
        max_new_tokens=module.sampling.max_new_tokens,
        checkpointing=reasoner.gradient_checkpointing,
        segmenter=_segmenter(module.propagator, frames=max(_clip_frames(part) for part in parts)),
        is_whole_held_out=any(getattr(part, "eval_clip_frames", None) is None for part in parts),
        detector_bytes=_detector_bytes(module.grounder),
        asking=_asking(
            module.grounder,
            sizes,
            pixels=max(part.budget.close_up_max_pixels for part in parts),
            group_size=settings.group_size,
            keyframes=settings.group_size * reasoner.max_keyframes,
        ),
    )
    if load.gather == "layer" and load.is_merged:
        raise ConfigError(NO_ROOM_TO_MERGE)
    return sizes, load


def memory_table(verdict: Verdict) -> Table:
    """The plan for people: parts by phases, in GB."""
    sizes = verdict.sizes
    title = (
        f"planned memory per device, GB, on {_spread(verdict.load)}: {sizes.base / 1e9:.2f} billion frozen weights, "
        f"{sizes.adapter / 1e6:.1f} million trained, {verdict.load.prompts} x {verdict.load.prompt_tokens} tokens of "
        f"prompts{_kept(verdict.load.segmenter)}"
    )
    table = Table("part", *PHASES, title=title, caption=_beside(verdict))
    for name, row in verdict.plan.rows.items():
        table.add_row(name, *(f"{value:.2f}" for value in row))
    table.add_section()
    table.add_row("all", *(f"{value:.2f}" for value in verdict.plan.totals))
    return table


def _beside(verdict: Verdict) -> str | None:
    """What the table does not count."""
    sizes, load = verdict.sizes, verdict.load
    host, lines = host_gb(sizes, load), list[str]()
    if host:
        lines.append(f"and {host:.1f} GB of the host's memory per device")
    if verdict.fits and load.segmenter is not None and load.is_whole_held_out:
        room = frames_with_room(sizes, load, verdict.card_gb)
        lines.append(
            f"held-out clips are looked at whole: there is room for {room} frames (--data.eval_clip_frames bounds them)"
        )
    return "; ".join(lines) or None


def _spread(load: Workload) -> str:
    """Devices, and what of the base each of them has."""
    if load.devices == 1 and not load.is_sharded:
        return "1 device"
    share = f"the base spread over {load.shards} (fsdp)" if load.is_sharded else "the whole base on each (ddp)"
    return f"{load.devices} device{'s' * (load.devices > 1)} with {share}"


def _kept(segmenter: Segmenter | None) -> str:
    """Without `data.clip_frames` clips have as many frames as their files, which no setting says."""
    return "" if segmenter is None else f", System 2 with {segmenter.kept_frames} frames"


def _prompt_tokens(sizes: ReasonerSizes, data: Any) -> int:  # noqa: ANN401
    frames, task = data.budget.glance_frames, getattr(data, "task", "")
    if task == "refavs":
        frames = min(frames, FRAME_COUNT)  # all that its clips have, whatever sources beside it may take
    sound_s = 0.0 if task in _SILENT else frames / data.fps
    return prompt_tokens(sizes, frames=frames, pixels=data.budget.glance_max_pixels, sound_s=sound_s)


def _clip_frames(data: Any) -> int:  # noqa: ANN401
    """Frames of a clip, in training or held out, as far as settings say."""
    trained = getattr(data, "clip_frames", None) or data.budget.glance_frames
    return max(int(trained), int(getattr(data, "eval_clip_frames", None) or 0))


def _optimizer_states(make: Callable[[Any], torch.optim.Optimizer]) -> int:
    """Numbers that an optimizer keeps per weight, found out on a small one."""
    weight = nn.Parameter(torch.zeros(2))
    weight.grad = torch.ones(2)
    optimizer = make([weight])
    optimizer.step()
    return sum(1 for value in optimizer.state[weight].values() if getattr(value, "shape", None) == weight.shape)


def _segmenter(propagator: Any, *, frames: int) -> Segmenter | None:  # noqa: ANN401
    if not hasattr(propagator, "frames_per_encode"):
        return None
    found = _SAM2_SIZE.search(f"{propagator.path} {getattr(propagator, 'config', '') or ''}")
    name = found.group(1).replace("-", "_") if found else "tiny"
    return Segmenter(
        _SAM2_SHORT.get(name, name),
        frames_per_encode=propagator.frames_per_encode,
        objects_per_pass=propagator.objects_per_pass,
        kept_frames=frames * propagator.cached_clips,
    )


def _asking(grounder: Any, sizes: ReasonerSizes, *, pixels: int, group_size: int, keyframes: int) -> Asking | None:  # noqa: ANN401
    if not isinstance(grounder, ReasonerGrounder):
        return None
    return Asking(
        image_tokens=math.ceil(pixels / sizes.patch**2) + _BEFORE_AN_IMAGE,
        keyframes=keyframes,
        group_size=group_size,
        batch_size=grounder.batch_size,
        answer_tokens=grounder.max_new_tokens,
        shared=grounder.shared,
    )


def _detector_bytes(grounder: Any) -> int:  # noqa: ANN401
    path = getattr(grounder, "path", None)
    if path is None:
        return 0
    files = list(Path(path).glob("*.safetensors"))
    return sum(file.stat().st_size for file in files) if files else _DETECTOR_BYTES
