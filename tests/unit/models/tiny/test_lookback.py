import math

import pytest
import torch

from models.tiny.lookback import lookback_loss, watch_memory_attention
from models.tiny.propagator import Window, build_tiny_propagator, track_window


@pytest.fixture(scope="module")
def model():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build_tiny_propagator()


def pair(rows: int = 2) -> Window:
    frames = torch.randn(1, 2, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    boxes = torch.tensor([[[10.0, 10, 50, 60]], [[70, 40, 110, 100]]])[:rows]
    return Window(frames, torch.zeros(rows, dtype=torch.long), boxes, (0,), clip_frames=10)


def test_what_is_watched_is_what_the_layers_compute(model):
    """The watched attention, applied to the values, gives every layer's own output."""
    layers = [layer.cross_attn_image for layer in model.memory_attention.layers]
    outputs, values = [], []
    hooks = [layer.register_forward_hook(lambda _, __, output: outputs.append(output)) for layer in layers]
    hooks += [layer.v_proj.register_forward_hook(lambda _, __, output: values.append(output)) for layer in layers]
    with torch.no_grad(), watch_memory_attention(model) as looks:
        track_window(model, pair())
    for hook in hooks:
        hook.remove()
    assert len(looks) == len(layers) == len(outputs) == 2
    for layer, look, value, output in zip(layers, looks, values, outputs, strict=True):
        # 64 cells of the prompted frame, and one object pointer in 4 parts of 32 channels.
        assert look.shape == (2, 64, 64 + 4)
        torch.testing.assert_close(look.sum(dim=2), torch.ones(2, 64))
        torch.testing.assert_close(layer.out_proj(look @ value), output, rtol=1e-4, atol=1e-5)


def test_nothing_is_watched_afterwards(model):
    with torch.no_grad():
        with watch_memory_attention(model) as looks:
            pass
        track_window(model, pair())
    assert looks == []


def test_gradients_reach_the_queries_and_keys(model):
    masks = torch.zeros(2, 128, 128, dtype=torch.bool)
    masks[0, 10:60, 10:50] = masks[1, 40:100, 70:110] = True
    with watch_memory_attention(model) as looks:
        track_window(model, pair())
    model.zero_grad()
    lookback_loss(looks, masks, masks.roll(20, dims=2)).backward()
    for layer in model.memory_attention.layers:
        assert layer.cross_attn_image.q_proj.weight.grad.any()
        assert layer.cross_attn_image.k_proj.weight.grad.any()


def quarter(*corners: int) -> torch.Tensor:
    """Masks of a 4 x 4 frame, one of whose 2 x 2 cells is covered."""
    masks = torch.zeros(len(corners), 4, 4, dtype=torch.bool)
    for row, corner in enumerate(corners):
        masks[row, 2 * (corner // 2) :, 2 * (corner % 2) :][:2, :2] = True
    return masks


def test_the_loss_is_a_cross_entropy_of_the_attention_on_the_thing():
    """One row, four cells and a pointer. The thing was in cell 0 and is in cell 3 now: the place in cell 3 pays 0.5 to
    cell 0, the others pay 0.2: -ln 0.5 - ln 0.8."""
    look = torch.full((1, 4, 5), 0.2)
    look[0, 3] = torch.tensor([0.5, 0.1, 0.1, 0.1, 0.2])
    found = lookback_loss([look], quarter(0), quarter(3))
    assert found == pytest.approx(-math.log(0.5) - math.log(0.8))
    better = look.clone()
    better[0, 3] = torch.tensor([0.9, 0.0, 0.0, 0.1, 0.0])
    both = lookback_loss([look, better], quarter(0), quarter(3))
    assert both == pytest.approx((found - math.log(0.9) - math.log(0.8)) / 2)


def test_where_the_thing_is_away_every_place_looks_elsewhere():
    look = torch.full((1, 4, 4), 0.25)
    found = lookback_loss([look], quarter(0), torch.zeros(1, 4, 4, dtype=torch.bool))
    assert found == pytest.approx(-math.log(0.75))


def test_places_at_the_edge_are_left_out():
    """A quarter of cell 3 is covered, which is neither on nor off the thing."""
    look = torch.full((1, 4, 4), 0.25)
    seen = torch.zeros(1, 4, 4, dtype=torch.bool)
    seen[0, 2, 2] = True
    look[0, 3] = torch.tensor([1.0, 0, 0, 0])
    assert lookback_loss([look], quarter(0), seen) == pytest.approx(-math.log(0.75))
