"""The first Swin Transformer: its blocks and its feature pyramid.

Paper: Liu et al., "Swin Transformer: Hierarchical Vision Transformer using Shifted Windows" (ICCV 2021,
arXiv 2103.14030). The windows are in `windows.py`. The Swin V2 block differs in norm position, attention score and
position bias; it lives in `chromaformer.py` and shares windows, merging and stages.

Axes: N batch, C channels, H rows, W columns, M windows per image, L tokens per window (window * window), A heads,
D channels per head. Feature maps inside Swin are channels-last, (N, H, W, C).

| backbone            | C  | depths     | heads         | window | parameters at 13 bands |
|---------------------|----|------------|---------------|--------|------------------------|
| Swin-T (V1)         | 96 | 2, 2, 6, 2 | 3, 6, 12, 24  | 7      | 27,533,178             |
| Swin for small CPUs | 32 | 2, 2, 2, 2 | 1, 2, 4, 8    | 8      | 2,288,766              |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from geoseg_cli.errors import ModelError
from geoseg_cli.networks.attention import DotProductAttention
from geoseg_cli.networks.windows import (
    WindowPlan,
    combine_bias,
    gather_windows,
    index_relative_positions,
    join_window_heads,
    plan_windows,
    scatter_windows,
    split_window_heads,
)


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
        self.attention = DotProductAttention(scale=(channels // heads) ** -0.5)
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
