"""LALE: a light encoder-decoder that maps land cover with a few million parameters.

Paper: "LALE", arXiv 2606.02092 (ICMV 2026). Widths, block kinds and sizes are published, depths and biases
are not; those below are the ones whose counts reproduce the published parameters, storage and multiply-adds.

Legend: N batch, C input bands, K classes, H rows, W columns, D channels of a stage, M decoder width.

    image (N,C,H,W) - stem 1/4 -> mixers 1/4 -> mixers 1/8 -> transformers 1/16 -> transformers 1/32
                                    |            |              |                     |
                                    +------ 1x1 to M, bilinear to 1/4, concat, fuse, classify -> (N,K,H,W)

Every stride-2 convolution rounds up, so a map at 1/s has ceil(H/s) rows and any size of at least 1 x 1 works.

| variant | mixers | transformers | parameters | GMAC, concat order | GMAC as run |
|---------|--------|--------------|------------|--------------------|-------------|
| s1      | 7, 7   | 1, 1         | 1,567,417  | 0.587              | 0.407       |
| s2      | 14, 14 | 2, 2         | 2,613,525  | 0.779              | 0.600       |
| s3      | 21, 21 | 3, 3         | 3,659,633  | 0.972              | 0.792       |
| s4      | 28, 28 | 4, 4         | 4,705,741  | 1.164              | 0.985       |
| s1-k7   | 7, 7   | 1, 1         | 1,596,519  | 0.661              | 0.481       |
| s2-k7   | 14, 14 | 2, 2         | 2,671,559  | 0.922              | 0.743       |
| s3-k7   | 21, 21 | 3, 3         | 3,746,599  | 1.184              | 1.005       |
| s4-k7   | 28, 28 | 4, 4         | 4,821,639  | 1.446              | 1.266       |

Parameters for 3 bands and 7 classes, GMAC at 256 x 256 with attention's products. Published figures count
concatenating before fusing (0.59 and 0.78 for s1 and s2, 0.67 and 0.94 for their k7); the decoder runs in an order
that saves 0.18 and changes nothing else, see ``AllMLPHead``. The k7 rows are the paper's baselines: 7 x 7 mixers,
LayerNorm, GELU instead of 3 x 3, RMSNorm, StarReLU.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geoseg_cli.errors import ModelError
from geoseg_cli.networks.attention import DotProductAttention, attend_near, merge_heads, split_heads
from geoseg_cli.networks.heads import AllMLPHead, raise_to
from geoseg_cli.networks.inputs import check_image

__all__ = ["LALE", "VARIANTS", "ConvMixer", "LALEConfig", "RMSNorm", "StarReLU", "Transformer"]

Norm = Literal["rms", "layer"]
Activation = Literal["star", "gelu"]

NORM_EPSILON = 1e-6
# squares of unit-normal inputs after a ReLU have mean 1/2 and variance 5/4: these give mean 0, variance 1
STAR_SCALE = 0.8944
STAR_BIAS = -0.4472
MLP_RATIO = 4


@dataclass(frozen=True, slots=True)
class LALEConfig:
    """The choices that make one LALE network.

    Attributes:
        depths: Blocks per stage; two stages of mixers, then two of transformers.
        widths: Channels per stage, at 1/4, 1/8, 1/16 and 1/32 of the input.
        stem_width: Channels between the two convolutions of the stem.
        kernel: Odd side of the mixers' depthwise convolution, in pixels of their map.
        mixer_ratio: Expansion of the mixers' pointwise step; 1 is a single convolution.
        keep_pointwise_residual: Whether a residual spans the mixers' pointwise step; see ``ConvMixer``.
        norm: "rms" or, for the baselines, "layer"; both over channels at each position.
        activation: "star" or, for the baselines, "gelu".
        heads: Attention heads of the two transformer stages; each divides its width.
        reach: How many positions of their map the two transformer stages look in each direction, or None for all of
            the map, as published. A network with a reach sees the same around a pixel in tiles of every size, and its
            cost by pixel does not grow with them; 16 and 32 pixels of the image are one position. No weights depend
            on it.
        decoder_width: Channels to which every stage is projected.
        dropout: Share of decoder features dropped in training.
    """

    depths: tuple[int, int, int, int] = (7, 7, 1, 1)
    widths: tuple[int, int, int, int] = (32, 64, 128, 256)
    stem_width: int = 16
    kernel: int = 3
    mixer_ratio: int = 1
    keep_pointwise_residual: bool = True
    norm: Norm = "rms"
    activation: Activation = "star"
    heads: tuple[int, int] = (4, 8)
    reach: tuple[int, int] | None = None
    decoder_width: int = 128
    dropout: float = 0.1

    def __post_init__(self) -> None:
        """Refuse values that no network can be built from.

        Raises:
            ModelError: A kernel is even, a name is unknown, heads do not divide a width, or a reach is below 1.
        """
        if self.kernel % 2 == 0 or self.kernel < 1:
            raise ModelError(f"LALE: kernel is {self.kernel}", "use an odd kernel, such as 3 or 7")
        if self.norm not in ("rms", "layer"):
            raise ModelError(f"LALE: no norm is called {self.norm!r}", 'use "rms" or "layer"')
        if self.activation not in ("star", "gelu"):
            raise ModelError(f"LALE: no activation is called {self.activation!r}", 'use "star" or "gelu"')
        for heads, width in zip(self.heads, self.widths[2:], strict=True):
            if width % heads:
                raise ModelError(f"LALE: {heads} heads do not divide width {width}", "use a divisor")
        if self.reach is not None and (len(self.reach) != 2 or min(self.reach) < 1):
            raise ModelError(f"LALE: reach is {self.reach}", "give the two transformer stages at least 1 each, or none")


def _scaled(scale: int) -> LALEConfig:
    return LALEConfig(depths=(7 * scale, 7 * scale, scale, scale))


def _baseline(config: LALEConfig) -> LALEConfig:
    return replace(config, kernel=7, norm="layer", activation="gelu")


VARIANTS: dict[str, LALEConfig] = {f"s{scale}": _scaled(scale) for scale in (1, 2, 3, 4)}
VARIANTS |= {f"{name}-k7": _baseline(config) for name, config in VARIANTS.items()}


class RMSNorm(nn.Module):
    """Divide by the root mean square over channels at each position: g * x / sqrt(mean(x^2) + 1e-6)."""

    def __init__(self, width: int) -> None:
        """Create the gain of ``width`` channels, at 1."""
        super().__init__()
        self.gain = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise a map (N, D, H, W), floating; same shape and dtype out."""
        # squares overflow half precision from 256 on, so the mean is taken in float32
        mean_square = x.float().square().mean(dim=1, keepdim=True)
        inverse = torch.rsqrt(mean_square + NORM_EPSILON).to(x.dtype)  # (N, 1, H, W)
        return x * inverse * self.gain.to(x.dtype).view(-1, 1, 1)


