"""The first Swin's blocks, checked against attention over all pixels at once, and its feature pyramid."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from geoseg_cli.errors import ModelError
from geoseg_cli.networks.attention import set_explicit_attention
from geoseg_cli.networks.swin import (
    BlockOptions,
    DropPath,
    PatchMerging,
    SwinBackbone,
    SwinBlock,
    SwinConfig,
    SwinStage,
    WindowAttention,
    spread_drop_path,
)
from geoseg_cli.networks.windows import gather_windows, plan_windows, scatter_windows

CPU = torch.device("cpu")
sides = st.integers(1, 11)


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def window_of(position: int, length: int, window: int, shift: int) -> int:
    """Say which window of one axis a position falls into, from the definition of shifted windows."""
    return (position - shift) // window if length > window else 0


def attend_over_all_pixels(attention: WindowAttention, x: Tensor, window: int, shift: int) -> Tensor:
    """Compute windowed attention of one image (H, W, C) pixel against pixel, without cutting windows."""
    height, width, channels = x.shape
    heads = attention.heads
    places = [(row, col) for row in range(height) for col in range(width)]
    queries, keys, values = attention.qkv(x.reshape(-1, channels)).reshape(-1, 3, heads, channels // heads).unbind(1)
    scores = torch.einsum("qad,kad->aqk", queries, keys) / (channels // heads) ** 0.5
    for q, (row, col) in enumerate(places):
        for k, (key_row, key_col) in enumerate(places):
            together = window_of(row, height, window, shift) == window_of(key_row, height, window, shift)
            together &= window_of(col, width, window, shift) == window_of(key_col, width, window, shift)
            if together:
                offset = (row - key_row + window - 1) * (2 * window - 1) + (col - key_col + window - 1)
                scores[:, q, k] += attention.position_table[offset]
            else:
                scores[:, q, k] = -torch.inf
    found = torch.einsum("aqk,kad->qad", scores.softmax(-1), values).reshape(-1, channels)
    projected: Tensor = attention.projection(found)
    return projected.reshape(height, width, channels)


@settings(max_examples=25, deadline=None)
@given(height=sides, width=sides, window=st.integers(2, 5), is_shifted=st.booleans(), explicit=st.booleans())
def test_windowed_attention_equals_attention_among_pixels_of_one_window(
    height: int, width: int, window: int, is_shifted: bool, explicit: bool
) -> None:
    torch.manual_seed(height * 100 + width)
    attention = WindowAttention(6, 2, window)
    torch.nn.init.normal_(attention.position_table)
    set_explicit_attention(attention, explicit)
    x = torch.randn(2, height, width, 6)
    shift = window // 2 if is_shifted else 0
    plan = plan_windows(height, width, window, shift, CPU)
    with torch.no_grad():
        actual = scatter_windows(attention(gather_windows(x, plan), plan.mask), plan)
        expected = torch.stack([attend_over_all_pixels(attention, image, window, shift) for image in x])
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


def test_a_map_no_larger_than_the_window_is_attended_globally_even_when_shifted() -> None:
    torch.manual_seed(0)
    attention = WindowAttention(8, 2, 7)
    x = torch.randn(1, 7, 7, 8)
    straight, shifted = (plan_windows(7, 7, 7, shift, CPU) for shift in (0, 3))
    with torch.no_grad():
        one = scatter_windows(attention(gather_windows(x, straight), straight.mask), straight)
        other = scatter_windows(attention(gather_windows(x, shifted), shifted.mask), shifted)
    assert straight.mask.shape == (1, 49, 49)
    assert not shifted.mask.any()
    torch.testing.assert_close(one, other)


def test_no_pixel_sees_padding() -> None:
    torch.manual_seed(0)
    block = SwinBlock(8, 2, BlockOptions(window=4)).eval()
    x = torch.randn(1, 5, 6, 8)
    plan = plan_windows(5, 6, 4, 0, CPU)
    with torch.no_grad():
        expected = block.attention(gather_windows(x, plan), plan.mask)
        windows = gather_windows(x, plan).clone()
        windows[:, 2:, 4:] = 1e3  # rows 5, 6 and 7 of the padded map
        actual = block.attention(windows, plan.mask)
    torch.testing.assert_close(scatter_windows(actual, plan), scatter_windows(expected, plan))


def test_merging_looks_at_two_by_two_neighbours_only() -> None:
    merging = PatchMerging(3)
    x = torch.randn(1, 4, 6, 3, requires_grad=True)
    out = merging(x)
    assert out.shape == (1, 2, 3, 6)
    out[0, 1, 2].sum().backward()
    assert x.grad is not None
    touched = x.grad.abs().sum(-1)[0] > 0
    assert touched[2:, 4:].all()
    assert touched.sum() == 4


def test_drop_path_drops_whole_images_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    drop = DropPath(0.25)
    x = torch.ones(4000, 2, 3)
    out = drop(x)
    values = out.flatten(1)
    assert torch.equal(values.min(1).values, values.max(1).values)
    np.testing.assert_allclose(np.unique(values.numpy()), [0.0, 1 / 0.75], rtol=1e-6)
    assert out.mean().item() == pytest.approx(1.0, abs=0.05)
    assert torch.equal(drop.eval()(x), x)


def test_drop_path_rates_rise_over_all_blocks() -> None:
    rates = spread_drop_path(0.2, (2, 2, 6, 2))
    assert [len(stage) for stage in rates] == [2, 2, 6, 2]
    np.testing.assert_allclose(np.concatenate(rates), np.arange(12) / 11 * 0.2)


def test_swin_tiny_has_the_published_parameter_count() -> None:
    with torch.device("meta"):
        backbone = SwinBackbone(3, SwinConfig())
    # 28,288,354 of Swin-T with its classifier, less the 1000-way head and the last norm.
    assert count(backbone) == 28_288_354 - (768 * 1000 + 1000) - 2 * 768


def test_backbone_maps_halve_and_double() -> None:
    backbone = SwinBackbone(5, SwinConfig(embed=8, depths=(1, 1, 2, 1), heads=(1, 2, 2, 4), window=3)).eval()
    shapes = [tuple(features.shape) for features in backbone(torch.randn(2, 5, 64, 96))]
    assert shapes == [(2, 8, 16, 24), (2, 16, 8, 12), (2, 32, 4, 6), (2, 64, 2, 3)]


def test_heads_that_do_not_divide_the_channels_are_refused() -> None:
    with pytest.raises(ModelError, match="10 channels cannot be shared by 3") as caught:
        WindowAttention(10, 3, 7)
    assert "divides" in caught.value.hint


def test_one_exported_stage_serves_other_sizes(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    options = BlockOptions(window=4)
    stage = SwinStage(None, [SwinBlock(8, 2, options), SwinBlock(8, 2, options)], options.window).eval()
    axes = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC}
    path = tmp_path / "stage.onnx"
    torch.onnx.export(
        stage, (torch.randn(2, 9, 10, 8),), path, dynamo=True, dynamic_shapes=(axes,), external_data=False
    )
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for shape in ((1, 3, 4, 8), (3, 8, 13, 8), (1, 12, 2, 8)):
        x = torch.randn(shape)
        (actual,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        with torch.no_grad():
            np.testing.assert_allclose(actual, stage(x).numpy(), atol=1e-5)
