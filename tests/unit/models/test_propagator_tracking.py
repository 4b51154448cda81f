"""The batched path against SAM2's stock interface, logit by logit."""

import copy
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch

from models import sam2_tracking
from models.sam2_predictor import ClipPredictor, prepare_frames
from models.sam2_prompts import ObjectPrompts, Prompt
from models.sam2_tracking import track_objects
from models.tiny.propagator import build_tiny_propagator

SIZE, FRAMES = (48, 64), 7
TOLERANCE = 5e-5
"""Of logits between about -8 and 8; sums in another order, and memories rounded to bfloat16 after them."""
A, B = (5.0, 6.0, 30.0, 40.0), (30.0, 10.0, 60.0, 44.0)
MASK = np.zeros(SIZE, dtype=bool)
MASK[10:40, 12:36] = True

OBJECTS: tuple[ObjectPrompts, ...] = (
    (Prompt(0, A),),
    (Prompt(3, B),),
    (Prompt(FRAMES - 1, A),),
    (Prompt(3, A), Prompt(4, A)),
    (Prompt(1, A), Prompt(3, B), Prompt(6, A)),
    (Prompt(1, A, MASK), Prompt(5, B)),
)


@pytest.fixture(scope="module")
def weights() -> ClipPredictor:
    """Random weights, with memory attention turned up (an untrained one hardly changes a mask), and not so far that
    the rounding of memories shows."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        predictor = build_tiny_propagator()
        for layer in predictor.memory_attention.layers:
            layer.cross_attn_image.out_proj.weight.mul_(4)
            layer.cross_attn_image.q_proj.weight.mul_(4)
            layer.cross_attn_image.v_proj.weight.div_(14)
            layer.cross_attn_image.q_proj.bias.zero_()
            layer.cross_attn_image.k_proj.bias.zero_()
        for part in predictor.memory_encoder.mask_downsampler.encoder[-1].parameters():
            part.div_(15)
        predictor.maskmem_tpos_enc.mul_(64)
        predictor.obj_ptr_tpos_proj.weight.mul_(8)
    return predictor.requires_grad_(False)


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 255, (FRAMES, 6, 8, 3), dtype=np.uint8)
    return prepare_frames(coarse.repeat(8, axis=1).repeat(8, axis=2), 128)


@torch.inference_mode()
def batched_logits(predictor: ClipPredictor, images: torch.Tensor, objects: Sequence[ObjectPrompts]) -> torch.Tensor:
    logits = torch.full((len(objects), len(images), 32, 32), torch.nan)
    for found in track_objects(predictor, predictor.encode(images), objects, size=SIZE):
        for (row, frame), mask in zip(found.places, found.logits, strict=True):
            assert logits[row, frame].isnan().all()
            logits[row, frame] = mask[0]
    return logits


def stock_logits(predictor: ClipPredictor, images: torch.Tensor, objects: Sequence[ObjectPrompts]) -> torch.Tensor:
    logits = torch.full((len(objects), len(images), 32, 32), torch.nan)
    for row, prompts in enumerate(objects):
        state = predictor.open_state(images, SIZE)
        for prompt in prompts:
            if prompt.mask is None:
                predictor.add_new_points_or_box(state, prompt.frame, 1, box=np.array(prompt.box, dtype=np.float32))
            else:
                predictor.add_new_mask(state, prompt.frame, 1, prompt.mask)
        for reverse in (False, True):
            list(predictor.propagate_in_video(state, start_frame_idx=prompts[0].frame, reverse=reverse))
        for kind in ("cond_frame_outputs", "non_cond_frame_outputs"):
            for frame, output in state["output_dict_per_obj"][0][kind].items():
                logits[row, frame] = output["pred_masks"][0, 0]
    return logits


def changed(weights: ClipPredictor, change: Callable[[ClipPredictor], None]) -> ClipPredictor:
    predictor = copy.deepcopy(weights)
    change(predictor)
    return predictor


def test_every_kind_of_prompt_gives_the_stock_logits(weights, images):
    torch.testing.assert_close(
        batched_logits(weights, images, OBJECTS), stock_logits(weights, images, OBJECTS), rtol=0, atol=TOLERANCE
    )


def released_settings(predictor: ClipPredictor) -> None:
    """What the released configurations set and the tiny one does not."""
    predictor.multimask_output_in_sam = predictor.multimask_output_for_tracking = True
    predictor.binarize_mask_from_pts_for_mem_enc = True
    predictor.sam_mask_decoder.dynamic_multimask_via_stability = True
    predictor.sam_mask_decoder.use_multimask_token_for_obj_ptr = True


def nearest_two_prompts(predictor: ClipPredictor) -> None:
    predictor.max_cond_frames_in_attn = 2


def older_memories_at_a_stride(predictor: ClipPredictor) -> None:
    predictor.memory_temporal_stride_for_eval = 2


def pointers_ahead(predictor: ClipPredictor) -> None:
    predictor.only_obj_ptrs_in_the_past_for_eval = False


def unsigned_pointers_ahead(predictor: ClipPredictor) -> None:
    pointers_ahead(predictor)
    predictor.use_signed_tpos_enc_to_obj_ptrs = False


def few_plain_pointers(predictor: ClipPredictor) -> None:
    predictor.add_tpos_enc_to_obj_ptrs = False
    predictor.max_obj_ptrs_in_encoder = 3


@pytest.mark.parametrize(
    "change",
    [
        released_settings,
        nearest_two_prompts,
        older_memories_at_a_stride,
        pointers_ahead,
        unsigned_pointers_ahead,
        few_plain_pointers,
    ],
)
def test_other_settings_of_sam2_are_followed(weights, images, change):
    """Each setting moves the logits by far more than the tolerance, and moves both paths alike."""
    predictor, objects = changed(weights, change), OBJECTS[4:5]
    found = batched_logits(predictor, images, objects)
    torch.testing.assert_close(found, stock_logits(predictor, images, objects), rtol=0, atol=TOLERANCE)
    assert (found - batched_logits(weights, images, objects)).abs().max() > 10 * TOLERANCE


def test_without_pointers_memories_alone_are_read(weights, images):
    def forget_pointers(predictor: ClipPredictor) -> None:
        predictor.use_obj_ptrs_in_encoder = False

    found = batched_logits(changed(weights, forget_pointers), images, OBJECTS[1:2])
    assert found.isfinite().all()
    assert (found - batched_logits(weights, images, OBJECTS[1:2])).abs().max() > 10 * TOLERANCE


def test_the_way_back_needs_memories_of_the_way_out(weights, images, monkeypatch):
    """What the comparison would say if frames beyond the prompt were forgotten on the way back."""
    honest = sam2_tracking.memory_layout

    def forgetful(frame, prompted, visited, rules, *, clip_frames, is_way_back):
        near = {other for other in visited if (other < prompted[0]) == is_way_back}
        return honest(frame, prompted, near, rules, clip_frames=clip_frames, is_way_back=is_way_back)

    complete = batched_logits(weights, images, OBJECTS[1:2])[0]
    monkeypatch.setattr(sam2_tracking, "memory_layout", forgetful)
    change = (batched_logits(weights, images, OBJECTS[1:2])[0] - complete).abs().amax(dim=(1, 2))
    assert (change[3:] == 0).all()
    assert change[:3].max() > 10 * TOLERANCE


def test_rows_share_batches(weights, images):
    """4 objects with one prompt each: on the way out one batch, on the way back two, never one per object."""
    rows = []
    weights.memory_attention.register_forward_hook(
        lambda _, __, kwargs, ___: rows.append(kwargs["memory"].shape[1]), with_kwargs=True
    )
    objects = [(Prompt(frame, A),) for frame in (0, 1, 5, 6)]
    batched_logits(weights, images, objects)
    assert sum(rows) == 4 * (FRAMES - 1)
    assert len(rows) <= 2 * (FRAMES - 1)
    assert max(rows) >= 3
