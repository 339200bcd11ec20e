"""The networks that the papers compare theirs with, compact and built from the descriptions in their own papers.

| baseline          | what it is                                   | papers                       | rival of |
|-------------------|----------------------------------------------|------------------------------|----------|
| efficient-unet    | EfficientNet-B0 encoder, U-Net decoder       | arXiv 1905.11946, 1505.04597 | LALE     |
| efficient-upernet | EfficientNet-B0 encoder, UPerNet head of 256 | arXiv 1905.11946, 1807.10221 | LALE     |
| swin-t            | Swin-T, classifying images                   | arXiv 2103.14030             | LeMeViT  |

Legend: N batch, C input bands, K classes, H rows, W columns, D channels.

The published counts of the first two include the classifier's last convolution, 320 to 1,280 channels with its norm:
412,160 parameters that no map needs. It is left out here, so these counts are that much below the published ones and
the multiply-adds are the same.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from geoseg_cli.networks.heads import AllMLPHead, FCNHead, UPerHead, raise_to
from geoseg_cli.networks.lemevit import AUXILIARY_MAP
from geoseg_cli.networks.swin import SwinBackbone, SwinConfig
from geoseg_cli.networks.windows import pad_to_multiple

__all__ = [
    "BASELINES",
    "UNUSED_CLASSIFIER_PARAMETERS",
    "EfficientUNet",
    "EfficientUPerNet",
    "SwinClassifier",
    "SwinSegmenter",
]

UNUSED_CLASSIFIER_PARAMETERS = 320 * 1280 + 2 * 1280

STEM_WIDTH = 32
# EfficientNet-B0, table 1 of its paper: expansion, kernel, stride of the first block, channels, blocks
STAGES = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)
# the stages after which a map is kept, at 1/4, 1/8, 1/16 and 1/32
KEPT_STAGES = (1, 2, 4, 6)
MAP_WIDTHS = (24, 40, 112, 320)
DECODER_WIDTHS = (256, 128, 64, 32, 16)


def _convolve(
    width_in: int,
    width_out: int,
    kernel: int,
    *,
    stride: int = 1,
    groups: int = 1,
    activation: type[nn.Module] = nn.SiLU,
) -> nn.Sequential:
    """Build a convolution without bias, BatchNorm and an activation."""
    convolution = nn.Conv2d(width_in, width_out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(width_out), activation())


class SqueezeExcite(nn.Module):
    """Scale channels by a gate from their means (arXiv 1709.01507)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(nn.Conv2d(width, hidden, 1), nn.SiLU(), nn.Conv2d(hidden, width, 1), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        """Scale a map (N, D, H, W); same shape."""
        scaled: Tensor = x * self.gate(x.mean((2, 3), keepdim=True))
        return scaled


class InvertedBottleneck(nn.Module):
    """Widen, convolve depthwise, gate, narrow; residual where the shape stays (arXiv 1801.04381, section 3)."""

    def __init__(self, width_in: int, width_out: int, *, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        hidden = expansion * width_in
        self.has_residual = stride == 1 and width_in == width_out
        widen = [_convolve(width_in, hidden, 1)] if expansion > 1 else []
        self.layers = nn.Sequential(
            *widen,
            _convolve(hidden, hidden, kernel, stride=stride, groups=hidden),
            SqueezeExcite(hidden, width_in // 4),
            _convolve(hidden, width_out, 1, activation=nn.Identity),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Transform a map (N, D, H, W)."""
        out: Tensor = self.layers(x)
        return x + out if self.has_residual else out


class EfficientEncoder(nn.Module):
    """EfficientNet-B0 without its classifier."""

    def __init__(self, bands: int) -> None:
        super().__init__()
        self.stem = _convolve(bands, STEM_WIDTH, 3, stride=2)
        widths = (STEM_WIDTH, *(stage[3] for stage in STAGES))
        self.stages = nn.ModuleList()
        for (width_in, width_out), (expansion, kernel, stride, _, blocks) in zip(pairwise(widths), STAGES, strict=True):
            first = InvertedBottleneck(width_in, width_out, expansion=expansion, kernel=kernel, stride=stride)
            rest = (
                InvertedBottleneck(width_out, width_out, expansion=expansion, kernel=kernel, stride=1)
                for _ in range(blocks - 1)
            )
            self.stages.append(nn.Sequential(first, *rest))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Turn pixels (N, C, H, W), H and W multiples of 32, into maps at 1/2, 1/4, 1/8, 1/16 and 1/32."""
        maps = [self.stem(x)]
        features = maps[0]
        for index, stage in enumerate(self.stages):
            features = stage(features)
            if index in KEPT_STAGES:
                maps.append(features)
        return maps


class EfficientUNet(nn.Module):
    """U-Net over EfficientNet-B0: double the map, join the encoder's, convolve twice; five times."""

    def __init__(self, bands: int, classes: int) -> None:
        super().__init__()
        self.encoder = EfficientEncoder(bands)
        self.raise_by_two = nn.Upsample(scale_factor=2, mode="nearest")
        skips = (*reversed(MAP_WIDTHS[:-1]), STEM_WIDTH, 0)
        widths = (MAP_WIDTHS[-1], *DECODER_WIDTHS)
        self.decoder = nn.ModuleList(
            nn.Sequential(
                _convolve(below + skip, width, 3, activation=nn.ReLU), _convolve(width, width, 3, activation=nn.ReLU)
            )
            for (below, width), skip in zip(pairwise(widths), skips, strict=True)
        )
        self.classify = nn.Conv2d(DECODER_WIDTHS[-1], classes, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Turn pixels (N, C, H, W) into logits (N, K, H, W); padded inside to multiples of 32."""
        padded = pad_to_multiple(x, 32)
        *skips, features = self.encoder(padded)
        for block in self.decoder:
            features = self.raise_by_two(features)
            features = block(torch.cat([features, skips.pop()], dim=1) if skips else features)
        logits: Tensor = self.classify(features)
        return logits[..., : x.shape[2], : x.shape[3]]


class EfficientUPerNet(nn.Module):
    """UPerNet over EfficientNet-B0."""

    def __init__(self, bands: int, classes: int) -> None:
        super().__init__()
        self.encoder = EfficientEncoder(bands)
        self.decoder = UPerHead(MAP_WIDTHS, classes, width=256)

    def forward(self, x: Tensor) -> Tensor:
        """Turn pixels (N, C, H, W) into logits (N, K, H, W)."""
        logits = self.decoder(self.encoder(pad_to_multiple(x, 32))[1:])
        return raise_to(logits, x)


class SwinClassifier(nn.Module):
    """Swin-T with its classifier: a norm, the mean over positions and a linear layer."""

    def __init__(self, bands: int, classes: int) -> None:
        super().__init__()
        config = SwinConfig()
        width = config.embed * 2 ** (len(config.depths) - 1)
        self.backbone = SwinBackbone(bands, config)
        self.norm = nn.LayerNorm(width)
        self.classify = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Turn pixels (N, C, H, W), H and W multiples of 32, into logits (N, K)."""
        last = self.backbone(x)[-1].permute(0, 2, 3, 1)  # (N, H / 32, W / 32, D)
        logits: Tensor = self.classify(self.norm(last).mean((1, 2)))
        return logits


class SwinSegmenter(nn.Module):
    """Swin V1 with the decoder and the auxiliary head that the light LeMeViT has here, so only backbones differ.

    Args:
        bands: C.
        classes: K.
        decoder_width, auxiliary_width: Channels of the two heads.
        **sizes: Fields of ``SwinConfig``.
    """

    def __init__(self, bands: int, classes: int, *, decoder_width: int, auxiliary_width: int, **sizes: Any) -> None:
        super().__init__()
        config = SwinConfig(**sizes)
        widths = [config.embed * 2**stage for stage in range(len(config.depths))]
        self.multiple = 4 * 2 ** (len(widths) - 1)
        self.backbone = SwinBackbone(bands, config)
        self.decoder = AllMLPHead(widths, classes, width=decoder_width)
        self.auxiliary = FCNHead(widths[AUXILIARY_MAP], classes, width=auxiliary_width)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Turn pixels (N, C, H, W) into logits (N, K, H, W); in training into main and auxiliary ones."""
        padded = pad_to_multiple(x, self.multiple)
        maps = self.backbone(padded)
        height, width = x.shape[-2:]
        main = raise_to(self.decoder(maps), padded)[..., :height, :width]
        if not self.training:
            return main
        return main, raise_to(self.auxiliary(maps[AUXILIARY_MAP]), padded)[..., :height, :width]


BASELINES: dict[str, Callable[[int, int], nn.Module]] = {
    "efficient-unet": EfficientUNet,
    "efficient-upernet": EfficientUPerNet,
    "swin-t": SwinClassifier,
}
