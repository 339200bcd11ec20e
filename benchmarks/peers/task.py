"""What the adapters share: the task, the network, reading, writing and the report.

Every adapter does the same work by another tool: from a scene's file to a file of class numbers, with one network.
Imports and the loading of the network lie outside ``work``, everything from opening the scene to
closing the map inside.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
import torch
from memory import peak_rss_mb
from torch import Tensor, nn

from geoseg_cli.bundle import Bundle, InputSpec, find_bundle
from geoseg_cli.engines.torch_engine import load_network

FloatArray = npt.NDArray[np.float32]
NODATA = 255


@dataclass(frozen=True, slots=True)
class Task:
    """What a tool is asked to do.

    Attributes:
        scene: uint16 GeoTIFF with the bands of the bundle in its order.
        output: Where the map goes.
        bundle: Whose network to run.
        tile_px, overlap_px: Tiling; None is the tool's own default.
        layout: ``contiguous`` or ``channels_last``, the memory layout of the network.
    """

    scene: Path
    output: Path
    bundle: Bundle
    tile_px: int | None
    overlap_px: int | None
    layout: str

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.bundle.legend.classes)

    def report(self, tool: str, version: str, tile_px: int, overlap_px: int, stand_ins: Sequence[str] = ()) -> Report:
        """An empty report with the tiling that was asked for, else the tool's default that is given."""
        tile = self.tile_px or tile_px
        overlap = overlap_px if self.overlap_px is None else self.overlap_px
        with rasterio.open(self.scene) as file:
            return Report(tool, version, tile, overlap, file.shape, stand_ins=stand_ins)


@dataclass
class Report:
    """What an adapter prints.

    Attributes:
        tool, version: What ran.
        tile_px, overlap_px: With which tiles.
        size_px: Height and width of the scene.
        row_starts, col_starts: Where its tiles begin.
        stand_ins: Packages that the tool imports and that were not there.
        seconds: ``work`` and the part inside the network, wall time.
        work_core_s: Core-seconds of the work.
        tiles, pixels_computed: Through the network, padding included.
        engine: What ran the network.
    """

    tool: str
    version: str
    tile_px: int
    overlap_px: int
    size_px: tuple[int, int]
    row_starts: Sequence[int] = ()
    col_starts: Sequence[int] = ()
    stand_ins: Sequence[str] = ()
    seconds: dict[str, float] = field(default_factory=dict)
    work_core_s: float = 0.0
    tiles: int = 0
    pixels_computed: int = 0
    engine: str = "torch fp32"

    def place_flush(self) -> None:
        """Note tiles in equal steps, the last ones moved back so that they end at the edge."""
        stride = self.tile_px - self.overlap_px
        self.row_starts, self.col_starts = (flush_starts(size, self.tile_px, stride) for size in self.size_px)

    def print(self, network: CountedNetwork | None = None) -> None:
        """Print one line of JSON, with what the network counted."""
        if network is not None:
            self.tiles, self.pixels_computed = network.tiles, network.pixels
            self.seconds["network"] = network.seconds
        starts = {"row_starts": list(self.row_starts), "col_starts": list(self.col_starts)}
        print(json.dumps(vars(self) | starts | {"peak_rss_mb": peak_rss_mb()}))


