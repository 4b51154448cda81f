"""What a run needs on each device, part by part, before anything is loaded.

The figures are sums of what is known to be held at the same time in the three parts of a step that differ: rollout,
System 2 and update. What autograd saves per token of a decoder layer was fitted to what it does save for the real
layers (bfloat16 base, float32 adapter, mixed precision); a test holds the fit. GB are 1e9 bytes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from models.sizes import ReasonerSizes

PHASES = ("rollout", "System 2", "update")
GB = 1e9
_TRAINED_BYTES = 4  # adapter, gradients and every state of the optimizer are float32
_CONTEXT_GB, _FRAGMENTS = 1.0, 0.05
_LAYERS_UNDER_WAY = 3
"""Layers that are whole at the same time when they come and go: one that runs, one ahead, and a buffer."""
_LOGIT_BYTES = 12
"""Per logit of the update: three float32 tensors at a time."""
_TEXT_TOKENS, _SOUND_TOKENS_PER_S = 600, 25

SAM2_FRAME_GB = {"tiny": 0.26, "small": 0.29, "base_plus": 0.33, "large": 0.41}
"""Memory per frame that SAM2 encodes at a time, by size, counted on the meta device at 1024 pixels in bfloat16."""
_SAM2_WEIGHTS = {"tiny": 39e6, "small": 46e6, "base_plus": 81e6, "large": 224e6}
_SAM2_OBJECT_GB = 0.1


@dataclass(frozen=True)
class Segmenter:
    """SAM2 as it is used.

    Attributes:
        size: Of the released model: tiny, small, base_plus or large.
        frames_per_encode: Frames that are encoded at a time.
        objects_per_pass: Most objects that travel together.
    """

    size: str = "large"
    frames_per_encode: int = 16
    objects_per_pass: int = 32


@dataclass(frozen=True)
class Workload:
    """What is run, and on what.

    Attributes:
        devices: All of them.
        is_sharded: The base is spread; otherwise every device holds it whole.
        shards: Devices that share a copy.
        offload: Shards are kept in the host's memory.
        gather: What a rollout holds of a sharded base.
        base_bytes: Bytes per frozen weight.
        compute_bytes: Bytes per number that is computed with: 2 in mixed precision.
        states: Numbers that the optimizer keeps per trained weight.
        group_size: Completions per prompt.
        micro_batch_size: Completions per forward pass of the update.
        prompts: Prompts per step on a device.
        prompt_tokens: Of a prompt, media included.
        max_new_tokens: Of a completion.
        checkpointing: Activations of a layer are computed again in the backward pass.
        segmenter: SAM2, if any reward or validation needs masks; None when it is not loaded.
        detector_bytes: Of a grounder with weights of its own.
    """

    devices: int = 1
    is_sharded: bool = False
    shards: int = 1
    offload: bool = False
    gather: Literal["model", "layer"] = "model"
    base_bytes: int = 2
    compute_bytes: int = 2
    states: int = 2
    group_size: int = 8
    micro_batch_size: int = 2
    prompts: int = 1
    prompt_tokens: int = 1500
    max_new_tokens: int = 800
    checkpointing: bool = True
    segmenter: Segmenter | None = field(default_factory=Segmenter)
    detector_bytes: int = 0


@dataclass(frozen=True)
class MemoryPlan:
    """What is held when.

    Attributes:
        rows: Per part of the memory, gigabytes in each of `PHASES`.
    """

    rows: dict[str, tuple[float, float, float]]

    @property
    def totals(self) -> tuple[float, float, float]:
        """Gigabytes per phase."""
        rollout, system_2, update = (sum(column) for column in zip(*self.rows.values(), strict=True))
        return rollout, system_2, update

    @property
    def peak(self) -> float:
        """The most that is held in any phase."""
        return max(self.totals)


def prompt_tokens(
    sizes: ReasonerSizes, *, frames: int, pixels: int, sound_s: float, text_tokens: int = _TEXT_TOKENS
) -> int:
    """Length of a prompt.

    Args:
        sizes: What a video token covers.
        frames: Frames that System 1 sees.
        pixels: Of each of them.
        sound_s: Seconds of sound; 0 for none.
        text_tokens: Question and instructions.
    """
    video = math.ceil(frames / sizes.frames_per_token) * math.ceil(pixels / sizes.patch**2)
    return video + math.ceil(sound_s * _SOUND_TOKENS_PER_S) + text_tokens


def saved_per_token(sizes: ReasonerSizes) -> float:
    """Bytes that autograd saves per token in one decoder layer with an adapter on all its linear layers."""
    return 23.3 * sizes.hidden + 8.7 * sizes.feed_forward + 3.7 * sizes.key_value + 44.8 * sizes.rank


def plan_memory(sizes: ReasonerSizes, load: Workload) -> MemoryPlan:
    """Add up what each device holds."""
    kept = 0.0 if load.offload else sizes.base * load.base_bytes / load.shards
    trained = 0.0 if load.offload else sizes.adapter * _TRAINED_BYTES / load.shards
    whole, under_way = _gathered(sizes, load)
    system_2, working = _system_2(load)
    rows = {
        "base weights": (kept, kept, kept),
        "base weights, gathered": (whole, whole, under_way),
        "adapter weights": (trained, trained, trained),
        # Averaging gradients between whole copies needs a second one.
        "gradients": (0.0, 0.0, trained * (1 if load.is_sharded or load.devices == 1 else 2)),
        "optimizer": (trained * load.states, trained * load.states, trained * (load.states + 1)),
        "KV cache of the group": (_cache(sizes, load), 0.0, 0.0),
        "activations": (_reading(sizes, load), _reading(sizes, load), _activations(sizes, load)),
        "logits": (0.0, 0.0, load.micro_batch_size * load.max_new_tokens * sizes.vocabulary * float(_LOGIT_BYTES)),
        "System 2": (system_2, system_2 + working, system_2),
    }
    held = {name: (a / GB, b / GB, c / GB) for name, (a, b, c) in rows.items()}
    sums = [sum(column) for column in zip(*held.values(), strict=True)]
    reserve = [_CONTEXT_GB + _FRAGMENTS * part for part in sums]
    return MemoryPlan(held | {"context, fragments": (reserve[0], reserve[1], reserve[2])})


def _gathered(sizes: ReasonerSizes, load: Workload) -> tuple[float, float]:
    """Bytes of the base that are whole beside the shards: in rollouts, and in updates."""
    if not load.is_sharded:
        return 0.0, 0.0
    adapter = sizes.adapter * float(_TRAINED_BYTES)
    under_way = _LAYERS_UNDER_WAY * (sizes.layer * load.base_bytes + adapter / sizes.layers)
    update = sizes.ends * load.base_bytes + under_way
    if load.gather == "model":
        return sizes.base * load.base_bytes + adapter, update
    return (sizes.base - sizes.decoder) * load.base_bytes + under_way, update


def _cache(sizes: ReasonerSizes, load: Workload) -> float:
    """Keys and values of all rows of a group, each with a prompt of its own."""
    tokens = load.group_size * (load.prompt_tokens + load.max_new_tokens)
    # Growing a layer's cache by a token copies it.
    return 2.0 * load.compute_bytes * sizes.key_value * tokens * (sizes.layers + 1)


def _reading(sizes: ReasonerSizes, load: Workload) -> float:
    """A prompt on its way through one layer without gradients."""
    return _embeddings(sizes, load) + load.prompt_tokens * _working_per_token(sizes, load)


def _activations(sizes: ReasonerSizes, load: Workload) -> float:
    """What the backward pass of a micro-batch needs, and its own working memory in one layer."""
    tokens = load.micro_batch_size * (load.prompt_tokens + load.max_new_tokens)
    saved = saved_per_token(sizes) * load.compute_bytes / 2
    states = sizes.hidden * load.compute_bytes
    layers = sizes.layers * states + saved if load.checkpointing else sizes.layers * saved
    return _embeddings(sizes, load) + tokens * (layers + _working_per_token(sizes, load))


def _embeddings(sizes: ReasonerSizes, load: Workload) -> float:
    """All prompts of the step after the towers."""
    return float(load.prompts * load.prompt_tokens * sizes.hidden * load.compute_bytes)


def _working_per_token(sizes: ReasonerSizes, load: Workload) -> float:
    """What a layer computes in, beside what is saved."""
    return float(load.compute_bytes * (3 * sizes.feed_forward + 8 * sizes.hidden))


def _system_2(load: Workload) -> tuple[float, float]:
    """Bytes of System 2's weights, and what it works in."""
    weights, working = float(load.detector_bytes), 0.0
    if load.segmenter is not None:
        size = load.segmenter.size
        weights += 4 * _SAM2_WEIGHTS[size]
        encoding = load.segmenter.frames_per_encode * SAM2_FRAME_GB[size]
        following = min(load.segmenter.objects_per_pass, 2 * load.group_size) * _SAM2_OBJECT_GB
        working = max(encoding, following) * GB + 2 * _SAM2_WEIGHTS[size]
    return weights, working