class ChannelLayerNorm(nn.LayerNorm):
    """LayerNorm over the channels of a map (N, D, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise a map (N, D, H, W), floating; same shape and dtype out."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class StarReLU(nn.Module):
    """s * relu(x)^2 + b with two learned scalars (MetaFormer baselines, arXiv 2210.13452, section 3)."""

    def __init__(self) -> None:
        """Create scale and bias at the values that keep unit-normal inputs standardised."""
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(STAR_SCALE))
        self.bias = nn.Parameter(torch.tensor(STAR_BIAS))

    def forward(self, x: Tensor) -> Tensor:
        """Activate any floating tensor; same shape and dtype out."""
        return self.scale * F.relu(x).square() + self.bias


def _norm(config: LALEConfig, width: int) -> nn.Module:
    return RMSNorm(width) if config.norm == "rms" else ChannelLayerNorm(width, NORM_EPSILON)


def _activation(config: LALEConfig) -> nn.Module:
    return StarReLU() if config.activation == "star" else nn.GELU()


def _halve(width_in: int, width_out: int) -> nn.Conv2d:
    return nn.Conv2d(width_in, width_out, 3, stride=2, padding=1)


def _pointwise(config: LALEConfig, width: int) -> nn.Module:
    if config.mixer_ratio == 1:
        return nn.Conv2d(width, width, 1)
    hidden = config.mixer_ratio * width
    return nn.Sequential(nn.Conv2d(width, hidden, 1), _activation(config), nn.Conv2d(hidden, width, 1))


class ConvMixer(nn.Module):
    """Depthwise convolution, then a pointwise one (ConvMixer, arXiv 2201.09792, section 2).

    y = x + norm(act(depthwise(x))); out = y + norm(act(pointwise(y))). ConvMixer has no second residual and
    LALE's is not published. At the same size and cost, s1 fits two tiles to 95 % within 40 to 50 steps with it and
    60 to 80 without.
    """

    def __init__(self, config: LALEConfig, width: int) -> None:
        """Create a mixer of ``width`` channels."""
        super().__init__()
        pad = config.kernel // 2
        depthwise = nn.Conv2d(width, width, config.kernel, padding=pad, groups=width)
        self.keep_residual = config.keep_pointwise_residual
        self.spatial = nn.Sequential(depthwise, _activation(config), _norm(config, width))
        self.channel = nn.Sequential(_pointwise(config, width), _activation(config), _norm(config, width))

    def forward(self, x: Tensor) -> Tensor:
        """Mix a map (N, D, H, W), floating; same shape out."""
        x = x + self.spatial(x)
        mixed: Tensor = self.channel(x)
        return x + mixed if self.keep_residual else mixed


class Attention(nn.Module):
    """Multi-head self-attention among all positions of a map, or those within reach; the ConvMLP supplies position."""

    def __init__(self, width: int, heads: int, reach: int | None = None) -> None:
        """Create attention of ``width`` channels in ``heads`` heads; see `LALEConfig` for ``reach``."""
        super().__init__()
        self.heads, self.reach = heads, reach
        self.attend = DotProductAttention((width // heads) ** -0.5)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Attend over a map (N, D, H, W), floating; same shape out."""
        if self.reach is not None:
            fused = self.qkv(x.permute(0, 2, 3, 1))  # (N, H, W, 3 * D)
            near: Tensor = self.out(attend_near(self.attend, fused, self.heads, self.reach))
            return near.permute(0, 3, 1, 2)
        tokens = x.flatten(2).transpose(1, 2)  # (N, H * W, D)
        query, key, value = split_heads(self.qkv(tokens), 3, self.heads)  # each (N, heads, H * W, D / heads)
        attended: Tensor = self.out(merge_heads(self.attend(query, key, value)))
        return attended.transpose(1, 2).reshape(x.shape)  # (N, H * W, D) -> (N, D, H, W)


