"""MSCloudCAM: clouds and their shadows from two kinds of context that attend to each other.

Paper: "MSCloudCAM" (arXiv 2510.10802, CAI 2026). The paper's cross-attention (CAM) is wired in; the model that its
authors released computes the attention and then drops the result, which `cam="bypassed"` reproduces.

Axes: N batch, C input bands, K classes, H rows, W columns, A heads, D channels per head, Q query and T key positions.

    image (N,C,H,W) -> Swin V1 -> f3 1/16 -> PSP  ------+-> concat -> CAM -> bottleneck -> gates -> decoder 1/1 -> main
                               -> f4 1/32 -> ASPP x2 --/             (queries: concat, keys: f3's context)   (N,K,H,W)

| variant   | Swin C, depths | context | bottleneck      | decoder          | parameters | GMAC at 512 x 512 |
|-----------|----------------|---------|-----------------|------------------|------------|-------------------|
| published | 96, (2,2,6,2)  | 384     | 256, 256 -> 512 | 256, 128, 64, 32 | 47,446,157 | 42.38             |
| small     | 32, (2,2,2,2)  | 96      | 128, 128 -> 128 | 64, 48, 32, 24   | 3,896,489  | 4.14              |

Parameters are for 13 bands and 4 classes. Multiply-adds include the attention products, both auxiliary heads and the
published order of the heads (upsample, then classify). The published 38.96 G is `cam="bypassed"`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from geoseg_cli.errors import ModelError
from geoseg_cli.networks.attention import DotProductAttention, merge_heads
from geoseg_cli.networks.heads import PYRAMID_BINS, PyramidPooling, raise_to
from geoseg_cli.networks.inputs import check_image
from geoseg_cli.networks.swin import SwinBackbone, SwinConfig, check_heads
from geoseg_cli.networks.windows import pad_to_multiple

__all__ = ["VARIANTS", "MSCloudCAM", "MSCloudCAMConfig"]

Context = Literal["psp+aspp", "psp+psp", "aspp+aspp", "aspp+psp"]
CamMode = Literal["connected", "bypassed", "absent"]
CamKeys = Literal["context", "concat"]
HeadOrder = Literal["classify-upsample", "upsample-classify"]

SIZE_MULTIPLE = 32


@dataclass(frozen=True, slots=True)
class MSCloudCAMConfig:
    """The choices that make one MSCloudCAM; the defaults are the published network with a working CAM.

    Attributes:
        embed: Swin channels of the first stage.
        depths: Swin blocks per stage.
        heads: Swin attention heads per stage.
        window: side of a Swin window in tokens.
        drop_path: highest chance of dropping a Swin branch while training.
        context_channels: channels of each context module's output.
        context: context modules on f3 and f4, in this order; the paper's ablations swap or repeat them.
        dilations: of ASPP's three dilated views; the published ones suit 512 px, where f4 is 16 x 16.
        cam: "connected" as in the paper; "bypassed" holds the weights but does not use them, as in the released
            code; "absent" has no such weights ("concat" row of the ablation).
        cam_heads: attention heads of the CAM.
        cam_keys: what keys and values come from: the context of f3, or the concatenation itself.
        bottleneck: channels after each of the three convolutions.
        use_channel_gate: apply the ECA gate.
        use_spatial_gate: apply the spatial gate.
        decoder: channels after each of the four doublings.
        head_order: "upsample-classify" is the published order, for counting; both give the same logits.
    """

    embed: int = 96
    depths: tuple[int, int, int, int] = (2, 2, 6, 2)
    heads: tuple[int, int, int, int] = (3, 6, 12, 24)
    window: int = 7
    drop_path: float = 0.1
    context_channels: int = 384
    context: Context = "psp+aspp"
    dilations: tuple[int, int, int] = (6, 12, 18)
    cam: CamMode = "connected"
    cam_heads: int = 4
    cam_keys: CamKeys = "context"
    bottleneck: tuple[int, int, int] = (256, 256, 512)
    use_channel_gate: bool = True
    use_spatial_gate: bool = True
    decoder: tuple[int, int, int, int] = (256, 128, 64, 32)
    head_order: HeadOrder = "classify-upsample"

    def __post_init__(self) -> None:
        """Refuse values that no network can be built from.

        Raises:
            ModelError: a choice is unknown, the window is below 2, a dilation below 1, or heads do not divide their
                channels.
        """
        if self.window < 2:
            raise ModelError(f"MSCloudCAM: window is {self.window}", "use a window of at least 2, such as 7 or 8")
        if min(self.dilations) < 1:
            raise ModelError(f"MSCloudCAM: dilations are {self.dilations}", "use dilations of at least 1")
        for name, value, choices in (
            ("context", self.context, ("psp+aspp", "psp+psp", "aspp+aspp", "aspp+psp")),
            ("cam", self.cam, ("connected", "bypassed", "absent")),
            ("cam_keys", self.cam_keys, ("context", "concat")),
            ("head_order", self.head_order, ("classify-upsample", "upsample-classify")),
        ):
            if value not in choices:
                raise ModelError(f"MSCloudCAM: {name} is {value!r}", f"use one of {', '.join(choices)}")
        for stage, heads in enumerate(self.heads):
            check_heads(self.embed * 2**stage, heads)
        check_heads(2 * self.context_channels, self.cam_heads)

    @property
    def swin(self) -> SwinConfig:
        """The backbone's part of the choices."""
        return SwinConfig(self.embed, self.depths, self.heads, self.window, drop_path=self.drop_path)


