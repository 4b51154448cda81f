"""Build, initialize and train a small SAM2 from scratch.

The classes are SAM2's own; what is new is how they start and how a training step runs. The released recipe begins
with pretrained encoders and months of masks. From nothing, at this size, a mask decoder first learns to paint every
object and to ignore the box, and memory attention stays blind for long. Three choices of the first weights avoid it:

- smooth position codes in the prompt encoder, and query and key projections of the mask decoder that start equal, so
  that attention begins as similarity of position and content;
- memory attention that starts a little local and loud: queries and keys share a bias on fast-turning pairs of the
  rotary code, which makes every place look around the same place of a memory first (and, pushed through the memory
  encoder's own projections, at what looks alike), and masks weigh more than pixels in a memory. Averaged over the
  frame, or drowned in pixels, a memory says nothing that a decoder could learn to read. Where to look from then on is
  taught directly (`models.tiny.lookback`);
- true masks in the memories of prompted frames at first (`Window.known`), because predicted ones are worth nothing yet;
- an object score that starts positive.

Differences from SAM2's training code: pixel loss is binary cross-entropy, not focal loss, which prefers empty masks
early; mask losses bypass the hard no-object gate, which would cut the gradient; prompts are boxes only.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from sam2.modeling.sam2_base import NO_OBJ_SCORE

from models.sam2_loading import build_predictor
from models.sam2_predictor import ClipFeatures, ClipPredictor

TINY_CONFIG = Path(__file__).with_name("propagator.yaml")

_POSITION_SCALE = 0.35
_SIMILARITY_GAIN = 1.5
_LOCAL_BIAS = 2.0
_LOCAL_PAIRS = 3
"""Rotary pairs per axis that carry the bias; at side 8 they turn by 1, 0.75 and 0.56 radians per cell."""
_VALUE_GAIN = 5.0
_MASK_GAIN = 15.0
_KNOWN_LOGIT = 10.0
_OBJECT_BIAS = 2.0


@dataclass(frozen=True)
class Window:
    """What a training step shows the model.

    Attributes:
        frames: Normalized RGB.
        clip: Which clip a row belongs to.
        boxes: xyxy on the prompted frames, pixels of the side.
        prompted: Positions of the prompted frames, the same for every row, ascending.
        clip_frames: Length of the clip that the window poses as.
        known: True masks of the prompted frames, to remember instead of the predicted ones; None remembers those.
    """

    frames: Float[torch.Tensor, "clips frames 3 side side"]
    clip: Int[torch.Tensor, "rows"]
    boxes: Float[torch.Tensor, "rows prompts 4"]
    prompted: tuple[int, ...]
    clip_frames: int
    known: Bool[torch.Tensor, "rows prompts side side"] | None = None


@dataclass(frozen=True)
class WindowOutputs:
    """What the model says about every row on every frame of a window.

    Attributes:
        logits: Mask logits at a quarter of the side, not gated by the object score.
        ious: Predicted IoU of each mask, 0..1.
        scores: Object score logits, positive where the object is said to be visible.
    """

    logits: Float[torch.Tensor, "rows frames height width"]
    ious: Float[torch.Tensor, "rows frames"]
    scores: Float[torch.Tensor, "rows frames"]


def build_tiny_propagator(config_file: Path = TINY_CONFIG) -> ClipPredictor:
    """A small SAM2 with first weights that can be trained from scratch."""
    model = build_predictor(config_file)
    with torch.no_grad():
        _start_mask_decoder(model)
        _start_memory_attention(model)
    return model


def _start_mask_decoder(model: ClipPredictor) -> None:
    model.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.fill_(_OBJECT_BIAS)
    model.sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix.mul_(_POSITION_SCALE)
    for attention in model.sam_mask_decoder.transformer.modules():
        if hasattr(attention, "q_proj"):
            attention.k_proj.weight.mul_(_SIMILARITY_GAIN)
            attention.q_proj.weight.copy_(attention.k_proj.weight)


def _start_memory_attention(model: ClipPredictor) -> None:
    """Every place looks at the same place and at what looks alike, and learns above all whether the mask covered it."""
    encoder = model.memory_encoder
    for part in (encoder.mask_downsampler.encoder[-1].weight, encoder.mask_downsampler.encoder[-1].bias):
        part.mul_(_MASK_GAIN)
    into_memory = encoder.out_proj.weight[:, :, 0, 0] @ encoder.pix_feat_proj.weight[:, :, 0, 0]
    for layer in model.memory_attention.layers:
        layer.self_attn.q_proj.weight.copy_(layer.self_attn.k_proj.weight)
        cross = layer.cross_attn_image
        cross.q_proj.weight.copy_(cross.k_proj.weight @ into_memory)
        cross.v_proj.weight.mul_(_VALUE_GAIN)
        # Channels (2i, 2i + 1) of the first half turn with the column, those of the second half with the row.
        for bias in (cross.q_proj.bias, cross.k_proj.bias):
            bias.zero_()
            bias.view(2, -1, 2)[:, :_LOCAL_PAIRS, 0] = _LOCAL_BIAS


def track_window(model: ClipPredictor, window: Window) -> WindowOutputs:
    """Follow every row through a window with gradients, in the order in which the predictor goes through a clip.

    Prompted frames come first, then the frames after the first prompted one, then those before it, backward. The
    model must be in evaluation mode: SAM2 picks memories by other rules in training mode.
    """
    frames = window.frames.shape[1]
    features = model.encode(window.frames.flatten(0, 1))
    first = window.prompted[0]
    order = list(window.prompted)
    order += [frame for frame in range(first + 1, frames) if frame not in window.prompted]
    order += list(range(first - 1, -1, -1))
    memory: dict[str, dict[int, dict[str, object]]] = {"cond_frame_outputs": {}, "non_cond_frame_outputs": {}}
    found: dict[int, tuple[torch.Tensor, ...]] = {}
    for frame in order:
        maps = [level[window.clip * frames + frame] for level in features.levels]
        points = None
        if frame in window.prompted:
            points = window.boxes[:, window.prompted.index(frame)].reshape(-1, 2, 2)
        conditioned = _condition(model, window, memory, features, maps, frame)
        logits, iou, token, score = _decode(model, conditioned, points, maps[:-1])
        found[frame] = (logits[:, 0], iou[:, 0], score[:, 0])
        if points is not None and window.known is not None:
            logits, score = _certain(window.known[:, window.prompted.index(frame)], like=logits)
        key = "cond_frame_outputs" if points is not None else "non_cond_frame_outputs"
        memory[key][frame] = _remember(model, maps[-1], logits, token, score, is_prompted=points is not None)
    parts = [torch.stack([found[frame][part] for frame in range(frames)], dim=1) for part in range(3)]
    return WindowOutputs(*parts)


def _condition(
    model: ClipPredictor,
    window: Window,
    memory: dict[str, dict[int, dict[str, object]]],
    features: ClipFeatures,
    maps: list[torch.Tensor],
    frame: int,
) -> Float[torch.Tensor, "rows channels height width"]:
    """The frame's coarsest features after memory attention."""
    rows = len(window.clip)
    place = features.positions[-1].flatten(2).permute(2, 0, 1).expand(-1, rows, -1)
    conditioned: torch.Tensor = model._prepare_memory_conditioned_features(
        frame_idx=frame,
        is_init_cond_frame=frame in window.prompted,
        current_vision_feats=[maps[-1].flatten(2).permute(2, 0, 1)],
        current_vision_pos_embeds=[place],
        feat_sizes=[tuple(maps[-1].shape[-2:])],
        output_dict=memory,
        num_frames=window.clip_frames,
        track_in_reverse=frame < window.prompted[0],
    )
    return conditioned


