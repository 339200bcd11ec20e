"""Windows on maps of any size: where they lie, who sees whom, and that nothing gets lost."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geoseg_cli.networks.windows import (
    gather_windows,
    index_relative_positions,
    pad_to_multiple,
    plan_windows,
    scatter_windows,
)

CPU = torch.device("cpu")
sides = st.integers(1, 11)


@settings(max_examples=50, deadline=None)
@given(height=sides, width=sides, window=st.integers(1, 5), data=st.data())
def test_scattering_undoes_gathering(height: int, width: int, window: int, data: st.DataObject) -> None:
    shift = data.draw(st.integers(0, window - 1))
    x = torch.arange(2 * height * width * 3, dtype=torch.float32).reshape(2, height, width, 3)
    plan = plan_windows(height, width, window, shift, CPU)
    assert torch.equal(scatter_windows(gather_windows(x, plan), plan), x)


def test_attention_across_a_shift_border_is_nothing() -> None:
    plan = plan_windows(8, 8, 4, 2, CPU)
    weights = (torch.randn(4, 16, 16) * 30 + plan.mask).softmax(-1)
    assert (plan.mask != 0).sum() == 2 * 16 * 8 + 16 * 12  # two halved windows and one quartered
    assert weights[plan.mask != 0].max() < 1e-30


@settings(max_examples=25, deadline=None)
@given(height=st.integers(1, 9), width=st.integers(1, 9), multiple=st.integers(1, 8))
def test_padding_repeats_the_last_row_and_column(height: int, width: int, multiple: int) -> None:
    x = np.random.default_rng(0).normal(size=(1, 2, height, width)).astype(np.float32)
    below, right = -height % multiple, -width % multiple
    expected = np.pad(x, ((0, 0), (0, 0), (0, below), (0, right)), mode="edge")
    np.testing.assert_array_equal(pad_to_multiple(torch.from_numpy(x), multiple).numpy(), expected)


def test_relative_positions_number_offsets() -> None:
    index = index_relative_positions(3)
    assert index.shape == (9, 9)
    assert set(index.flatten().tolist()) == set(range(25))
    assert torch.equal(index.diagonal(), torch.full((9,), 12))  # offset (0, 0) is the middle of 5 x 5
    assert index[0, 1] == 11  # one column to the left
    assert index[0, 3] == 7  # one row up