VARIANTS: dict[str, MSCloudCAMConfig] = {
    "published": MSCloudCAMConfig(),
    # Window 8 divides the maps of 256 and 512 px tiles, so no token is padding.
    "small": MSCloudCAMConfig(
        embed=32,
        depths=(2, 2, 2, 2),
        heads=(1, 2, 4, 8),
        window=8,
        drop_path=0.05,
        context_channels=96,
        bottleneck=(128, 128, 128),
        decoder=(64, 48, 32, 24),
    ),
}


class PyramidContext(PyramidPooling):
    """PSP as published: pyramid pooling whose fusing convolution has a bias.

    Args:
        channels: input channels.
        out_channels: output channels, also of each pooled branch.
    """

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__(channels, out_channels)
        # The batch norm behind it cancels this bias; it is here so that parameters compare with the paper's.
        self.fuse[0] = nn.Conv2d(channels + len(PYRAMID_BINS) * out_channels, out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Turn (N, channels, H, W) into (N, out_channels, H, W); training needs N of at least 2.

        Raises:
            ModelError: one image in training, where the single bin leaves the batch norm nothing to compare.
        """
        if self.training and x.shape[0] < 2:
            raise ModelError("MSCloudCAM cannot train on a batch of one image", "use batches of at least 2 images")
        return super().forward(x)


class DilatedPyramid(nn.Module):
    """ASPP: dilated views and the image mean side by side, fused (Chen et al. 2017, arXiv 1706.05587).

    As published, the branches are bare convolutions with bias: no norm and no activation before the fusion.

    Args:
        channels: input channels.
        out_channels: output channels, also of each branch.
        dilations: of the 3 x 3 convolutions, one branch each.
    """

    def __init__(self, channels: int, out_channels: int, dilations: Sequence[int]) -> None:
        super().__init__()
        self.point = nn.Conv2d(channels, out_channels, 1)
        self.dilated = nn.ModuleList(
            nn.Conv2d(channels, out_channels, 3, padding=dilation, dilation=dilation) for dilation in dilations
        )
        self.image = nn.Conv2d(channels, out_channels, 1)
        self.fuse = nn.Sequential(
            nn.Conv2d((len(dilations) + 2) * out_channels, out_channels, 1),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Turn (N, channels, H, W) into (N, out_channels, H, W)."""
        image = self.image(x.mean((2, 3), keepdim=True)).expand(-1, -1, x.shape[2], x.shape[3])
        views = [self.point(x), *(convolution(x) for convolution in self.dilated), image]
        fused: Tensor = self.fuse(torch.cat(views, dim=1))
        return fused


class CrossAttention(nn.Module):
    """CAM: every position of the joint context looks at every position of the keys; residual.

    No norm and no position encoding, as published. Memory of the scores grows with (H W)², so tile large scenes.

    Args:
        channels: channels of the queries, the values and the output.
        key_channels: channels of the map that keys and values come from.
        heads: A; must divide `channels`.
    """

    def __init__(self, channels: int, key_channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Conv2d(channels, channels, 1)
        self.key = nn.Conv2d(key_channels, channels, 1)
        self.value = nn.Conv2d(key_channels, channels, 1)
        self.attention = DotProductAttention((channels // heads) ** -0.5)
        self.projection = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, source: Tensor) -> Tensor:
        """Add to `x` (N, channels, H, W) what its positions find in `source` (N, key_channels, h, w)."""
        attended = self.attention(
            self._tokens(self.query(x)), self._tokens(self.key(source)), self._tokens(self.value(source))
        )
        found = merge_heads(attended).transpose(1, 2).reshape(x.shape)  # (N, channels, H, W)
        result: Tensor = x + self.projection(found)
        return result

    def _tokens(self, x: Tensor) -> Tensor:
        """Turn a map (N, channels, H, W) into tokens (N, A, H * W, D)."""
        batch, channels, height, width = x.shape
        x = x.reshape(batch, self.heads, channels // self.heads, height * width)  # (N, A, D, H * W)
        return x.transpose(2, 3)


class ChannelGate(nn.Module):
    """ECA: scale channels by a gate from their means and those of their neighbours (Wang et al. 2020, 1910.03151).

    Args:
        channels: channels of the map; the kernel follows from them.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        kernel = eca_kernel(channels)
        self.neighbours = nn.Conv1d(1, 1, kernel, padding=kernel // 2, bias=False)

    def gate(self, x: Tensor) -> Tensor:
        """Compute the gate of (N, channels, H, W): (N, channels, 1, 1) in (0, 1)."""
        means = x.mean((2, 3))[:, None]  # (N, 1, channels)
        return torch.sigmoid(self.neighbours(means))[:, 0, :, None, None]

    def forward(self, x: Tensor) -> Tensor:
        """Scale (N, channels, H, W); same shape."""
        return x * self.gate(x)


def eca_kernel(channels: int) -> int:
    """Choose the odd kernel of the channel gate: log2(channels) / 2 + 1, even values raised by one.

    The paper on ECA halves the 1 as well; this is the published MSCloudCAM's reading (5 at 64 channels, not 3).
    """
    kernel = int(math.log2(channels) / 2 + 1)
    return kernel if kernel % 2 else kernel + 1


class SpatialGate(nn.Module):
    """Scale positions by a gate from the mean and the maximum over channels (Woo et al. 2018, arXiv 1807.06521)."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(2, 1, 7, padding=3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Scale (N, channels, H, W); same shape."""
        summary = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], dim=1)  # (N, 2, H, W)
        return x * torch.sigmoid(self.convolution(summary))


def _context_module(name: str, channels: int, config: MSCloudCAMConfig) -> nn.Module:
    if name == "psp":
        return PyramidContext(channels, config.context_channels)
    return DilatedPyramid(channels, config.context_channels, config.dilations)


def _bottleneck(channels: int, widths: tuple[int, int, int]) -> nn.Sequential:
    first, second, third = widths
    return nn.Sequential(
        nn.Conv2d(channels, first, 1),
        nn.ReLU(),
        nn.Conv2d(first, second, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(second, third, 1),
        nn.ReLU(),
    )


def _doubling(channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.ConvTranspose2d(channels, out_channels, 2, stride=2), nn.BatchNorm2d(out_channels), nn.ReLU()
    )


def _initialise(module: nn.Module) -> None:
    """Keep the variance through convolutions with ReLU (He et al. 2015, 1502.01852), bias 0; for `apply`.

    The bottleneck has no norm: with smaller weights the image's signal would drown in the biases there.
    """
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class MSCloudCAM(nn.Module):
    """Cloud segmentation network of any band and class count.

    Args:
        bands: input bands C.
        classes: output classes K.
        config: sizes and ablations; `VARIANTS` holds the named ones.

    Raises:
        ModelError: bands or classes are below 1.
    """

    def __init__(self, bands: int, classes: int, *, config: MSCloudCAMConfig = VARIANTS["published"]) -> None:
        super().__init__()
        if bands < 1 or classes < 1:
            raise ModelError(f"MSCloudCAM: {bands} bands and {classes} classes", "use at least one of each")
        self.config = config
        self.bands = bands
        fine, coarse = config.context.split("+")
        context, joint = config.context_channels, 2 * config.context_channels
        key_channels = context if config.cam_keys == "context" else joint
        widths = (config.bottleneck[-1], *config.decoder)
        self.backbone = SwinBackbone(bands, config.swin)
        self.fine_context = _context_module(fine, 4 * config.embed, config)
        self.coarse_context = _context_module(coarse, 8 * config.embed, config)
        self.cam = CrossAttention(joint, key_channels, config.cam_heads) if config.cam != "absent" else None
        self.bottleneck = _bottleneck(joint, config.bottleneck)
        self.channel_gate = ChannelGate(config.bottleneck[-1]) if config.use_channel_gate else None
        self.spatial_gate = SpatialGate() if config.use_spatial_gate else None
        self.decoder = nn.ModuleList(_doubling(*pair) for pair in pairwise(widths))
        self.auxiliary_heads = nn.ModuleList(nn.Conv2d(width, classes, 1) for width in config.decoder[:2])
        self.head = nn.Conv2d(config.decoder[-1], classes, 1)
        for part in (self.fine_context, self.coarse_context, self.bottleneck):
            part.apply(_initialise)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor, Tensor]:
        """Score every pixel.

        Args:
            x: (N, C, H, W) float32, any H and W of at least 1; padded inside to multiples of 32.

        Returns:
            In evaluation the logits (N, K, H, W) float32. In training a tuple of main logits and those of the two
            auxiliary heads, all (N, K, H, W); the published loss is main + 0.4 * first + 0.4 * second.

        Raises:
            ModelError: the input is no image of C bands, or a single one in training.
        """
        check_image("MSCloudCAM", x, self.bands)
        height, width = x.shape[-2:]
        padded = pad_to_multiple(x, SIZE_MULTIPLE)
        maps = self._decode(self._refine(self._mix(padded)))
        main = self._classify(self.head, maps[-1], padded)[..., :height, :width]
        if not self.training:
            return main
        first, second = (
            self._classify(head, features, padded)[..., :height, :width]
            for head, features in zip(self.auxiliary_heads, maps, strict=False)
        )
        return main, first, second

    def _mix(self, x: Tensor) -> Tensor:
        """Compute the joint context (N, 2 * context, H / 16, W / 16) of a padded image."""
        _, _, fine, coarse = self.backbone(x)
        fine = self.fine_context(fine)
        coarse = raise_to(self.coarse_context(coarse), fine)
        joint = torch.cat([coarse, fine], dim=1)
        if self.cam is None or self.config.cam == "bypassed":
            return joint
        attended: Tensor = self.cam(joint, fine if self.config.cam_keys == "context" else joint)
        return attended

    def _refine(self, joint: Tensor) -> Tensor:
        """Squeeze the joint context to the bottleneck's width and gate it: z + spatial(channel(z))."""
        features: Tensor = self.bottleneck(joint)
        gated = features
        if self.channel_gate is not None:
            gated = self.channel_gate(gated)
        if self.spatial_gate is not None:
            gated = self.spatial_gate(gated)
        # With both gates off the published sum would only double the map.
        return features if gated is features else gated + features

    def _decode(self, features: Tensor) -> list[Tensor]:
        """Double the map four times; returns the maps at 1/8, 1/4, 1/2 and 1/1."""
        maps = []
        for doubling in self.decoder:
            features = doubling(features)
            maps.append(features)
        return maps

    def _classify(self, head: nn.Module, features: Tensor, like: Tensor) -> Tensor:
        """Turn features (N, c, h, w) into logits (N, K, H, W) of the size of `like`."""
        if self.config.head_order == "upsample-classify":
            logits: Tensor = head(raise_to(features, like))
            return logits
        logits = head(features)
        # The last map has full size already; asking for a resize would only cost a copy.
        return logits if head is self.head else raise_to(logits, like)
