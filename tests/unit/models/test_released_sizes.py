"""The released geometry on the meta device: no weights, no memory, the real classes."""

import pytest
import torch

from models.adapter import LoRA
from models.published import RELEASED, released_config
from models.reasoner import Reasoner
from models.sharded_loading import on_meta
from models.sharding import BLOCKS
from models.sizes import ReasonerSizes, find_config, measure

LORA = LoRA(r=64, alpha=128)
SIZES = {"Qwen/Qwen2.5-Omni-3B": (2048, 36, 16, 2, 11008), "Qwen/Qwen2.5-Omni-7B": (3584, 28, 28, 4, 18944)}
"""Published: hidden, layers, heads, key/value heads, feed-forward."""


@pytest.fixture(scope="module", params=RELEASED)
def released(request: pytest.FixtureRequest) -> tuple[str, Reasoner, ReasonerSizes]:
    config = find_config(request.param)
    with torch.device("meta"):
        reasoner = Reasoner(lora=LORA)
        reasoner.attach(on_meta(config, dtype=torch.bfloat16), processor=None)
    return request.param, reasoner, measure(config, LORA)


def count(parameters) -> int:
    return sum(parameter.numel() for parameter in parameters)


def test_adapter_fits_every_linear_layer_of_the_decoder_and_nothing_else(released) -> None:
    """Per decoder layer: q and o are hidden x hidden, k and v hidden x kv, three feed-forward layers; r = 64 each."""
    name, reasoner, sizes = released
    hidden, layers, heads, kv_heads, feed_forward = SIZES[name]
    kv = hidden // heads * kv_heads
    per_layer = 2 * (hidden + hidden) + 2 * (hidden + kv) + 3 * (hidden + feed_forward)
    trained = count(p for p in reasoner.parameters() if p.requires_grad)
    assert trained == 64 * per_layer * layers
    assert sizes.adapter == trained
    assert all(p.is_meta for p in reasoner.parameters())


def test_the_parts_of_the_base_add_up(released) -> None:
    """A decoder layer: q and o hidden x hidden, k and v hidden x kv, biases of q, k, v, three times ff, two norms."""
    name, reasoner, sizes = released
    hidden, layers, heads, kv_heads, feed_forward = SIZES[name]
    kv = hidden // heads * kv_heads
    layer = 2 * hidden**2 + 2 * hidden * kv + hidden + 2 * kv + 3 * hidden * feed_forward + 2 * hidden
    assert (sizes.layers, sizes.layer) == (layers, layer)
    assert sizes.base == count(p for p in reasoner.parameters() if not p.requires_grad)
    assert sizes.base / 1e9 == pytest.approx({"3B": 4.7, "7B": 8.9}[name[-2:]], abs=0.1)
    assert (sizes.hidden, sizes.key_value, sizes.feed_forward) == (hidden, kv, feed_forward)
    assert (sizes.patch, sizes.frames_per_token, sizes.rank) == (28, 2, 64)


def test_the_blocks_that_are_gathered_one_by_one_are_there(released) -> None:
    name, reasoner, _ = released
    classes = [type(module).__name__ for module in reasoner.modules()]
    assert {block: classes.count(block) for block in BLOCKS} == dict(zip(BLOCKS, (SIZES[name][1], 32, 32), strict=True))


def test_unknown_ids_are_no_released_ones() -> None:
    with pytest.raises(KeyError):
        released_config("Qwen/Qwen2.5-Omni-70B")
