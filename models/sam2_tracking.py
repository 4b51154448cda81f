"""Follow many objects through one clip at once, with SAM2's own weights, rules and results.

SAM2's video predictor follows one object after another, with batch size 1, and encodes a frame again whenever it comes
back to it. `track_objects` encodes nothing, takes the features of the clip as they are, and advances all objects
together: in every wave each object segments one frame, and objects that look back at equally many memories share a
batch. Their keyframes may differ. Per object the result is the predictor's own: prompts on all keyframes, then forward
from the first keyframe to the end, then backward from it to the start; memories are rounded to bfloat16 as there. What
remains is the order of floating-point sums.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from sam2.modeling.sam2_utils import get_1d_sine_pe

from models.sam2_memory import MemoryLayout, MemoryRules, frame_at_wave, memory_layout
from models.sam2_predictor import ClipFeatures, ClipPredictor
from models.sam2_prompts import ObjectPrompts, Prompt


@dataclass(frozen=True)
class SegmentedFrames:
    """Masks of some objects, one frame each.

    Attributes:
        places: (object, frame) of every mask.
        logits: Mask logits at a quarter of the model's image size; -1024 throughout where the object is not visible.
    """

    places: tuple[tuple[int, int], ...]
    logits: Float[torch.Tensor, "places 1 height width"]


@dataclass(frozen=True)
class _Memories:
    """What the frames segmented so far left behind, per object and frame."""

    spatial: Float[torch.Tensor, "objects frames channels height width"]
    place: Float[torch.Tensor, "1 channels height width"]
    pointers: Float[torch.Tensor, "objects frames units"]
    visited: list[set[int]]


@dataclass(frozen=True)
class _Segmented:
    """Masks with what they leave behind; the first axis of everything is the batch."""

    logits: Float[torch.Tensor, "batch 1 height width"]
    spatial: Float[torch.Tensor, "batch channels rows columns"]
    place: Float[torch.Tensor, "1 channels rows columns"]
    pointers: Float[torch.Tensor, "batch units"]


@dataclass(frozen=True)
class _Job:
    """One object on one frame."""

    index: int
    frame: int
    layout: MemoryLayout


def track_objects(
    predictor: ClipPredictor, features: ClipFeatures, objects: Sequence[ObjectPrompts], *, size: tuple[int, int]
) -> Iterator[SegmentedFrames]:
    """Segment every object on every frame of a clip.

    Args:
        predictor: SAM2 in evaluation mode.
        features: What `predictor.encode` made of the clip.
        objects: The prompts of each object, in time order, at least one each.
        size: (height, width) of the original frames that boxes and masks refer to, in pixels.

    Yields:
        Masks as soon as they are known; every (object, frame) once.
    """
    rules = _rules(predictor)
    prompts = {prompt.key: prompt for prompted in objects for prompt in prompted}
    answers = dict(zip(prompts, range(len(prompts)), strict=True))
    segmented = _segment_prompts(predictor, features, list(prompts.values()), size)
    places = [(index, prompt) for index, prompted in enumerate(objects) for prompt in prompted]
    rows = torch.tensor([answers[prompt.key] for _, prompt in places], device=segmented.logits.device)
    targets = tuple((index, prompt.frame) for index, prompt in places)
    memories = _new_memories(segmented, len(objects), features.frames)
    _store(memories, targets, segmented.spatial[rows], segmented.pointers[rows])
    yield SegmentedFrames(targets, segmented.logits[rows])
    for wave in range(1, features.frames):
        for batch in _batches(objects, memories, wave, rules, features.frames):
            found = _segment_from_memory(predictor, features, memories, batch)
            targets = tuple((job.index, job.frame) for job in batch)
            _store(memories, targets, found.spatial, found.pointers)
            for job in batch:
                memories.visited[job.index].add(job.frame)
            yield SegmentedFrames(targets, found.logits)


def _rules(predictor: ClipPredictor) -> MemoryRules:
    return MemoryRules(
        spatial=predictor.num_maskmem,
        stride=predictor.memory_temporal_stride_for_eval,
        most_prompted=predictor.max_cond_frames_in_attn,
        pointers=predictor.max_obj_ptrs_in_encoder if predictor.use_obj_ptrs_in_encoder else 0,
        only_past_pointers=predictor.only_obj_ptrs_in_the_past_for_eval,
        has_signed_offsets=predictor.use_signed_tpos_enc_to_obj_ptrs,
    )


def _batches(
    objects: Sequence[ObjectPrompts], memories: _Memories, wave: int, rules: MemoryRules, clip_frames: int
) -> list[list[_Job]]:
    """The objects that have something to do in a wave, those with equally many memories together."""
    batches: dict[tuple[int, int], list[_Job]] = defaultdict(list)
    for index, prompts in enumerate(objects):
        frame, is_way_back = frame_at_wave(prompts[0].frame, wave, clip_frames)
        prompted = [prompt.frame for prompt in prompts]
        if frame in prompted:
            continue
        visited = memories.visited[index]
        layout = memory_layout(frame, prompted, visited, rules, clip_frames=clip_frames, is_way_back=is_way_back)
        batches[layout.counts].append(_Job(index, frame, layout))
    return list(batches.values())


def _segment_prompts(
    predictor: ClipPredictor, features: ClipFeatures, prompts: Sequence[Prompt], size: tuple[int, int]
) -> _Segmented:
    """Masks of prompted frames, without memory; box prompts in one batch, mask prompts in another."""
    by_box = [row for row, prompt in enumerate(prompts) if prompt.mask is None]
    by_mask = [row for row, prompt in enumerate(prompts) if prompt.mask is not None]
    parts = []
    for rows, is_box in ((by_box, True), (by_mask, False)):
        if rows:
            chosen = [prompts[row] for row in rows]
            points = _box_points(predictor, chosen, size) if is_box else None
            masks = None if is_box else _mask_inputs(predictor, chosen)
            parts.append(_segment_prompted(predictor, features, [prompt.frame for prompt in chosen], points, masks))
    order = torch.tensor(by_box + by_mask, device=parts[0].logits.device).argsort()
    return _Segmented(
        logits=torch.cat([part.logits for part in parts])[order],
        spatial=torch.cat([part.spatial for part in parts])[order],
        place=parts[0].place,
        pointers=torch.cat([part.pointers for part in parts])[order],
    )


def _box_points(predictor: ClipPredictor, prompts: Sequence[Prompt], size: tuple[int, int]) -> dict[str, torch.Tensor]:
    """Boxes as SAM2 takes them: the two corners as points labeled 2 and 3, in pixels of the model's image."""
    height, width = size
    corners = torch.tensor([prompt.box for prompt in prompts], dtype=torch.float32).reshape(-1, 2, 2)
    coords = corners / torch.tensor([width, height]) * predictor.image_size
    labels = torch.tensor([[2, 3]], dtype=torch.int32).expand(len(prompts), -1)
    return {"point_coords": coords.to(predictor.device), "point_labels": labels.to(predictor.device)}


