"""Windows of the Swin family: where they lie on a map of any size, cutting, putting back, and attention inside them.

Paper: Liu et al., "Swin Transformer: Hierarchical Vision Transformer using Shifted Windows" (ICCV 2021,
arXiv 2103.14030), section 3.2.

Axes: N batch, C channels, H rows, W columns, Hp and Wp rows and columns of the padded map, M windows per image,
L tokens per window (window * window), A heads, D channels per head. Feature maps are channels-last, (N, H, W, C).

Everything that depends on H and W is built inside the graph from shapes: no buffer belongs to one image size and no
branch looks at H or W, so one exported graph serves every size. Padding is masked: a pixel never attends to it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "BLOCKED_SCORE",
    "WindowPlan",
    "combine_bias",
    "gather_windows",
    "index_relative_positions",
    "join_window_heads",
    "join_windows",
    "pad_to_multiple",
    "plan_windows",
    "scatter_windows",
    "split_window_heads",
    "split_windows",
]

# Added to scores that must not count. Finite, because -inf turns to NaN in half precision softmax kernels; large
# enough for cosine scores, which reach +-100 at the smallest temperature.
BLOCKED_SCORE = -1e4


@dataclass(frozen=True, slots=True)
class WindowPlan:
    """Where the windows of one feature map lie.

    Attributes:
        window: side of a window in tokens.
        height: rows of the map.
        width: columns of the map.
        rows: for each row of the padded, shifted map the row it shows, int64 (Hp,); None without shift.
        cols: the same for columns, int64 (Wp,).
        rows_back: for each row of the map its place in the shifted map, int64 (H,); None without shift.
        cols_back: the same for columns, int64 (W,).
        mask: float32 (M, L, L), 0 where a query (axis 1) may see a key (axis 2), `BLOCKED_SCORE` elsewhere.
    """

    window: int
    height: int
    width: int
    rows: Tensor | None
    cols: Tensor | None
    rows_back: Tensor | None
    cols_back: Tensor | None
    mask: Tensor


def plan_windows(height: int, width: int, window: int, shift: int, device: torch.device) -> WindowPlan:
    """Lay windows over a map of height x width tokens, shifted by `shift` tokens down and right.

    An axis that fits into one window is not shifted (Swin paper, section 3.2: nothing lies beyond that window).
    The map is padded at the bottom and the right to whole windows. Tokens see each other if they are neighbours in
    the map, so wrapped rows and columns are kept apart from the others, and padding from everything.

    Args:
        height: rows of the map, an integer or a symbolic one while exporting.
        width: columns of the map.
        window: side of a window in tokens.
        shift: 0 or the shift in tokens, less than `window`.
        device: where to build the index tensors.

    Returns:
        The plan with its mask of shape (M, L, L).
    """
    row_order, row_back, row_region = _plan_axis(height, window, shift, device)
    col_order, col_back, col_region = _plan_axis(width, window, shift, device)
    region = (4 * row_region[:, None] + col_region[None, :])[None, :, :, None]  # (1, Hp, Wp, 1)
    region = split_windows(region, window)[0, :, :, 0]  # (M, L)
    is_blocked = region[:, :, None] != region[:, None, :]  # (M, L, L)
    mask = is_blocked.to(torch.float32) * BLOCKED_SCORE
    if shift == 0:
        return WindowPlan(window, height, width, None, None, None, None, mask)
    return WindowPlan(window, height, width, row_order, col_order, row_back, col_back, mask)


def _plan_axis(length: int, window: int, shift: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Plan one axis: source index (P,), way back (length,) and region id (P,), P being the padded length."""
    padded = (length + window - 1) // window * window
    position = torch.arange(padded, device=device)  # (P,)
    # Sizes take part as tensors: the exporter accepts symbolic numbers neither as factors nor as divisors.
    last, last_inside = position[-1], position[length - 1]
    step = shift * (last >= window).to(position.dtype)  # 0 when the axis is a single window
    source = position + step
    source = torch.where(source > last, source - last - 1, source)
    back = position[:length] - step
    back = torch.where(back < 0, back + last + 1, back)
    region = (source < step).to(torch.int64) + 2 * (source > last_inside).to(torch.int64)
    return torch.minimum(source, last_inside), back, region