class Transformer(nn.Module):
    """Pre-norm self-attention and ConvMLP, each inside a residual."""

    def __init__(self, config: LALEConfig, width: int, heads: int, reach: int | None) -> None:
        """Create a block of ``width`` channels and ``heads`` heads; see `LALEConfig` for ``reach``."""
        super().__init__()
        hidden = MLP_RATIO * width
        self.attention_norm = _norm(config, width)
        self.attention = Attention(width, heads, reach)
        self.mlp_norm = _norm(config, width)
        self.mlp = nn.Sequential(
            nn.Conv2d(width, hidden, 1),
            nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden),
            _activation(config),
            nn.Conv2d(hidden, width, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Transform a map (N, D, H, W), floating; same shape out."""
        x = x + self.attention(self.attention_norm(x))
        mixed: Tensor = x + self.mlp(self.mlp_norm(x))
        return mixed


def _stage(config: LALEConfig, index: int) -> nn.Sequential:
    """Build stage ``index``: its downsampling, except before the first, and its blocks."""
    width = config.widths[index]
    layers: list[nn.Module] = [_halve(config.widths[index - 1], width)] if index else []
    for _ in range(config.depths[index]):
        if index < 2:
            layers.append(ConvMixer(config, width))
        else:
            reach = None if config.reach is None else config.reach[index - 2]
            layers.append(Transformer(config, width, config.heads[index - 2], reach))
    return nn.Sequential(*layers)


def _decoder(config: LALEConfig, classes: int) -> AllMLPHead:
    return AllMLPHead(
        config.widths,
        classes,
        width=config.decoder_width,
        dropout=config.dropout,
        norm=partial(_norm, config),
        activation=partial(_activation, config),
    )


class LALE(nn.Module):
    """The whole network: reflectance in, one logit per class and pixel out."""

    def __init__(self, bands: int, classes: int, *, config: LALEConfig = VARIANTS["s1"]) -> None:
        """Create a network with random weights.

        Args:
            bands: Input bands C, at least 1.
            classes: Classes K, at least 1.
            config: The network's dimensions; see ``VARIANTS``.
        """
        super().__init__()
        self.config = config
        self.bands = bands
        self.stem = nn.Sequential(
            _halve(bands, config.stem_width), _norm(config, config.stem_width), _activation(config),
            _halve(config.stem_width, config.widths[0]), _norm(config, config.widths[0]), _activation(config),
        )  # fmt: skip
        self.stages = nn.ModuleList(_stage(config, index) for index in range(len(config.widths)))
        self.decoder = _decoder(config, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Score every pixel.

        Args:
            x: Normalised bands (N, C, H, W), float32, H and W at least 1.

        Returns:
            Logits (N, K, H, W), float32, unbounded.

        Raises:
            ModelError: The input is no image of C bands.
        """
        check_image("LALE", x, self.bands)
        features = self.stem(x)
        stages: list[Tensor] = []
        for stage in self.stages:
            features = stage(features)
            stages.append(features)
        return raise_to(self.decoder(stages), x)