def _mask_inputs(predictor: ClipPredictor, prompts: Sequence[Prompt]) -> Float[torch.Tensor, "prompts 1 side side"]:
    masks = torch.stack([torch.from_numpy(prompt.mask) for prompt in prompts if prompt.mask is not None])
    side = predictor.image_size
    resized = F.interpolate(
        masks[:, None].float().to(predictor.device), size=(side, side), mode="bilinear", antialias=True
    )
    return (resized >= 0.5).float()


def _segment_prompted(
    predictor: ClipPredictor,
    features: ClipFeatures,
    frames: list[int],
    points: dict[str, torch.Tensor] | None,
    masks: torch.Tensor | None,
) -> _Segmented:
    levels = _levels(features, frames)
    positions = [level.expand(len(frames), -1, -1, -1).flatten(2).permute(2, 0, 1) for level in features.positions]
    sizes = [tuple(level.shape[-2:]) for level in levels]
    flat = [level.flatten(2).permute(2, 0, 1) for level in levels]
    found = predictor.track_step(
        frame_idx=frames[0],
        is_init_cond_frame=True,
        current_vision_feats=flat,
        current_vision_pos_embeds=positions,
        feat_sizes=sizes,
        point_inputs=points,
        mask_inputs=masks,
        output_dict={},
        num_frames=features.frames,
        run_mem_encoder=False,
    )
    # As the predictor does before it propagates: the memory is made of the low-resolution mask, scaled up.
    side = predictor.image_size
    fine = F.interpolate(found["pred_masks"], size=(side, side), mode="bilinear", align_corners=False)
    spatial, places = predictor._encode_new_memory(
        current_vision_feats=flat,
        feat_sizes=sizes,
        pred_masks_high_res=fine,
        object_score_logits=found["object_score_logits"],
        is_mask_from_pts=True,
    )
    return _Segmented(found["pred_masks"], spatial, places[-1][:1], found["obj_ptr"])