def split_windows(x: Tensor, window: int) -> Tensor:
    """Cut (N, Hp, Wp, C) with whole windows into (N, M, L, C), windows and tokens both row by row."""
    batch, height, width, channels = x.shape
    down, across = height // window, width // window
    x = x.reshape(batch, down, window, across, window, channels)
    x = x.permute(0, 1, 3, 2, 4, 5)  # (N, down, across, window, window, C)
    return x.reshape(batch, down * across, window * window, channels)  # (N, M, L, C)


def join_windows(x: Tensor, window: int, down: int, across: int) -> Tensor:
    """Put (N, M, L, C) back together to (N, down * window, across * window, C); undoes `split_windows`."""
    batch, channels = x.shape[0], x.shape[-1]
    x = x.reshape(batch, down, across, window, window, channels)
    x = x.permute(0, 1, 3, 2, 4, 5)  # (N, down, window, across, window, C)
    return x.reshape(batch, down * window, across * window, channels)


def gather_windows(x: Tensor, plan: WindowPlan) -> Tensor:
    """Pad, shift and cut a map (N, H, W, C) into windows (N, M, L, C) as planned."""
    if plan.rows is not None and plan.cols is not None:
        # Short index vectors instead of torch.roll: the shift is a tensor, and padding comes with the same copy.
        return split_windows(x.index_select(1, plan.rows).index_select(2, plan.cols), plan.window)
    pad_rows = _round_up(plan.height, plan.window) - plan.height
    pad_cols = _round_up(plan.width, plan.window) - plan.width
    return split_windows(F.pad(x, (0, 0, 0, pad_cols, 0, pad_rows)), plan.window)


def scatter_windows(windows: Tensor, plan: WindowPlan) -> Tensor:
    """Put windows (N, M, L, C) back to the map (N, H, W, C); undoes `gather_windows`."""
    down = (plan.height + plan.window - 1) // plan.window
    across = (plan.width + plan.window - 1) // plan.window
    x = join_windows(windows, plan.window, down, across)  # (N, Hp, Wp, C)
    if plan.rows_back is not None and plan.cols_back is not None:
        return x.index_select(1, plan.rows_back).index_select(2, plan.cols_back)
    return x[:, : plan.height, : plan.width]


def _round_up(length: int, multiple: int) -> int:
    return (length + multiple - 1) // multiple * multiple


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Extend a map (N, C, H, W) at the bottom and the right to multiples, repeating the last row and column.

    Repeating keeps the statistics of the image, works from one pixel on and has one form for every size.
    """
    height, width = x.shape[-2:]
    rows = torch.arange(_round_up(height, multiple), device=x.device).clamp(max=height - 1)
    cols = torch.arange(_round_up(width, multiple), device=x.device).clamp(max=width - 1)
    return x.index_select(2, rows).index_select(3, cols)


def index_relative_positions(window: int) -> Tensor:
    """Number the offsets between the tokens of a window: int64 (L, L), values 0 .. (2 * window - 1)² - 1."""
    token = torch.arange(window * window)
    row, col = token // window, token % window
    row_offset = row[:, None] - row[None, :] + window - 1
    col_offset = col[:, None] - col[None, :] + window - 1
    return row_offset * (2 * window - 1) + col_offset


def split_window_heads(qkv: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Part (N, M, L, 3C) into queries, keys and values of shape (N, M * A, L, D) each.

    Windows and heads share one axis, so the bias of one image broadcasts over the batch without a copy.
    """
    batch, windows, tokens, triple = qkv.shape
    depth = triple // (3 * heads)
    qkv = qkv.reshape(batch, windows, tokens, 3, heads, depth).permute(3, 0, 1, 4, 2, 5)  # (3, N, M, A, L, D)
    qkv = qkv.reshape(3, batch, windows * heads, tokens, depth)
    return qkv[0], qkv[1], qkv[2]


def join_window_heads(x: Tensor, heads: int) -> Tensor:
    """Turn (N, M * A, L, D) back into (N, M, L, C)."""
    batch, rows, tokens, depth = x.shape
    x = x.reshape(batch, rows // heads, heads, tokens, depth).permute(0, 1, 3, 2, 4)  # (N, M, L, A, D)
    return x.reshape(batch, rows // heads, tokens, heads * depth)


def combine_bias(bias: Tensor, mask: Tensor) -> Tensor:
    """Add a bias per head (A, L, L) and a mask per window (M, L, L) to scores of shape (1, M * A, L, L)."""
    return (bias[None, :] + mask[:, None]).flatten(0, 1)[None]
