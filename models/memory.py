"""What a run needs on each device, part by part, before anything is loaded.

The figures are sums of what is known to be held at the same time in the four parts of a step that differ: rollout, the
boxes and the masks of System 2 (`models.system2_memory`), and update. What autograd saves per token of a decoder layer
was counted on the real layers (bfloat16 base, float32 adapter, mixed precision, shared engine) at several widths; a
test counts again. GB are 1e9 bytes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from models.sizes import ReasonerSizes
from models.system2_memory import SAM2_KEPT_FRAME_GB, Asking, Segmenter

PHASES = ("rollout", "boxes", "masks", "update")
Held = tuple[float, float, float, float]
"""One figure for each of them."""
GB = 1e9
_TRAINED_BYTES = 4  # adapter, gradients and every state of the optimizer are float32
_CONTEXT_GB, _FRAGMENTS = 1.0, 0.05
_LAYERS_UNDER_WAY = 3
"""Layers that are whole at the same time when they come and go: one that runs, one ahead, and a buffer."""
_LOGIT_BYTES = 12
"""Per logit: three float32 tensors at a time."""
_CHUNK_OF_LOGITS = 2**25
"""Logits that exist at a time in the update; what `grpo.chunked` allows."""
_FIRST_CAPACITY = 64
"""Room of a row's tokens that grows by doubling, at first; that of `grpo.decoder`."""
_TEXT_TOKENS, _SOUND_TOKENS_PER_S = 600, 25


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
        is_shared: The engine computes a prompt once for all of its completions.
        rollout_rows: Most completions that are sampled at a time.
        micro_batch_tokens: Most tokens per forward and backward pass of the update.
        is_merged: Rollouts sample from a copy of the layers that the adapter is folded into.
        prompts: Prompts per step on a device.
        prompt_tokens: Of a prompt, media included.
        max_new_tokens: Of a completion.
        checkpointing: Activations of a layer are computed again in the backward pass.
        segmenter: SAM2, if any reward or validation needs masks; None when it is not loaded.
        detector_bytes: Of a grounder with weights of its own.
        asking: How the base model is asked for boxes, if it is the grounder.
        is_whole_held_out: Held-out clips have as many frames as their files, which no setting says; else the segmenter
            keeps no more of them than it is planned with.
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
    is_shared: bool = True
    rollout_rows: int = 64
    micro_batch_tokens: int = 16384
    is_merged: bool = False
    prompts: int = 1
    prompt_tokens: int = 1500
    max_new_tokens: int = 800
    checkpointing: bool = True
    segmenter: Segmenter | None = field(default_factory=Segmenter)
    detector_bytes: int = 0
    asking: Asking | None = None
    is_whole_held_out: bool = False

    @property
    def groups_at_once(self) -> int:
        """Prompts whose completions are sampled at the same time."""
        return min(self.prompts, max(1, self.rollout_rows // self.group_size)) if self.is_shared else 1

    @property
    def pass_tokens(self) -> int:
        """Tokens of the longest forward and backward pass."""
        row = self.prompt_tokens + self.max_new_tokens
        if self.is_shared:
            everything = self.prompts * (self.prompt_tokens + self.group_size * (self.max_new_tokens - 1))
        else:
            everything = self.prompts * self.group_size * row
        return max(row, min(everything, self.micro_batch_tokens))


@dataclass(frozen=True)
class MemoryPlan:
    """What is held when.

    Attributes:
        rows: Per part of the memory, gigabytes in each of `PHASES`.
    """

    rows: dict[str, Held]

    @property
    def totals(self) -> Held:
        """Gigabytes per phase."""
        rollout, boxes, masks, update = (sum(column) for column in zip(*self.rows.values(), strict=True))
        return rollout, boxes, masks, update

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
    return 24.0 * sizes.hidden + 8.0 * sizes.feed_forward + 4.0 * sizes.key_value + 14.0 * sizes.rank


def plan_memory(sizes: ReasonerSizes, load: Workload) -> MemoryPlan:
    """Add up what each device holds."""
    kept = 0.0 if load.offload else sizes.base * load.base_bytes / load.shards
    trained = 0.0 if load.offload else sizes.adapter * _TRAINED_BYTES / load.shards
    whole, under_way = _gathered(sizes, load)
    system_2, tracking = float(load.detector_bytes), 0.0
    if load.segmenter is not None:
        system_2 += load.segmenter.kept_bytes
        tracking = load.segmenter.working_bytes(objects=2 * load.group_size)
    reading, (asked, asking, answers) = _reading(sizes, load), _asking(sizes, load)
    activations, logits = _training_pass(sizes, load)
    states = trained * load.states
    rows: dict[str, Held] = {
        "base weights": (kept, kept, kept, kept),
        "base weights, gathered": (whole, whole, whole, under_way),
        "copies for rollouts": (_copied(sizes, load), 0.0, 0.0, 0.0),
        "adapter weights": (trained, trained, trained, trained),
        # Averaging gradients between whole copies needs a second one.
        "gradients": (0.0, 0.0, 0.0, trained * (1 if load.is_sharded or load.devices == 1 else 2)),
        "optimizer": (states, states, states, states + trained),
        "KV cache": (_cache(sizes, load), asked, 0.0, 0.0),
        "activations": (reading, max(reading, asking), reading, activations),
        "logits": (0.0, answers, 0.0, logits),
        "System 2": (system_2, system_2, system_2 + tracking, system_2),
    }
    held: dict[str, Held] = {name: (a / GB, b / GB, c / GB, d / GB) for name, (a, b, c, d) in rows.items()}
    a, b, c, d = (_CONTEXT_GB + _FRAGMENTS * sum(column) for column in zip(*held.values(), strict=True))
    return MemoryPlan(held | {"context, fragments": (a, b, c, d)})


def host_gb(sizes: ReasonerSizes, load: Workload) -> float:
    """Gigabytes of the host's memory that the shards of each device take; 0 where they are on the device."""
    if not load.offload:
        return 0.0
    # The adapter with its gradients and its optimizer.
    trained = sizes.adapter * float(_TRAINED_BYTES) * (2 + load.states)
    return (sizes.base * load.base_bytes + trained) / load.shards / GB


def frames_with_room(sizes: ReasonerSizes, load: Workload, card_gb: float) -> int:
    """Frames that a clip may have for its masks to fit on a device.

    Args:
        sizes: Of the reasoner.
        load: With a segmenter.
        card_gb: Memory of a device, in 1e9 bytes.
    """
    if load.segmenter is None:
        raise ValueError("without a segmenter no frames are kept")
    left_gb = card_gb - plan_memory(sizes, load).totals[PHASES.index("masks")]
    return load.segmenter.kept_frames + math.floor(left_gb / (SAM2_KEPT_FRAME_GB * (1 + _FRAGMENTS)))


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


def _copied(sizes: ReasonerSizes, load: Workload) -> float:
    """Weights that a rollout has twice: layers that the adapter is folded into, or the adapter in 16 bits."""
    if load.is_merged:
        return float(sizes.decoder * load.base_bytes)
    is_converted = load.is_shared and load.compute_bytes == 2 and not (load.is_sharded and load.gather == "layer")
    return float(sizes.adapter * load.compute_bytes) if is_converted else 0.0


def _cache(sizes: ReasonerSizes, load: Workload) -> float:
    """Keys and values of the prompts and rows that are sampled at the same time."""
    per_token = _cache_per_token(sizes, load)
    if not load.is_shared:
        # Every row has a prompt of its own, and growing a layer's cache by a token copies it.
        tokens = load.group_size * (load.prompt_tokens + load.max_new_tokens)
        return per_token * tokens * (1 + 1 / sizes.layers)
    rows = load.group_size * float(load.max_new_tokens)
    if load.is_sharded and load.gather == "layer":
        # No fixed places then: room is doubled, and copied meanwhile.
        room = max(_FIRST_CAPACITY, 2 ** math.ceil(math.log2(load.max_new_tokens)))
        rows = load.group_size * 1.5 * room
    # A prompt that is read is there twice until it has its place.
    return per_token * (load.groups_at_once * (load.prompt_tokens + rows) + load.prompt_tokens)


def _asking(sizes: ReasonerSizes, load: Workload) -> tuple[float, float, float]:
    """Keys and values, activations and logits where the base model is asked for boxes."""
    if load.asking is None:
        return 0.0, 0.0, 0.0
    # Growing a layer's cache by a token copies it.
    kept, logits = load.asking.kept_tokens, load.asking.questions * sizes.vocabulary
    cache = kept * _cache_per_token(sizes, load) * (1 + 1 / sizes.layers)
    # Under a mask, a layer's keys and values are repeated for every head of queries.
    repeated = 2.0 * kept * sizes.hidden * load.compute_bytes
    # Once as a condition, while it is made, and once as numbers.
    mask = load.asking.mask_cells * (3.0 + load.compute_bytes)
    working = load.asking.pass_tokens * _working_per_token(sizes, load) + repeated + mask
    return cache, _embeddings(sizes, load) + working, float(logits * _LOGIT_BYTES)


def _cache_per_token(sizes: ReasonerSizes, load: Workload) -> float:
    return 2.0 * load.compute_bytes * sizes.key_value * sizes.layers


def _reading(sizes: ReasonerSizes, load: Workload) -> float:
    """A prompt on its way through one layer without gradients."""
    return _embeddings(sizes, load) + load.prompt_tokens * _working_per_token(sizes, load)


def _training_pass(sizes: ReasonerSizes, load: Workload) -> tuple[float, float]:
    """What the backward pass of a micro-batch needs and works in, and its logits.

    The comparison with the plain engine (`grpo.self_check`) needs less: no gradients, no longer rows, as many logits.
    """
    # Mixed precision converts the adapter, and saves what it has converted.
    converted = 2.0 * sizes.adapter / sizes.layers if load.compute_bytes == 2 else 0.0
    saved = load.pass_tokens * saved_per_token(sizes) * load.compute_bytes / 2 + converted
    entries = load.pass_tokens * sizes.layers * sizes.hidden * float(load.compute_bytes)
    layers = entries + saved if load.checkpointing else sizes.layers * saved
    activations = _embeddings(sizes, load) + layers + load.pass_tokens * _working_per_token(sizes, load)
    scored = load.pass_tokens * sizes.vocabulary
    logits = min(scored, _CHUNK_OF_LOGITS) if load.is_shared else scored
    return activations, float(logits * _LOGIT_BYTES)


def _embeddings(sizes: ReasonerSizes, load: Workload) -> float:
    """All prompts of the step after the towers."""
    return float(load.prompts * load.prompt_tokens * sizes.hidden * load.compute_bytes)


def _working_per_token(sizes: ReasonerSizes, load: Workload) -> float:
    """What a layer computes in, beside what is saved."""
    return float(load.compute_bytes * (3 * sizes.feed_forward + 8 * sizes.hidden))
