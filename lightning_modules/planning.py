"""Whether a run fits on its devices, told before anything is loaded, with the flags that would make it fit."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from torch import nn

from lightning_modules.sharded_strategy import ShardedStrategy
from models.box_grounder import ReasonerGrounder
from models.loading import find_weights
from models.memory import PHASES, MemoryPlan, Workload, plan_memory, prompt_tokens
from models.sizes import ReasonerSizes, sizes_of
from models.system2_memory import Asking, Segmenter

_SAM2_SIZE = re.compile(r"hiera[-_](tiny|small|base[-_]plus|large|t|s|b\+|l)")
_SAM2_SHORT = {"t": "tiny", "s": "small", "b+": "base_plus", "l": "large"}
_SILENT = ("revos", "mevis", "refcocog")
_DETECTOR_BYTES = 1_000_000_000
"""Of a detector whose weights are not on this machine; the larger open-vocabulary ones have that much."""

_BEFORE_AN_IMAGE = 20
"""Tokens of the chat template in front of a keyframe, and its marks."""


@dataclass(frozen=True)
class Verdict:
    """Whether a run fits.

    Attributes:
        sizes: Of the reasoner.
        load: What was planned.
        plan: What is held when.
        card_gb: Memory of a device, in 1e9 bytes.
        flags: Flags that would make the run fit, the least that was found; empty when it fits, or when none would.
    """

    sizes: ReasonerSizes
    load: Workload
    plan: MemoryPlan
    card_gb: float
    flags: tuple[str, ...]

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
        advice = f"Set {' '.join(self.flags)}" if self.flags else "Use more or larger devices, or the 3B model"
        return f"the run needs {peak} on each device, which has {self.card_gb:.1f} GB. {advice}."


def judge(sizes: ReasonerSizes, load: Workload, card_gb: float) -> Verdict:
    """Plan a run, and look for flags if it does not fit."""
    plan = plan_memory(sizes, load)
    flags = () if plan.peak <= card_gb else _cure(sizes, load, card_gb)
    return Verdict(sizes, load, plan, card_gb, flags)


def workload(module: Any, data: Any, *, devices: int, strategy: Any, precision: str) -> tuple[ReasonerSizes, Workload]:  # noqa: ANN401
    """What a run will hold, by its settings.

    Args:
        module: A `GRPOModule` whose weights are not loaded yet.
        data: Its data module.
        devices: Of all nodes together.
        strategy: Of the trainer, or its name.
        precision: Of the trainer.

    Raises:
        ConfigError: There are no such weights, or the devices cannot be divided as the strategy says.
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
        detector_bytes=_detector_bytes(module.grounder),
        asking=_asking(
            module.grounder,
            sizes,
            pixels=max(part.budget.close_up_max_pixels for part in parts),
            group_size=settings.group_size,
            keyframes=settings.group_size * reasoner.max_keyframes,
        ),
    )
    return sizes, load


def memory_table(verdict: Verdict) -> Table:
    """The plan for people: parts by phases, in GB."""
    sizes = verdict.sizes
    title = (
        f"planned memory per device, GB: {sizes.base / 1e9:.2f} billion frozen weights, {sizes.adapter / 1e6:.1f} "
        f"million trained, prompts of {verdict.load.prompt_tokens} tokens{_kept(verdict.load.segmenter)}"
    )
    table = Table("part", *PHASES, title=title)
    for name, row in verdict.plan.rows.items():
        table.add_row(name, *(f"{value:.2f}" for value in row))
    table.add_section()
    table.add_row("all", *(f"{value:.2f}" for value in verdict.plan.totals))
    return table


def _kept(segmenter: Segmenter | None) -> str:
    """Without `data.clip_frames` clips have as many frames as their files, which no setting says."""
    return "" if segmenter is None else f", System 2 with {segmenter.kept_frames} frames"


