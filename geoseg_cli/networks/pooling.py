"""Adaptive average pooling that survives export with dynamic height and width.

``torch.nn.functional.adaptive_avg_pool2d`` is exported with the bin borders of the traced size: the graph
loads without complaint and then fails at every other size. Here pooling is two matrix products, and the
averaging matrices are built inside the graph from the sizes of the input, so one graph fits every size.

Legend: N batch, C channels, H rows, W columns, B bins along one axis.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["adaptive_average_pool", "averaging_matrix"]


def averaging_matrix(length: int, bins: int, like: Tensor) -> Tensor:
    """Build the matrix that averages ``length`` samples into ``bins`` adaptive bins.

    Bin ``i`` covers samples ``floor(i * length / bins)`` up to, but not including,
    ``ceil((i + 1) * length / bins)``, the rule of ``torch.nn.AdaptiveAvgPool2d``;
    neighbours may share samples.

    Args:
        length: Number of samples, at least 1; may be symbolic during export.
        bins: Number of bins, at least 1; a constant of the network.
        like: Any tensor with the wanted floating dtype and device.

    Returns:
        Matrix of shape (bins, length), the dtype and device of ``like``; every row sums to 1.
    """
    sample = torch.arange(length, device=like.device)  # (length,)
    bin_index = torch.arange(bins, device=like.device).unsqueeze(1)  # (B, 1)
    first = torch.div(bin_index * length, bins, rounding_mode="floor")
    # ceil(a / b) as floor((a + b - 1) / b): integers stay exact at any size
    end = torch.div((bin_index + 1) * length + bins - 1, bins, rounding_mode="floor")
    inside = (sample >= first) & (sample < end)  # (B, length)
    return inside.to(like.dtype) / (end - first).to(like.dtype)


def adaptive_average_pool(x: Tensor, size: int) -> Tensor:
    """Average a map into ``size`` x ``size`` bins, like ``adaptive_avg_pool2d`` but exportable.

    Args:
        x: Map of shape (N, C, H, W), floating, H and W at least 1.
        size: Bins along each axis, at least 1.

    Returns:
        Map of shape (N, C, size, size), dtype of ``x``.
    """
    rows = averaging_matrix(x.shape[-2], size, x)  # (B, H)
    columns = averaging_matrix(x.shape[-1], size, x)  # (B, W)
    return rows @ (x @ columns.transpose(0, 1))  # (N, C, H, B) -> (N, C, B, B)
