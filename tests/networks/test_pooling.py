"""Adaptive pooling by averaging matrices: equal to torch's own, and right after export at other sizes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from geoseg_cli.networks.pooling import adaptive_average_pool, averaging_matrix

Run = Callable[[Tensor], Tensor]
OTHER_SIZES = ((1, 3, 33, 20), (3, 3, 36, 48), (1, 3, 7, 61))


class Pools(nn.Module):
    """Pools of a pyramid, resized back and added to the map."""

    def __init__(self, pool: Callable[[Tensor, int], Tensor], *sizes: int) -> None:
        super().__init__()
        self.pool = pool
        self.sizes = sizes

    def forward(self, x: Tensor) -> Tensor:
        pooled = [self.pool(x, size) for size in self.sizes]
        return sum((F.interpolate(one, size=x.shape[-2:], mode="bilinear") for one in pooled), start=x)


@settings(deadline=None, max_examples=60)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    size=st.integers(1, 8),
    seed=st.integers(0, 2**31),
)
def test_equals_torch_at_any_size(height: int, width: int, size: int, seed: int) -> None:
    x = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(seed))
    expected = F.adaptive_avg_pool2d(x, size)
    torch.testing.assert_close(adaptive_average_pool(x, size), expected, atol=1e-6, rtol=0)


def test_bins_of_five_samples_in_three_overlap_as_written_by_hand() -> None:
    expected = [[0.5, 0.5, 0, 0, 0], [0, 1 / 3, 1 / 3, 1 / 3, 0], [0, 0, 0, 0.5, 0.5]]
    np.testing.assert_allclose(averaging_matrix(5, 3, torch.zeros(())).numpy(), expected, rtol=1e-6)


def test_gradient_reaches_every_pixel_with_total_weight_one_per_bin() -> None:
    x = torch.zeros(1, 1, 9, 5, requires_grad=True)
    torch.autograd.backward(adaptive_average_pool(x, 3).sum())
    assert x.grad is not None
    assert float(x.grad.min()) > 0
    assert float(x.grad.sum()) == pytest.approx(9)


@pytest.mark.filterwarnings("ignore")
def test_exported_graph_is_right_at_sizes_never_traced(
    export_dynamic: Callable[[nn.Module, int], Run],
) -> None:
    network = Pools(adaptive_average_pool, 1, 2, 3, 6)
    run = export_dynamic(network, 3)
    for shape in OTHER_SIZES:
        x = torch.rand(shape)
        torch.testing.assert_close(run(x), network(x), atol=1e-5, rtol=0)


@pytest.mark.filterwarnings("ignore")
def test_stock_pooling_exports_without_error_and_fails_at_another_size(
    export_dynamic: Callable[[nn.Module, int], Run],
) -> None:
    network = Pools(F.adaptive_avg_pool2d, 3)
    run = export_dynamic(network, 3)
    assert run(torch.rand(2, 3, 64, 96)).shape == (2, 3, 64, 96)
    with pytest.raises(Exception, match="ONNXRuntimeError"):
        run(torch.rand(OTHER_SIZES[0]))