def _decode(
    model: ClipPredictor,
    conditioned: torch.Tensor,
    points: Float[torch.Tensor, "rows 2 2"] | None,
    fine: list[torch.Tensor],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """SAM2's prompt encoder and mask decoder without the no-object gate."""
    rows, device = len(conditioned), conditioned.device
    if points is None:
        prompt = (torch.zeros(rows, 1, 2, device=device), torch.full((rows, 1), -1, device=device))
    else:
        prompt = (points, torch.tensor([[2, 3]], device=device).expand(rows, -1))
    sparse, dense = model.sam_prompt_encoder(points=prompt, boxes=None, masks=None)
    logits, iou, tokens, score = model.sam_mask_decoder(
        image_embeddings=conditioned,
        image_pe=model.sam_prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        multimask_output=False,
        repeat_image=False,
        high_res_features=fine,
    )
    return logits.float(), iou.float(), tokens[:, 0], score.float()


def _certain(
    masks: Bool[torch.Tensor, "rows side side"], *, like: Float[torch.Tensor, "rows 1 height width"]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mask and object logits of a decoder that knows the masks."""
    share = F.adaptive_avg_pool2d(masks[:, None].to(like.dtype), (like.shape[-2], like.shape[-1]))
    return (2 * share - 1) * _KNOWN_LOGIT, torch.full_like(like[:, :, 0, 0], _KNOWN_LOGIT)


def _remember(
    model: ClipPredictor,
    coarse: torch.Tensor,
    logits: torch.Tensor,
    token: torch.Tensor,
    score: torch.Tensor,
    *,
    is_prompted: bool,
) -> dict[str, object]:
    """What later frames may look back at: the gated mask as a spatial memory, and an object pointer."""
    is_visible = (score > 0).to(token.dtype)
    gated = torch.where(score[:, :, None, None] > 0, logits, NO_OBJ_SCORE)
    features, places = model._encode_new_memory(
        current_vision_feats=[coarse.flatten(2).permute(2, 0, 1)],
        feat_sizes=[tuple(coarse.shape[-2:])],
        pred_masks_high_res=F.interpolate(gated, size=(model.image_size, model.image_size), mode="bilinear"),
        object_score_logits=score,
        is_mask_from_pts=is_prompted,
    )
    pointer = is_visible * model.obj_ptr_proj(token) + (1 - is_visible) * model.no_obj_ptr
    return {"maskmem_features": features, "maskmem_pos_enc": places, "obj_ptr": pointer}
