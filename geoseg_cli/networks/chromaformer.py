"""ChromaFormer: land cover from a Swin V2 pyramid that first lets the bands of a pixel patch look at each other.

Paper: "ChromaFormer" (arXiv 2503.08534). The spectral dependency module (SDM) follows the paper, `sdm="bands"`:
attention among bands inside each patch. The released code attends among positions instead, `sdm="tokens"`; there its
result is scrambled by a missing transpose, which is repaired here.
Backbone: Liu et al., "Swin Transformer V2" (CVPR 2022, arXiv 2111.09883), in the form of the released code: the
temperature divides the cosine and positions are not scaled to the window.

Axes: N batch, C input bands, K classes, H rows, W columns, E channels of the first stage, M windows, L tokens per
window, A heads, D channels per head, h and w rows and columns of patches, P pixels per patch.

    image (N,C,H,W) -> patches 1/4 (+ SDM) -> stages 1/4, 1/8, 1/16, 1/32 -> segment (N,K,H,W) or classify (N,K)

| variant | E   | depths      | heads          | backbone, 11 bands | + SDM, 15-way head | backbone GMAC, 224 x 224 |
|---------|-----|-------------|----------------|--------------------|--------------------|--------------------------|
| t       | 96  | 2, 2, 6, 2  | 3, 6, 12, 24   | 27,551,604         | 27,567,747         | 4.535                    |
| s       | 96  | 2, 2, 18, 2 | 3, 6, 12, 24   | 48,891,540         | 48,907,683         | 8.793                    |
| b       | 128 | 2, 2, 18, 2 | 4, 8, 16, 32   | 86,809,456         | 86,830,975         | 15.500                   |
| l       | 192 | 2, 2, 18, 2 | 6, 12, 24, 48  | 195,085,608        | 195,117,879        | 34.578                   |
| h       | 352 | 2, 2, 18, 2 | 11, 22, 44, 88 | 655,011,188        | 655,070,339        | 115.317                  |

`mini` is not of the paper: E 32, depths 2, 2, 2, 2, for land cover on a processor.

Multiply-adds are those of matrix products and convolutions at window 7. The position bias is computed once per offset,
not once per pair of tokens as in the released code; that alone is why t needs 4.535 here and 4.628 there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geoseg_cli.errors import ModelError
from geoseg_cli.networks.attention import DotProductAttention
from geoseg_cli.networks.heads import AllMLPHead, raise_to
from geoseg_cli.networks.inputs import check_image
from geoseg_cli.networks.swin import (
    BlockOptions,
    DropPath,
    Mlp,
    PatchEmbedding,
    PatchMerging,
    SwinStage,
    check_heads,
    initialise_linear,
    spread_drop_path,
)
from geoseg_cli.networks.windows import (
    WindowPlan,
    combine_bias,
    gather_windows,
    index_relative_positions,
    join_window_heads,
    pad_to_multiple,
    scatter_windows,
    split_window_heads,
)

__all__ = ["VARIANTS", "BandAttention", "ChromaFormer", "ChromaFormerConfig", "SwinV2Backbone"]

SpectralModule = Literal["bands", "tokens", "none"]
Head = Literal["segment", "classify"]

LOWEST_TEMPERATURE = 0.01
POSITION_WIDTH = 256
NORM_FLOOR = 1e-6


@dataclass(frozen=True, slots=True)
class ChromaFormerConfig:
    """The choices that make one ChromaFormer; the defaults are variant t.

    Attributes:
        embed: channels E of the first stage.
        depths: blocks per stage.
        heads: attention heads per stage.
        window: side of an attention window in tokens.
        patch_px: side of a patch in pixels; 2 suits chips below 32 px, which 4 would pad.
        drop_path: highest chance of dropping a branch while training.
        sdm: "bands" as in the paper, "tokens" as in the released code, or "none" for plain Swin V2.
        sdm_stage: stage, from 1, before whose blocks the spectral module acts.
        use_band_embedding: tell the bands apart in "bands"; without it their order does not matter.
        head: "segment" for one label per pixel, "classify" for one per image.
        head_width: channels of the segment head.
    """

    embed: int = 96
    depths: tuple[int, int, int, int] = (2, 2, 6, 2)
    heads: tuple[int, int, int, int] = (3, 6, 12, 24)
    window: int = 7
    patch_px: int = 4
    drop_path: float = 0.2
    sdm: SpectralModule = "bands"
    sdm_stage: int = 1
    use_band_embedding: bool = False
    head: Head = "segment"
    head_width: int = 128

    def __post_init__(self) -> None:
        """Refuse values that no network can be built from.

        Raises:
            ModelError: a choice is unknown, a number is out of range, or heads do not divide their channels.
        """
        if self.sdm not in ("bands", "tokens", "none"):
            raise ModelError(f"ChromaFormer: sdm is {self.sdm!r}", 'use "bands", "tokens" or "none"')
        if self.head not in ("segment", "classify"):
            raise ModelError(f"ChromaFormer: head is {self.head!r}", 'use "segment" or "classify"')
        if not 1 <= self.sdm_stage <= len(self.depths):
            raise ModelError(f"ChromaFormer: sdm_stage is {self.sdm_stage}", f"use 1 to {len(self.depths)}")
        if self.window < 2 or self.patch_px < 1:
            raise ModelError(
                f"ChromaFormer: window is {self.window}, patch_px is {self.patch_px}",
                "use a window of at least 2 and patches of at least 1 pixel",
            )
        for stage, heads in enumerate(self.heads):
            check_heads(self.embed * 2**stage, heads)


_DEEP = (2, 2, 18, 2)
VARIANTS: dict[str, ChromaFormerConfig] = {
    # Window 8 divides the maps of 256 px tiles, so no token is padding; bands that may be absent must be told apart.
    "mini": ChromaFormerConfig(
        embed=32,
        depths=(2, 2, 2, 2),
        heads=(1, 2, 4, 8),
        window=8,
        drop_path=0.05,
        use_band_embedding=True,
        head_width=64,
    ),
    "t": ChromaFormerConfig(),
    "s": ChromaFormerConfig(depths=_DEEP),
    "b": ChromaFormerConfig(embed=128, depths=_DEEP, heads=(4, 8, 16, 32)),
    "l": ChromaFormerConfig(embed=192, depths=_DEEP, heads=(6, 12, 24, 48), head_width=256),
    "h": ChromaFormerConfig(embed=352, depths=_DEEP, heads=(11, 22, 44, 88), head_width=256),
}


class CosineAttention(nn.Module):
    """Multi-head self-attention inside windows with cosine scores and a computed position bias (Swin V2).

    Args:
        channels: channels of the tokens.
        heads: A; must divide `channels`.
        window: side of a window in tokens.
    """

    relative_index: Tensor
    offsets: Tensor

    def __init__(self, channels: int, heads: int, window: int) -> None:
        super().__init__()
        check_heads(channels, heads)
        self.heads = heads
        self.qkv = nn.Linear(channels, 3 * channels)
        self.projection = nn.Linear(channels, channels)
        self.temperature = nn.Parameter(torch.ones(heads))
        self.position = nn.Sequential(nn.Linear(2, POSITION_WIDTH), nn.ReLU(), nn.Linear(POSITION_WIDTH, heads))
        self.attention = DotProductAttention(scale=1.0)
        self.register_buffer("relative_index", index_relative_positions(window), persistent=False)
        self.register_buffer("offsets", list_log_offsets(window), persistent=False)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Attend inside windows (N, M, L, channels) under `mask` (M, L, L); same shape."""
        queries, keys, values = split_window_heads(self.qkv(x), self.heads)  # (N, M * A, L, D) each
        sharpness = 1.0 / self.temperature.clamp(min=LOWEST_TEMPERATURE)
        sharpness = sharpness.expand(mask.shape[0], self.heads).reshape(-1, 1, 1)  # (M * A, 1, 1)
        queries = F.normalize(queries, dim=-1, eps=NORM_FLOOR) * sharpness
        keys = F.normalize(keys, dim=-1, eps=NORM_FLOOR)
        bias = combine_bias(self.position_bias(), mask)  # (1, M * A, L, L)
        out = self.attention(queries.to(values.dtype), keys.to(values.dtype), values, bias.to(values.dtype))
        projected: Tensor = self.projection(join_window_heads(out, self.heads))
        return projected

    def position_bias(self) -> Tensor:
        """Compute the bias (A, L, L) of every query (axis 1) and key (axis 2) of a window."""
        table: Tensor = self.position(self.offsets)  # ((2 * window - 1)², A)
        return table[self.relative_index].permute(2, 0, 1)


