"""LeMeViT: a few learned meta tokens stand in for the image where attention among all pixels costs most.

Paper: "LeMeViT: Efficient Vision Transformer with Learnable Meta Tokens", arXiv 2405.09789 (IJCAI 2024).

Legend: N batch, C input bands, K classes, H rows, W columns, D channels of a stage, M meta tokens.

    image -> stem 1/4 -> C -> D 1/4 -> D 1/8 -> S 1/16 -> S 1/32      the maps of the last four stages go on
    meta  ------------>  C -> D     -> D     -> S      -> S           to a decode head

C: the meta tokens read the image, the image is left alone. D: each reads the other. S: each reads itself, so
from there on the meta tokens matter to classification alone. Stride-2 convolutions round up; any size works.

| variant     | depths     | widths            | head    | backbone   | network    | GMAC  |
|-------------|------------|-------------------|---------|------------|------------|-------|
| tiny        | 1,2,2,8,2  | 64,64,128,192,320 | UPerNet | 8,314,816  | 37,052,618 | 217.8 |
| small       | 1,2,2,6,2  | 96,96,192,320,384 | UPerNet | 16,015,456 | 45,588,842 | 228.0 |
| base        | 2,4,4,18,4 | 96,96,192,384,512 | UPerNet | 52,585,152 | 83,190,730 | 263.6 |
| tiny-light  | as tiny    | as tiny           | all-MLP | 7,751,104  | 8,352,458  | 9.3   |
| small-light | as small   | as small          | all-MLP | 14,711,328 | 15,644,458 | 19.1  |
| base-light  | as base    | as base           | all-MLP | 50,754,880 | 51,860,042 | 54.5  |

Parameters for 3 bands and 5 classes, auxiliary head included; GMAC at 512 x 512 in convolutions and linear
layers, without the two products of attention, as published. The light ones hold no weights that reach no map.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from geoseg_cli.errors import ModelError
from geoseg_cli.networks.heads import AllMLPHead, FCNHead, UPerHead, raise_to
from geoseg_cli.networks.inputs import check_image
from geoseg_cli.networks.lemevit_blocks import (
    HEAD_WIDTH,
    MLP_RATIO,
    NORM_EPSILON,
    Block,
    CrossBlock,
    DualBlock,
    SelfBlock,
)
from geoseg_cli.networks.swin import initialise_linear, spread_drop_path

__all__ = ["VARIANTS", "LeMeViT", "LeMeViTBackbone", "LeMeViTClassifier", "LeMeViTConfig"]

Decoder = Literal["upernet", "mlp"]

_BLOCKS: tuple[Callable[[int, float], Block], ...] = (CrossBlock, DualBlock, DualBlock, SelfBlock, SelfBlock)
# the last stage in which meta tokens reach the image
LAST_DUAL_STAGE = 2
COARSEST_STRIDE = 32
# of the four maps, the one at 1/16, which the published auxiliary head reads
AUXILIARY_MAP = 2


@dataclass(frozen=True, slots=True)
class LeMeViTConfig:
    """The choices that make one LeMeViT network.

    Attributes:
        depths: Blocks per stage, in the order C, D, D, S, S.
        widths: Channels per stage, multiples of 32; the first two are equal, as no downsampling parts them.
        meta_tokens: Number M of meta tokens, at least 1.
        keep_meta_tail: Whether to hold the meta MLPs and norms behind the last D stage. They matter to
            classification and to the published parameter counts, not to maps.
        drop_path: Highest chance of dropping a residual branch in training; rises linearly from 0.
        decoder: "upernet", the published one, or "mlp", a light one.
        decoder_width: Channels of the decoder.
        auxiliary_width: Channels of the auxiliary head.
        dropout: Share of decoder channels dropped in training.
    """

    depths: tuple[int, int, int, int, int] = (1, 2, 2, 8, 2)
    widths: tuple[int, int, int, int, int] = (64, 64, 128, 192, 320)
    meta_tokens: int = 16
    keep_meta_tail: bool = True
    drop_path: float = 0.15
    decoder: Decoder = "upernet"
    decoder_width: int = 512
    auxiliary_width: int = 256
    dropout: float = 0.1

    def __post_init__(self) -> None:
        """Refuse values that no network can be built from.

        Raises:
            ModelError: A width has no whole number of heads, the first two differ, or a value is unknown.
        """
        for width in self.widths:
            if width < 1 or width % HEAD_WIDTH:
                raise ModelError(f"LeMeViT: width {width}", f"use multiples of the heads' {HEAD_WIDTH} channels")
        if self.widths[0] != self.widths[1]:
            raise ModelError(f"LeMeViT: the first two widths are {self.widths[:2]}", "make them equal")
        if self.meta_tokens < 1:
            raise ModelError(f"LeMeViT: {self.meta_tokens} meta tokens", "use at least one; 16 is published")
        if self.decoder not in ("upernet", "mlp"):
            raise ModelError(f"LeMeViT: no decoder is called {self.decoder!r}", 'use "upernet" or "mlp"')


def _lighten(config: LeMeViTConfig) -> LeMeViTConfig:
    return replace(config, keep_meta_tail=False, decoder="mlp", decoder_width=128)


VARIANTS: dict[str, LeMeViTConfig] = {
    "tiny": LeMeViTConfig(),
    "small": LeMeViTConfig((1, 2, 2, 6, 2), (96, 96, 192, 320, 384)),
    "base": LeMeViTConfig((2, 4, 4, 18, 4), (96, 96, 192, 384, 512)),
}
VARIANTS |= {f"{name}-light": _lighten(config) for name, config in VARIANTS.items()}


def _stem(bands: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(bands, width // 2, 3, stride=2, padding=1), nn.BatchNorm2d(width // 2), nn.GELU(),
        nn.Conv2d(width // 2, width, 3, stride=2, padding=1), nn.BatchNorm2d(width),
    )  # fmt: skip


def _halve(width_in: int, width_out: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(width_in, width_out, 3, stride=2, padding=1), nn.BatchNorm2d(width_out))


def _meta_mlp(width_in: int, width_out: int) -> nn.Sequential:
    hidden = MLP_RATIO * width_in
    return nn.Sequential(
        nn.Linear(width_in, hidden), nn.LayerNorm(hidden), nn.GELU(),
        nn.Linear(hidden, width_out), nn.LayerNorm(width_out),
    )  # fmt: skip


class LeMeViTBackbone(nn.Module):
    """Stem and five stages."""

    def __init__(self, bands: int, config: LeMeViTConfig) -> None:
        """Create a backbone for ``bands`` bands with random weights."""
        super().__init__()
        widths, rates = config.widths, spread_drop_path(config.drop_path, config.depths)
        meta_stages = len(widths) if config.keep_meta_tail else LAST_DUAL_STAGE + 1
        self.stem = _stem(bands, widths[0])
        self.meta_tokens = nn.Parameter(torch.randn(config.meta_tokens, widths[0]))
        # the meta MLP before stage 0 keeps its width
        meta_widths = (widths[0], *widths)[: meta_stages + 1]
        self.meta_mlps = nn.ModuleList(_meta_mlp(*pair) for pair in pairwise(meta_widths))
        self.halvings = nn.ModuleList(_halve(*pair) for pair in pairwise(widths[1:]))
        self.stages = nn.ModuleList(
            nn.ModuleList(make_block(width, rate) for rate in stage_rates)
            for make_block, width, stage_rates in zip(_BLOCKS, widths, rates, strict=True)
        )
        self.image_norm = nn.BatchNorm2d(widths[-1]) if config.keep_meta_tail else None
        self.meta_norm = nn.LayerNorm(widths[-1], NORM_EPSILON) if config.keep_meta_tail else None
        self.apply(initialise_linear)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Extract maps, with no final norm.

        Args:
            x: Normalised bands (N, C, H, W), float32, H and W at least 1.

        Returns:
            Maps (N, D, ceil(H/s), ceil(W/s)) for s = 4, 8, 16, 32.
        """
        image = self.stem(x)
        meta: Tensor | None = self._start_meta(x)
        maps: list[Tensor] = []
        for index in range(len(self.stages)):
            image, meta = self._stage(index, image, meta if index <= LAST_DUAL_STAGE else None)
            maps.append(image)
        return maps[1:]

    def summarise(self, x: Tensor) -> Tensor:
        """Describe each image (N, C, H, W) by a vector (N, D): mean of its last map plus mean of its tokens.

        Raises:
            ModelError: The backbone was built without its meta tail.
        """
        if self.image_norm is None or self.meta_norm is None:
            raise ModelError("LeMeViT: classification needs the meta tail", "set keep_meta_tail to true")
        image = self.stem(x)
        meta: Tensor | None = self._start_meta(x)
        for index in range(len(self.stages)):
            image, meta = self._stage(index, image, meta)
        summary: Tensor = self.image_norm(image).mean(dim=(2, 3)) + self.meta_norm(meta).mean(dim=1)
        return summary

    def _start_meta(self, x: Tensor) -> Tensor:
        """Repeat the learned tokens for every image of ``x``: (N, M, D)."""
        return self.meta_tokens.expand(x.shape[0], -1, -1)

    def _stage(self, index: int, image: Tensor, meta: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Pass map (N, D, ., .) and meta tokens (N, M, D) through stage ``index`` and what lies before it."""
        if index >= 2:
            image = self.halvings[index - 2](image)
        if meta is not None:
            meta = self.meta_mlps[index](meta)
        for block in self.stages[index]:  # type: ignore[attr-defined]
            image, meta = block(image, meta)
        return image, meta


class LeMeViTClassifier(nn.Module):
    """One label per image; the network of the published ImageNet and MillionAid counts."""

    def __init__(self, bands: int, classes: int, *, config: LeMeViTConfig = VARIANTS["tiny"]) -> None:
        """Create a classifier with random weights; arguments as those of ``LeMeViT``."""
        super().__init__()
        self.backbone = LeMeViTBackbone(bands, config)
        self.classify = nn.Linear(config.widths[-1], classes)
        initialise_linear(self.classify)

    def forward(self, x: Tensor) -> Tensor:
        """Turn normalised bands (N, C, H, W), float32, into logits (N, K)."""
        logits: Tensor = self.classify(self.backbone.summarise(x))
        return logits


def _decoder(config: LeMeViTConfig, classes: int) -> nn.Module:
    make_head = UPerHead if config.decoder == "upernet" else AllMLPHead
    return make_head(config.widths[1:], classes, width=config.decoder_width, dropout=config.dropout)


class LeMeViT(nn.Module):
    """One logit per class and pixel."""

    def __init__(self, bands: int, classes: int, *, config: LeMeViTConfig = VARIANTS["tiny"]) -> None:
        """Create a network with random weights.

        Args:
            bands: Input bands C, at least 1.
            classes: Classes K, at least 1.
            config: The network's dimensions; see ``VARIANTS``.
        """
        super().__init__()
        self.config = config
        self.bands = bands
        self.backbone = LeMeViTBackbone(bands, config)
        self.decoder = _decoder(config, classes)
        width = config.widths[1:][AUXILIARY_MAP]
        self.auxiliary = FCNHead(width, classes, width=config.auxiliary_width, dropout=config.dropout)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Score every pixel.

        Args:
            x: Normalised bands (N, C, H, W), float32, H and W at least 1; in training N at least 2.

        Returns:
            Logits (N, K, H, W), float32; in training main and auxiliary ones, published weights 1 and 0.4.

        Raises:
            ModelError: The input is no image of C bands, or too small to train on.
        """
        check_image("LeMeViT", x, self.bands)
        if self.training:
            self._check_training(x)
        maps = self.backbone(x)
        main = raise_to(self.decoder(maps), x)
        if not self.training:
            return main
        return main, raise_to(self.auxiliary(maps[AUXILIARY_MAP]), x)

    def _check_training(self, x: Tensor) -> None:
        """Refuse a batch (N, C, H, W) that leaves a batch norm a single value per channel."""
        is_single_position = max(x.shape[2:]) <= COARSEST_STRIDE or self.config.decoder == "upernet"
        if x.shape[0] < 2 and is_single_position:
            raise ModelError(
                f"LeMeViT cannot train on one image of {x.shape[2]} x {x.shape[3]} pixels",
                "use batches of at least 2 images",
            )
