"""Small networks: one that exports well, others with the mistakes that exporters pass over in silence."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geoseg_cli.bundle import Bundle, InputSpec
from geoseg_cli.catalog import legends
from geoseg_cli.export import CardFields, write_bundle
from geoseg_cli.export.source import Source
from geoseg_cli.networks import create_network

BANDS = InputSpec(bands=("red", "nir"), optional=("nir",), mean=(0.0, 0.3), stddev=(0.0001, 0.1))
CHANNELS, CLASSES = 3, 4
SMALL_LALE = {
    "depths": [1, 1, 1, 1],
    "widths": [8, 16, 16, 16],
    "stem_width": 8,
    "heads": [2, 2],
    "decoder_width": 16,
}


class Plain(nn.Module):
    """Stride, a norm over channels, a product with weights, context and resizing, at any size."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(CHANNELS, 8, 3, stride=2, padding=1)
        self.mix = nn.Linear(8, 8)
        self.up = nn.Conv2d(8, CLASSES, 1)

    def forward(self, pixels: Tensor) -> Tensor:
        features = self.down(pixels)
        features = features * torch.rsqrt(features.square().mean(dim=1, keepdim=True) + 1e-6)
        features = self.mix(features.movedim(1, -1)).movedim(-1, 1).relu()
        logits = self.up(features + features.mean(dim=(2, 3), keepdim=True))
        return F.interpolate(logits, size=pixels.shape[2:], mode="bilinear", align_corners=False)


class AdaptivePool(Plain):
    """Averages into bins with torch's own pooling, whose bins are exported for the traced size."""

    def __init__(self, bins: int) -> None:
        super().__init__()
        self.bins = bins

    def forward(self, pixels: Tensor) -> Tensor:
        features = self.down(pixels)
        pooled = F.adaptive_avg_pool2d(features, self.bins)
        features = features + F.interpolate(pooled, size=features.shape[2:], mode="bilinear")
        return F.interpolate(self.up(features), size=pixels.shape[2:], mode="bilinear")


class TokenLogarithm(nn.Module):
    """Attention to a few tokens whose scale holds the logarithm of the number of positions.

    ``naive`` takes that number from the shape, so that the traced one becomes a constant.
    """

    def __init__(self, naive: bool) -> None:
        super().__init__()
        self.naive = naive
        self.down = nn.Conv2d(CHANNELS, 16, 4, stride=4)
        self.tokens = nn.Parameter(torch.randn(16, 16))
        self.query = nn.Linear(16, 16)
        self.up = nn.Conv2d(16, CLASSES, 1)

    def forward(self, pixels: Tensor) -> Tensor:
        features = self.down(pixels)
        batch, channels, height, width = features.shape
        sequence = features.flatten(2).transpose(1, 2)
        count = torch.ones_like(sequence[0, :, 0]).sum()
        scale = math.log(16) / math.log(height * width) if self.naive else math.log(16) / torch.log(count)
        weights = (self.query(sequence) @ self.tokens.T * scale).softmax(-1)
        seen = (weights @ self.tokens).transpose(1, 2).reshape(batch, channels, height, width)
        return F.interpolate(self.up(features + seen), size=pixels.shape[2:], mode="bilinear")


class FixedBatch(nn.Conv2d):
    """Writes the traced number of tiles into its code."""

    def __init__(self) -> None:
        super().__init__(CHANNELS, CLASSES, 1)

    def forward(self, pixels: Tensor) -> Tensor:
        logits = super().forward(pixels)
        return logits.reshape(2, CLASSES, *pixels.shape[2:])


class Overflow(nn.Conv2d):
    """Passes through numbers beyond 65504, the largest of fp16, in a sum of products."""

    def __init__(self) -> None:
        super().__init__(CHANNELS, CLASSES, 1)

    def forward(self, pixels: Tensor) -> Tensor:
        return super().forward(pixels * 30000.0) * 0.001


def seeded(build: Any, *arguments: Any) -> Any:
    """Build a network with the same random weights every time, in evaluation mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return build(*arguments).eval()


def source_of(module: nn.Module, **changes: Any) -> Source:
    """A source that is no bundle."""
    values: dict[str, Any] = {
        "name": "toy",
        "module": module,
        "channels": CHANNELS,
        "classes": tuple("abcd"),
        "size_multiple": 1,
    }
    return Source(**(values | changes))


def draw(*shape: int, seed: int = 1) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def write_small_bundle(folder: Path) -> Bundle:
    """A bundle with a LALE of a few thousand weights."""
    network = seeded(lambda: create_network("lale-s1", CHANNELS, CLASSES, **SMALL_LALE))
    fields = CardFields(
        name="small",
        title="Small",
        description="A network for tests.",
        task="cloud",
        architecture="LALE",
        network="lale-s1",
        config=SMALL_LALE,
        input_spec=BANDS,
        legend=legends()["cloudsen12"],
        licence="MIT",
        gsd_m=10.0,
        tile_px=64,
        overlap_px=16,
    )
    return write_bundle(folder, network, fields, draw(3, CHANNELS, 64, 64))