def list_log_offsets(window: int) -> Tensor:
    """List sign(o) * ln(1 + |o|) of the (row, column) offsets in a window: float32 ((2 * window - 1)², 2)."""
    steps = torch.arange(1 - window, window, dtype=torch.float32)
    steps = steps.sign() * steps.abs().log1p()
    return torch.cartesian_prod(steps, steps)


class SwinV2Block(nn.Module):
    """Swin V2 block: x + LN(W-MSA(x)), then x + LN(MLP(x)); the norm closes the branch (paper, section 3.2).

    Args:
        channels: channels of the tokens.
        heads: A.
        options: window, MLP ratio, drop-path.
    """

    def __init__(self, channels: int, heads: int, options: BlockOptions) -> None:
        super().__init__()
        self.attention = CosineAttention(channels, heads, options.window)
        self.norm1 = nn.LayerNorm(channels)
        self.mlp = Mlp(channels, options.mlp_ratio)
        self.norm2 = nn.LayerNorm(channels)
        self.drop_path = DropPath(options.drop_path)

    def forward(self, x: Tensor, plan: WindowPlan) -> Tensor:
        """Transform a map (N, H, W, channels) under the given windows; same shape."""
        windows = self.attention(gather_windows(x, plan), plan.mask)
        x = x + self.drop_path(self.norm1(scatter_windows(windows, plan)))
        mixed: Tensor = x + self.drop_path(self.norm2(self.mlp(x)))
        return mixed