def parse_task(description: str) -> Task:
    """Read the command line of an adapter."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--scene", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--bundle", default="landcover-lale")
    parser.add_argument("--tile", type=int, help="pixels (default: the tool's own)")
    parser.add_argument("--overlap", type=int, help="pixels (default: the tool's own)")
    parser.add_argument("--layout", choices=["contiguous", "channels_last"], default="contiguous")
    found = parser.parse_args()
    return Task(found.scene, found.output, find_bundle(found.bundle), found.tile, found.overlap, found.layout)


@contextmanager
def work(report: Report) -> Iterator[None]:
    """Count the time of the work."""
    started, started_core = time.perf_counter(), time.process_time()
    yield
    report.seconds["work"] = time.perf_counter() - started
    report.work_core_s = time.process_time() - started_core


class CountedNetwork(nn.Module):
    """A bundle's network that counts what goes through it.

    Args:
        network: From (N, C, H, W) to logits (N, K, H, W).
        layout: ``contiguous`` leaves everything to torch; ``channels_last`` is what geoseg's own torch engine runs.
    """

    def __init__(self, network: nn.Module, layout: str = "contiguous") -> None:
        super().__init__()
        self._format = torch.channels_last if layout == "channels_last" else torch.contiguous_format
        self._network = network.to(memory_format=self._format)  # type: ignore[call-overload]
        self.tiles = self.pixels = 0
        self.seconds = 0.0

    def forward(self, planes: Tensor) -> Tensor:
        """Logits, contiguous, so that no tool has to blend scattered numbers."""
        started = time.perf_counter()
        logits: Tensor = self._network(planes.contiguous(memory_format=self._format)).contiguous()
        self.seconds += time.perf_counter() - started
        self.tiles += len(planes)
        self.pixels += len(planes) * planes.shape[-2] * planes.shape[-1]
        return logits


def load_counted(task: Task) -> CountedNetwork:
    """The bundle's network with its weights, in evaluation mode."""
    return CountedNetwork(load_network(task.bundle), task.layout).eval()


class FromNumbers(nn.Module):
    """A network that takes the scene's digital numbers: the bundle's normalisation lies before it.

    For tools that give a network what stands in the file. All bands are present and all pixels valid.

    Args:
        network: What takes normalised planes.
        spec: The bundle's input.
        scale, offset: Reflectance is ``scale * number + offset``, one of each band.
    """

    def __init__(self, network: nn.Module, spec: InputSpec, scale: Sequence[float], offset: Sequence[float]) -> None:
        super().__init__()
        self._network = network
        self._optional = len(spec.optional)
        mean, deviation = torch.tensor(spec.mean), torch.tensor(spec.stddev)
        self._factor = nn.Buffer((torch.tensor(scale) / deviation)[:, None, None])
        self._shift = nn.Buffer(((torch.tensor(offset) - mean) / deviation)[:, None, None])

    def forward(self, numbers: Tensor) -> Tensor:
        """From (N, P, H, W) numbers to logits."""
        planes = numbers.float() * self._factor + self._shift
        present = torch.ones_like(planes[:, : self._optional])
        logits: Tensor = self._network(torch.cat([planes, present], 1))
        return logits


def scaling(scene: Path) -> tuple[list[float], list[float]]:
    """Scale and offset of each band."""
    with rasterio.open(scene) as file:
        return list(file.scales), list(file.offsets)


def normalise(numbers: npt.NDArray[Any], scene_scaling: tuple[list[float], list[float]], spec: InputSpec) -> FloatArray:
    """From (P, H, W) numbers to the network's planes (C, H, W), by the bundle's own normalisation; 0 is no data."""
    scale, offset = (np.asarray(part, np.float32)[:, None, None] for part in scene_scaling)
    valid = (numbers != 0).all(axis=0)
    return spec.apply(numbers.astype(np.float32) * scale + offset, valid, (True,) * len(spec.bands))


def read_planes(scene: Path, spec: InputSpec) -> FloatArray:
    """The whole scene as planes (C, H, W), for tools that want it in memory."""
    with rasterio.open(scene) as file:
        return normalise(file.read(), (list(file.scales), list(file.offsets)), spec)


def write_labels(path: Path, labels: npt.NDArray[np.uint8], scene: Path) -> None:
    """Write class numbers (H, W) on the scene's grid, for tools that leave the writing to their user."""
    with rasterio.open(scene) as like:
        grid = {"crs": like.crs, "transform": like.transform, "height": like.height, "width": like.width}
    profile = {"driver": "GTiff", "count": 1, "dtype": "uint8", "nodata": NODATA, "compress": "deflate", "tiled": True}
    with rasterio.open(path, "w", **grid, **profile) as file:
        file.write(labels, 1)


def flush_starts(size: int, tile: int, stride: int) -> list[int]:
    """Starts of tiles in equal steps, the last one moved back so that it ends at the edge; each start once."""
    last = max(size - tile, 0)
    return sorted({min(start, last) for start in range(0, size, stride)})
