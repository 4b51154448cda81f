"""Questions about an image stay together, and an image goes through the tower once."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers.modeling_outputs import BaseModelOutputWithPooling

from models.image_answers import rows_in_passes, shared_tower


@given(st.lists(st.integers(0, 7), max_size=8), st.integers(1, 9))
def test_every_question_is_in_one_pass_and_images_are_divided_only_when_they_must(counts, most):
    passes = rows_in_passes(counts, most)
    assert [row for one in passes for row in one] == [(i, n) for i, count in enumerate(counts) for n in range(count)]
    assert all(1 <= len(one) <= most for one in passes)
    for image, count in enumerate(counts):
        visited = sum(any(row[0] == image for row in one) for one in passes)
        assert visited <= -(-count // most)


class Tower(torch.nn.Module):
    """Doubles patches and merges them four to one; remembers the sizes that it is given."""

    def __init__(self, *, has_names: bool) -> None:
        super().__init__()
        self.has_names, self.seen = has_names, []

    def forward(self, patches: torch.Tensor, grid_thw: torch.Tensor) -> object:
        self.seen.append((len(patches), len(grid_thw)))
        merged = (2 * patches).unflatten(0, (-1, 4)).sum(dim=1)
        return BaseModelOutputWithPooling(2 * patches, merged) if self.has_names else merged


@pytest.mark.parametrize("has_names", [True, False])
def test_rows_get_what_their_own_image_gives(has_names):
    tower = Tower(has_names=has_names)
    images = torch.randn(3, 8, 5, generator=torch.Generator().manual_seed(0))
    rows = torch.tensor([4, 7, 4, 4, 9])
    shown = images[torch.tensor([0, 1, 0, 0, 2])].flatten(0, 1)
    grid = torch.tensor([[1, 2, 4]]).expand(5, -1)
    expected = tower(shown, grid_thw=grid)
    with shared_tower(tower, rows):
        found = tower(shown, grid_thw=grid)
    if has_names:
        assert torch.equal(found.last_hidden_state, expected.last_hidden_state)
        found, expected = found.pooler_output, expected.pooler_output
    assert torch.equal(found, expected)
    assert tower.seen == [(40, 5), (24, 3)]
    tower(shown, grid_thw=grid)
    assert tower.seen[-1] == (40, 5), "nothing is left of it"