class BandAttention(nn.Module):
    """SDM of the paper: inside each patch the bands attend to each other; the mean over bands joins the tokens.

    Queries, keys and values are linear in the P pixels of a band's patch and P is small, so the products of weights
    come first: the scores X (Wqᵀ Wk) Xᵀ are those of queries X (Wqᵀ Wk) and the pixels X themselves as keys, and one
    projection of the mixed pixels replaces those of all bands. The results are those of the plain form.

    Args:
        bands: C.
        channels: channels of the tokens.
        patch_px: side of a patch in pixels; P = patch_px².
        use_embedding: add a learned vector per band to queries and keys.
    """

    def __init__(self, bands: int, channels: int, patch_px: int, use_embedding: bool) -> None:
        super().__init__()
        self.patch_px = patch_px
        self.query = nn.Linear(patch_px**2, channels, bias=False)
        self.key = nn.Linear(patch_px**2, channels, bias=False)
        self.value = nn.Linear(patch_px**2, channels, bias=False)
        self.attention = DotProductAttention(channels**-0.5)
        self.embedding = nn.Parameter(torch.zeros(bands, channels)) if use_embedding else None
        if self.embedding is not None:
            nn.init.trunc_normal_(self.embedding, std=0.02)

    def forward(self, tokens: Tensor, image: Tensor) -> Tensor:
        """Add to tokens (N, h, w, channels) what the bands of `image` (N, C, H, W) say; same shape."""
        patches = self._patches(image)
        queries, keys = self._queries_and_keys(patches)
        # Columns of patches stand for heads: CUDA kernels take at most 65,535 of either axis.
        mixed = self.attention(*(x.flatten(0, 1) for x in (queries, keys, patches)))  # (N * h, w, C, P)
        joined: Tensor = tokens + self.value(mixed.mean(-2).reshape(*tokens.shape[:3], self.patch_px**2))
        return joined

    def weights(self, image: Tensor) -> Tensor:
        """Compute the attention of `image` (N, C, H, W): (N, h * w, C, C), rows sum to 1 over the last axis."""
        queries, keys = self._queries_and_keys(self._patches(image))
        scores = queries @ keys.transpose(-2, -1) * self.attention.scale  # (N, h, w, C, C)
        return scores.softmax(-1).flatten(1, 2)

    def _patches(self, image: Tensor) -> Tensor:
        """Gather the pixels of each band in each patch: (N, h, w, C, P)."""
        batch, bands, height, width = image.shape
        side = self.patch_px
        x = image.reshape(batch, bands, height // side, side, width // side, side)
        x = x.permute(0, 2, 4, 1, 3, 5)  # (N, h, w, C, side, side)
        return x.flatten(4)

    def _queries_and_keys(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Compute tensors (N, h, w, C, Q) each, whose products are Q Kᵀ of patches (N, h, w, C, P)."""
        query, key, names = self.query.weight, self.key.weight, self.embedding  # (channels, P), (bands, channels)
        queries = patches @ (query.T @ key)
        if names is None:
            return queries, patches
        # (x Wqᵀ + e) (Wk xᵀ + eᵀ) of two bands, what meets the key's pixels first, what meets its name after it.
        by_pixels = queries + names @ key
        by_names = patches @ (query.T @ names.T) + names @ names.T
        is_band = torch.eye(names.shape[0], dtype=patches.dtype, device=patches.device)
        keys = torch.cat([patches, is_band.expand(*patches.shape[:3], -1, -1)], dim=-1)
        return torch.cat([by_pixels, by_names], dim=-1), keys


class TokenAttention(nn.Module):
    """SDM of the released code: one head over all positions, its result in place of the tokens.

    Scores are divided by the root of the number of positions, as in the code. Memory grows with (h * w)².

    Args:
        channels: channels of the tokens.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query = nn.Linear(channels, channels, bias=False)
        self.key = nn.Linear(channels, channels, bias=False)
        self.value = nn.Linear(channels, channels, bias=False)
        self.attention = DotProductAttention(scale=1.0)

    def forward(self, tokens: Tensor, image: Tensor) -> Tensor:
        """Replace tokens (N, h, w, channels) by mixtures of all; `image` is not needed."""
        x = tokens.flatten(1, 2)[:, None]  # (N, 1, h * w, channels)
        # Counted inside the graph, because the number of positions may be symbolic during export.
        positions = torch.ones_like(x[0, 0, :, 0], dtype=torch.float32).sum()
        out: Tensor = self.attention(self.query(x) * positions.rsqrt(), self.key(x), self.value(x))
        return out.reshape(tokens.shape)


class SwinV2Backbone(nn.Module):
    """Swin V2 feature pyramid with an optional spectral module and no final norm.

    Args:
        bands: C.
        config: sizes.
    """

    def __init__(self, bands: int, config: ChromaFormerConfig) -> None:
        super().__init__()
        self.patch_embedding = PatchEmbedding(bands, config.embed, config.patch_px)
        rates = spread_drop_path(config.drop_path, config.depths)
        self.stages = nn.ModuleList(_stage(config, stage, rates[stage]) for stage in range(len(config.depths)))
        self.sdm_stage = config.sdm_stage
        self.sdm = _spectral_module(bands, config)
        self.apply(initialise_linear)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Compute one map per stage.

        Args:
            x: (N, C, H, W) float32, H and W multiples of 8 * patch_px.

        Returns:
            Maps (N, E * 2^i, H / (patch_px * 2^i), W / (patch_px * 2^i)), i = 0 for the first stage.
        """
        tokens = self.patch_embedding(x)
        maps = []
        for number, stage in enumerate(self.stages, start=1):
            assert isinstance(stage, SwinStage)
            tokens = stage.merging(tokens)
            if self.sdm is not None and number == self.sdm_stage:
                tokens = self.sdm(tokens, x)
            tokens = stage.transform(tokens)
            maps.append(tokens.permute(0, 3, 1, 2))
        return maps


def _stage(config: ChromaFormerConfig, stage: int, rates: Sequence[float]) -> SwinStage:
    channels = config.embed * 2**stage
    blocks = [SwinV2Block(channels, config.heads[stage], BlockOptions(config.window, drop_path=rate)) for rate in rates]
    return SwinStage(PatchMerging(channels // 2) if stage else None, blocks, config.window)


def _spectral_module(bands: int, config: ChromaFormerConfig) -> nn.Module | None:
    growth = 2 ** (config.sdm_stage - 1)
    if config.sdm == "bands":
        return BandAttention(bands, config.embed * growth, config.patch_px * growth, config.use_band_embedding)
    return TokenAttention(config.embed * growth) if config.sdm == "tokens" else None


class ChromaFormer(nn.Module):
    """Land-cover network of any band and class count.

    Args:
        bands: input bands C.
        classes: output classes K.
        config: sizes, spectral module and head; `VARIANTS` holds the named ones.

    Raises:
        ModelError: bands or classes are below 1.
    """

    def __init__(self, bands: int, classes: int, *, config: ChromaFormerConfig = VARIANTS["t"]) -> None:
        super().__init__()
        if bands < 1 or classes < 1:
            raise ModelError(f"ChromaFormer: {bands} bands and {classes} classes", "use at least one of each")
        self.config = config
        self.bands = bands
        self.backbone = SwinV2Backbone(bands, config)
        widths = [config.embed * 2**stage for stage in range(len(config.depths))]
        self.head: nn.Module
        if config.head == "segment":
            self.head = AllMLPHead(widths, classes, width=config.head_width)
        else:
            self.head = nn.Linear(widths[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        """Score every pixel, or with `head="classify"` the whole image.

        Args:
            x: (N, C, H, W) float32, any H and W of at least 1; padded inside to multiples of 8 * patch_px.

        Returns:
            Logits float32, (N, K, H, W) or (N, K).

        Raises:
            ModelError: the input is no image of C bands.
        """
        check_image("ChromaFormer", x, self.bands)
        padded = pad_to_multiple(x, self.config.patch_px * 2 ** (len(self.config.depths) - 1))
        maps = self.backbone(padded)
        if self.config.head == "classify":
            scores: Tensor = self.head(maps[-1].mean((2, 3)))
            return scores
        return raise_to(self.head(maps), padded)[..., : x.shape[2], : x.shape[3]]
