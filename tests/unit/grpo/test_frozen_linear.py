"""Rearranged weights, against the linear layer as it stands."""

import pytest
import torch

from grpo.frozen_linear import frozen_linear


@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, 8, 70])
def test_the_same_product(has_bias, dtype, rows):
    """In the type that is rearranged, and in those that are left as they are."""
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(n, 24, generator=generator).to(dtype) for n in (rows, 37))
    bias = torch.randn(37, generator=generator).to(dtype) if has_bias else None
    found = frozen_linear(weight, bias)(x)
    assert found.dtype == dtype
    torch.testing.assert_close(found, torch.nn.functional.linear(x, weight, bias), atol=1e-5, rtol=1e-5)
