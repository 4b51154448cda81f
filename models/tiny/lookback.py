"""Tell a small SAM2 where memory attention must look.

In SAM2's own training nothing says which memory a place should attend to; masks alone teach it, at length. A small
one that starts from nothing finds a shortcut first: a thing is where it was. It then never needs to find out what the
thing looks like, and loses whatever has moved. But on a pair of frames with true masks the right answer is known: a
place on the thing looks back at the thing, any other place does not. That is one cross-entropy per place, and a few
hundred steps teach it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from sam2.modeling.position_encoding import apply_rotary_enc
from sam2.modeling.sam.transformer import RoPEAttention

from models.sam2_predictor import ClipPredictor

Looks = list[Float[torch.Tensor, "rows places memories"]]

_IS_ON = 0.35
"""Share of a place's cell that a thing covers when the place counts as on it."""
_IS_OFF = 0.02
_IS_REMEMBERED = 0.1
"""Share of a memory's cell from which on looking there is looking at the thing."""
_LEAST = 1e-4


@contextmanager
def watch_memory_attention(model: ClipPredictor) -> Iterator[Looks]:
    """Collect the attention that every place pays to every memory, with gradients, layer by layer and call by call.

    Args:
        model: Its memory attention has one head per layer.

    Yields:
        A list that grows with every call of a layer; attention over all memories sums to 1.
    """
    looks: Looks = []
    layers = [layer.cross_attn_image for layer in model.memory_attention.layers]
    hooks = [layer.register_forward_pre_hook(partial(_watch, looks=looks), with_kwargs=True) for layer in layers]
    try:
        yield looks
    finally:
        for hook in hooks:
            hook.remove()


def _watch(attention: RoPEAttention, _: tuple[Any, ...], given: dict[str, Any], *, looks: Looks) -> None:
    queries = attention._separate_heads(attention.q_proj(given["q"]), 1)
    keys = attention._separate_heads(attention.k_proj(given["k"]), 1)
    turning = keys.shape[2] - given.get("num_k_exclude_rope", 0)
    codes = attention.freqs_cis.to(queries.device)
    queries, turned = apply_rotary_enc(
        queries, keys[:, :, :turning], freqs_cis=codes, repeat_freqs_k=attention.rope_k_repeat
    )
    keys = torch.cat([turned, keys[:, :, turning:]], dim=2)
    looks.append((queries @ keys.transpose(2, 3) / math.sqrt(queries.shape[-1])).softmax(dim=-1)[:, 0])


def lookback_loss(
    looks: Looks, remembered: Bool[torch.Tensor, "rows side side"], seen: Bool[torch.Tensor, "rows side side"]
) -> Float[torch.Tensor, ""]:
    """How far attention is from looking at the thing from where the thing is, and elsewhere from elsewhere.

    With m the attention that a place pays to the memory's cells on the thing: mean of -ln m over the places on the
    thing plus mean of -ln(1 - m) over the places off it. Places at its edge are left out.

    Args:
        looks: Of one frame whose first memories are the cells of one other frame, one entry per layer.
        remembered: True masks on the remembered frame.
        seen: True masks on the frame that looks back; all False where the thing is away.

    Returns:
        Mean over the layers, >= 0; 0 where no place counts.
    """
    places = looks[0].shape[1]
    on_memory = _cover(remembered, places) > _IS_REMEMBERED
    cover = _cover(seen, places)
    losses = []
    for look in looks:
        mass = (look[:, :, :places] * on_memory[:, None]).sum(dim=2).clamp(_LEAST, 1 - _LEAST)
        losses.append(_mean(-mass.log()[cover > _IS_ON]) + _mean(-(1 - mass).log()[cover < _IS_OFF]))
    return torch.stack(losses).mean()


def _cover(masks: Bool[torch.Tensor, "rows side side"], places: int) -> Float[torch.Tensor, "rows places"]:
    """Share of every cell of a square grid that a mask covers."""
    return F.adaptive_avg_pool2d(masks[:, None].float(), math.isqrt(places)).flatten(1)


def _mean(values: Float[torch.Tensor, "count"]) -> Float[torch.Tensor, ""]:
    return values.sum() / max(1, len(values))