def _segment_from_memory(
    predictor: ClipPredictor, features: ClipFeatures, memories: _Memories, batch: Sequence[_Job]
) -> _Segmented:
    """Masks of frames without a prompt."""
    levels = _levels(features, [job.frame for job in batch])
    coarse = levels[-1].flatten(2).permute(2, 0, 1)
    place = features.positions[-1].flatten(2).permute(2, 0, 1).expand(-1, len(batch), -1)
    tokens, positions, pointer_tokens = _gather(predictor, memories, batch, features.frames)
    conditioned = predictor.memory_attention(
        curr=[coarse], curr_pos=[place], memory=tokens, memory_pos=positions, num_obj_ptr_tokens=pointer_tokens
    )
    _, _, _, logits, fine, pointers, scores = predictor._forward_sam_heads(
        backbone_features=conditioned.permute(1, 2, 0).reshape(levels[-1].shape),
        high_res_features=levels[:-1] or None,
        multimask_output=predictor._use_multimask(False, None),
    )
    spatial, places = predictor._encode_new_memory(
        current_vision_feats=[coarse],
        feat_sizes=[tuple(levels[-1].shape[-2:])],
        pred_masks_high_res=fine,
        object_score_logits=scores,
        is_mask_from_pts=False,
    )
    return _Segmented(logits, spatial, places[-1][:1], pointers)


def _gather(
    predictor: ClipPredictor, memories: _Memories, batch: Sequence[_Job], clip_frames: int
) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Memory tokens and their positions, (tokens, batch, channels) each, and how many of them are pointers."""
    device = memories.spatial.device
    rows = torch.tensor([job.index for job in batch], device=device)[:, None]
    spatial = torch.tensor([job.layout.spatial for job in batch], device=device)
    # Memories as (batch, memories, channels, height, width).
    maps = memories.spatial[rows, spatial[..., 0]].to(memories.place.dtype)
    ages = predictor.maskmem_tpos_enc.flatten(1)[spatial[..., 1]]
    tokens = [maps.flatten(3).permute(1, 3, 0, 2).flatten(0, 1)]
    positions = [(memories.place[:, None] + ages[..., None, None]).flatten(3).permute(1, 3, 0, 2).flatten(0, 1)]
    pointers = torch.tensor([job.layout.pointers for job in batch], device=device)
    if not pointers.numel():
        return tokens[0], positions[0], 0
    width, channels = memories.pointers.shape[-1], maps.shape[2]
    found = memories.pointers[rows, pointers[..., 0]].transpose(0, 1)  # (pointers, batch, width)
    split = found.reshape(*found.shape[:2], width // channels, channels).transpose(1, 2).flatten(0, 1)
    offsets = _pointer_positions(predictor, pointers[..., 1].T, clip_frames, found)
    tokens.append(split)
    positions.append(offsets.repeat_interleave(width // channels, dim=0))
    return torch.cat(tokens), torch.cat(positions), len(split)


def _pointer_positions(
    predictor: ClipPredictor, offsets: torch.Tensor, clip_frames: int, pointers: torch.Tensor
) -> Float[torch.Tensor, "pointers batch channels"]:
    if not predictor.add_tpos_enc_to_obj_ptrs:
        return pointers.new_zeros(*offsets.shape, predictor.mem_dim)
    farthest = min(clip_frames, predictor.max_obj_ptrs_in_encoder) - 1
    width = predictor.hidden_dim if predictor.proj_tpos_enc_in_obj_ptrs else predictor.mem_dim
    encoded: torch.Tensor = predictor.obj_ptr_tpos_proj(get_1d_sine_pe(offsets / farthest, dim=width))
    return encoded


def _levels(features: ClipFeatures, frames: Sequence[int]) -> list[torch.Tensor]:
    """Feature maps of some frames, finest first."""
    chosen = torch.tensor(frames, device=features.levels[0].device)
    return [level[chosen] for level in features.levels]


def _new_memories(segmented: _Segmented, objects: int, frames: int) -> _Memories:
    spatial = segmented.spatial.new_zeros(objects, frames, *segmented.spatial.shape[1:], dtype=torch.bfloat16)
    pointers = segmented.pointers.new_zeros(objects, frames, segmented.pointers.shape[-1])
    return _Memories(spatial, segmented.place, pointers, [set() for _ in range(objects)])


def _store(
    memories: _Memories, places: Sequence[tuple[int, int]], spatial: torch.Tensor, pointers: torch.Tensor
) -> None:
    rows, frames = torch.tensor(places, device=spatial.device).T
    memories.spatial[rows, frames] = spatial.to(memories.spatial.dtype)
    memories.pointers[rows, frames] = pointers.to(memories.pointers.dtype)