def _changes(load: Workload) -> list[tuple[str, dict[str, Any]]]:
    """Flags that save memory with what they change, those that cost least first."""
    fsdp = "" if load.is_sharded or load.devices > 1 else "--trainer.strategy fsdp "
    spread = {"is_sharded": True, "shards": load.devices}
    layerwise, offloaded = {"is_sharded": True, "gather": "layer"}, {"is_sharded": True, "offload": True}
    cuts, segmenter = load.segmenter is not None and load.segmenter.frames_per_encode > 4, load.segmenter
    asking, fewer = load.asking, {"asking": replace(load.asking, batch_size=4)} if load.asking else {}
    few = {"segmenter": replace(segmenter, frames_per_encode=4)} if segmenter else {}
    # The first divides prompts from each other; smaller ones divide groups, whose prompt is then computed again.
    passes: list[tuple[bool, str, dict[str, Any]]] = [
        (load.pass_tokens > size, f"--model.grpo.micro_batch_tokens {size}", {"micro_batch_tokens": size})
        for size in (8192, 4096, 2048)
    ]
    every: list[tuple[bool, str, dict[str, Any]]] = [
        (load.is_merged, "--model.grpo.merge_adapter null", {"is_merged": False}),
        (load.groups_at_once > 1, f"--model.grpo.rollout_rows {load.group_size}", {"rollout_rows": load.group_size}),
        passes[0],
        (not load.checkpointing, "--model.reasoner.gradient_checkpointing true", {"checkpointing": True}),
        *passes[1:],
        (cuts, "--model.propagator.frames_per_encode 4", few),
        (asking is not None and asking.batch_size > 4, "--model.grounder.batch_size 4", fewer),
        (load.base_bytes == 4, "--model.reasoner.dtype bfloat16", {"base_bytes": 2}),
        (load.compute_bytes == 4, "--trainer.precision bf16-mixed", {"compute_bytes": 2}),
        (load.devices > 1 and not load.is_sharded, "--trainer.strategy fsdp", spread),
        (load.is_sharded and load.shards < load.devices, "--sharding.shard_size all", spread),
        (load.gather == "model", f"{fsdp}--sharding.gather layer", layerwise),
        (not load.offload, f"{fsdp}--sharding.offload true", offloaded),
    ]
    return [(flag, change) for applies, flag, change in every if applies]


def _cure(sizes: ReasonerSizes, load: Workload, card_gb: float) -> tuple[str, ...]:
    """The first flag that makes a run fit, or the first few that do together."""

    def fits(changes: Sequence[tuple[str, dict[str, Any]]]) -> bool:
        changed = replace(load, **{name: value for _, change in changes for name, value in change.items()})
        return plan_memory(sizes, changed).peak <= card_gb

    changes = _changes(load)
    for one in changes:
        if fits([one]):
            return _each_once([one[0]])
    chosen = next((changes[: end + 1] for end in range(len(changes)) if fits(changes[: end + 1])), [])
    for one in list(chosen):
        rest = [other for other in chosen if other is not one]
        if fits(rest):
            chosen = rest
    return _each_once([flag for flag, _ in chosen])


def _each_once(flags: list[str]) -> tuple[str, ...]:
    """Flags without those that a later one of the same name replaces."""
    pairs = [pair for flag in flags for pair in re.findall(r"(--\S+) (\S+)", flag)]
    return tuple(f"{name} {value}" for name, value in dict(pairs).items())


def _prompt_tokens(sizes: ReasonerSizes, data: Any) -> int:  # noqa: ANN401
    frames = data.budget.glance_frames
    sound_s = 0.0 if getattr(data, "task", "") in _SILENT else frames / data.fps
    return prompt_tokens(sizes, frames=frames, pixels=data.budget.glance_max_pixels, sound_s=sound_s)


def _clip_frames(data: Any) -> int:  # noqa: ANN401
    """Frames of a training clip, as far as settings say."""
    return int(getattr(data, "clip_frames", None) or data.budget.glance_frames)


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
