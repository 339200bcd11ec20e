"""Windowed attention shared by the Swin family, and the blocks of the first Swin Transformer.

Papers: Liu et al., "Swin Transformer: Hierarchical Vision Transformer using Shifted Windows" (ICCV 2021,
arXiv 2103.14030) for the windows, the shift, the merging and the V1 block. The Swin V2 block differs in norm
position, attention score and position bias; it lives in `chromaformer.py` and uses the windows from here.

Axes: N batch, C channels, H rows, W columns, M windows per image, L tokens per window (window * window), A heads,
D channels per head. Feature maps inside Swin are channels-last, (N, H, W, C).

| backbone            | C  | depths     | heads         | window | parameters at 13 bands |
|---------------------|----|------------|---------------|--------|------------------------|
| Swin-T (V1)         | 96 | 2, 2, 6, 2 | 3, 6, 12, 24  | 7      | 27,533,178             |
| Swin for small CPUs | 32 | 2, 2, 2, 2 | 1, 2, 4, 8    | 8      | 2,288,766              |

Everything that depends on H and W is built inside the graph from shapes: no buffer belongs to one image size and no
branch looks at H or W, so one exported graph serves every size. Padding is masked: a pixel never attends to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geoseg_cli.errors import ModelError
from geoseg_cli.networks.attention import DotProductAttention

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


class BiasedAttention(DotProductAttention):
    """softmax(scale * query keyᵀ + bias) value; `set_explicit_attention` finds it like its parent."""

    def forward(self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None = None) -> Tensor:
        """Attend with scores that carry positions and masks.

        Args:
            query: (N, A, L, D).
            key: (N, A, L, D).
            value: (N, A, L, D).
            bias: added to the scores, broadcastable to (N, A, L, L), in the dtype of the query; None for nothing.

        Returns:
            (N, A, L, D).
        """
        if bias is None:
            return super().forward(query, key, value)
        # The exporter spells the kernel out anyway, but would keep views that hold for the kernel's layout only.
        if not (self.explicit or torch.compiler.is_exporting()):
            return F.scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=self.scale)
        scores = (query * self.scale) @ key.transpose(-2, -1) + bias  # (N, A, L, L)
        return scores.softmax(dim=-1) @ value


class DropPath(nn.Module):
    """Drop a whole residual branch per image while training (Huang et al. 2016, arXiv 1603.09382).

    Args:
        rate: chance of dropping, in [0, 1).
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` (N, ...) in evaluation; in training rows of it are zero, the others scaled up."""
        if self.rate == 0.0 or not self.training:
            return x
        keep = torch.rand((x.shape[0],) + (1,) * (x.ndim - 1), device=x.device) >= self.rate
        return x * keep.to(x.dtype) / (1.0 - self.rate)


class Mlp(nn.Sequential):
    """Two linear layers with GELU between; (..., C) to (..., C).

    Args:
        channels: C.
        ratio: hidden width as a multiple of C.
    """

    def __init__(self, channels: int, ratio: float) -> None:
        hidden = round(channels * ratio)
        super().__init__(nn.Linear(channels, hidden), nn.GELU(), nn.Linear(hidden, channels))


class PatchEmbedding(nn.Module):
    """Non-overlapping patches as tokens: strided convolution, then LayerNorm.

    Args:
        bands: input bands.
        channels: C of the tokens.
        patch_px: side of a patch in pixels.
    """

    def __init__(self, bands: int, channels: int, patch_px: int = 4) -> None:
        super().__init__()
        self.projection = nn.Conv2d(bands, channels, patch_px, stride=patch_px)
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Turn pixels (N, bands, H, W) into tokens (N, H / patch, W / patch, C)."""
        tokens: Tensor = self.norm(self.projection(x).permute(0, 2, 3, 1))
        return tokens


class PatchMerging(nn.Module):
    """Halve the map and double the channels: 2 x 2 neighbours side by side, LayerNorm(4C), linear 4C to 2C.

    Args:
        channels: C before merging.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * channels)
        self.reduction = nn.Linear(4 * channels, 2 * channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Merge (N, H, W, C) with even H and W into (N, H / 2, W / 2, 2C)."""
        batch, height, width, channels = x.shape
        x = x.reshape(batch, height // 2, 2, width // 2, 2, channels).permute(0, 1, 3, 2, 4, 5)
        x = x.flatten(3)  # (N, H / 2, W / 2, 4C)
        merged: Tensor = self.reduction(self.norm(x))
        return merged


class WindowAttention(nn.Module):
    """Multi-head self-attention inside windows with a learned table of relative positions (Swin V1).

    Args:
        channels: C.
        heads: A; must divide C.
        window: side of a window in tokens.
    """

    relative_index: Tensor

    def __init__(self, channels: int, heads: int, window: int) -> None:
        super().__init__()
        check_heads(channels, heads)
        self.heads = heads
        self.attention = BiasedAttention(scale=(channels // heads) ** -0.5)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.projection = nn.Linear(channels, channels)
        self.position_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        self.register_buffer("relative_index", index_relative_positions(window), persistent=False)
        nn.init.trunc_normal_(self.position_table, std=0.02)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Attend inside windows (N, M, L, C) under `mask` (M, L, L); returns (N, M, L, C)."""
        queries, keys, values = split_window_heads(self.qkv(x), self.heads)
        bias = self.position_table[self.relative_index].permute(2, 0, 1)  # (A, L, L)
        out = self.attention(queries, keys, values, combine_bias(bias, mask).to(queries.dtype))
        projected: Tensor = self.projection(join_window_heads(out, self.heads))
        return projected


def check_heads(channels: int, heads: int) -> None:
    """Raise ModelError unless the heads share the channels evenly."""
    if heads < 1 or channels % heads:
        raise ModelError(
            f"{channels} channels cannot be shared by {heads} attention heads",
            "choose a number of heads that divides the channels of its stage",
        )


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


@dataclass(frozen=True, slots=True)
class BlockOptions:
    """What the blocks of a stage share.

    Attributes:
        window: side of a window in tokens.
        mlp_ratio: hidden width of the MLP as a multiple of C.
        drop_path: chance of dropping a residual branch.
    """

    window: int = 7
    mlp_ratio: float = 4.0
    drop_path: float = 0.0


class SwinBlock(nn.Module):
    """Swin V1 block: x + W-MSA(LN(x)), then x + MLP(LN(x)) (Swin paper, equation 3).

    Args:
        channels: C.
        heads: A.
        options: window, MLP ratio, drop-path.
    """

    def __init__(self, channels: int, heads: int, options: BlockOptions) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attention = WindowAttention(channels, heads, options.window)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = Mlp(channels, options.mlp_ratio)
        self.drop_path = DropPath(options.drop_path)

    def forward(self, x: Tensor, plan: WindowPlan) -> Tensor:
        """Transform a map (N, H, W, C) under the given windows; same shape."""
        windows = self.attention(gather_windows(self.norm1(x), plan), plan.mask)
        x = x + self.drop_path(scatter_windows(windows, plan))
        mixed: Tensor = x + self.drop_path(self.mlp(self.norm2(x)))
        return mixed


class SwinStage(nn.Module):
    """Optional merging, then blocks with straight and shifted windows in turn.

    Args:
        merging: halves the map first; None in the first stage.
        blocks: modules called with (x, plan).
        window: side of a window in tokens; the shift is half of it.
    """

    def __init__(self, merging: nn.Module | None, blocks: Sequence[nn.Module], window: int) -> None:
        super().__init__()
        self.merging = nn.Identity() if merging is None else merging
        self.blocks = nn.ModuleList(blocks)
        self.window = window

    def forward(self, x: Tensor) -> Tensor:
        """Transform (N, H, W, C) into (N, H, W, C) or, with merging, (N, H / 2, W / 2, 2C)."""
        return self.transform(self.merging(x))

    def transform(self, x: Tensor) -> Tensor:
        """Run the blocks alone on an already merged map (N, H, W, C); same shape."""
        height, width = x.shape[1:3]
        straight = plan_windows(height, width, self.window, 0, x.device)
        shifted = plan_windows(height, width, self.window, self.window // 2, x.device)
        for number, block in enumerate(self.blocks):
            x = block(x, shifted if number % 2 else straight)
        return x


def spread_drop_path(highest: float, depths: Sequence[int]) -> list[list[float]]:
    """Let drop-path rise linearly from 0 to `highest` over all blocks; one list of rates per stage."""
    last = max(sum(depths) - 1, 1)
    rates = [highest * block / last for block in range(sum(depths))]
    starts = [sum(depths[:stage]) for stage in range(len(depths))]
    return [rates[start : start + depth] for start, depth in zip(starts, depths, strict=True)]


def initialise_linear(module: nn.Module) -> None:
    """Draw linear weights from a normal of deviation 0.02 cut at 2, biases 0 (Swin's own choice); for `apply`."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


@dataclass(frozen=True, slots=True)
class SwinConfig:
    """Size of a Swin V1 backbone.

    Attributes:
        embed: C of the first stage; doubles with every stage.
        depths: blocks per stage.
        heads: attention heads per stage.
        window: side of a window in tokens.
        mlp_ratio: hidden width of the MLPs as a multiple of C.
        drop_path: highest drop-path chance; rises linearly from 0.
    """

    embed: int = 96
    depths: tuple[int, ...] = (2, 2, 6, 2)
    heads: tuple[int, ...] = (3, 6, 12, 24)
    window: int = 7
    mlp_ratio: float = 4.0
    drop_path: float = 0.1


class SwinBackbone(nn.Module):
    """Swin V1 feature pyramid with patch norm and no final norm.

    Args:
        bands: input bands.
        config: sizes.
    """

    def __init__(self, bands: int, config: SwinConfig) -> None:
        super().__init__()
        self.patch_embedding = PatchEmbedding(bands, config.embed)
        rates = spread_drop_path(config.drop_path, config.depths)
        self.stages = nn.ModuleList(self._stage(config, stage, rates[stage]) for stage in range(len(config.depths)))
        self.apply(initialise_linear)

    @staticmethod
    def _stage(config: SwinConfig, stage: int, rates: Sequence[float]) -> SwinStage:
        channels = config.embed * 2**stage
        blocks = [
            SwinBlock(channels, config.heads[stage], BlockOptions(config.window, config.mlp_ratio, rate))
            for rate in rates
        ]
        merging = PatchMerging(channels // 2) if stage else None
        return SwinStage(merging, blocks, config.window)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Compute one map per stage.

        Args:
            x: (N, bands, H, W) float32, H and W multiples of 4 * 2^(stages - 1).

        Returns:
            Maps (N, embed * 2^i, H / (4 * 2^i), W / (4 * 2^i)), i = 0 for the first stage.
        """
        tokens = self.patch_embedding(x)
        maps = []
        for stage in self.stages:
            tokens = stage(tokens)
            maps.append(tokens.permute(0, 3, 1, 2))
        return maps
