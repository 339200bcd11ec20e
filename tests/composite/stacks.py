"""Maps of one grid with pixels that are known, and the composite of them counted pixel by pixel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import rasterio
from affine import Affine
from rasterio.crs import CRS

from geoseg_cli.catalog import Legend, legends
from geoseg_cli.grid import Grid
from tests.results.published import publish_map

Pixels = npt.NDArray[np.uint8]

WORLDCOVER = legends()["esa-worldcover"]
NORTH_UP = Affine(10, 0, 500_000, 0, -10, 5_000_000)


@dataclass(frozen=True)
class Observation:
    """One map of the stack, in the order of time where ``day`` says so."""

    labels: Pixels
    day: int | None = None
    confidence: Pixels | None = None


def grid_of(labels: Pixels, crs: CRS | None = CRS.from_epsg(32631), transform: Affine = NORTH_UP) -> Grid:  # noqa: B008
    return Grid(crs, transform, *labels.shape)


def write_map(
    path: Path, labels: Pixels, day: int | None = None, legend: Legend = WORLDCOVER, grid: Grid | None = None
) -> Path:
    """A map as classify leaves it, taken on a day of 2024."""
    path.parent.mkdir(parents=True, exist_ok=True)
    moment = {} if day is None else {"GEOSEG_ACQUIRED": f"2024-03-{day:02}T10:00:00Z"}
    scene = {"GEOSEG_INPUT": path.stem.rpartition("_")[0] or path.stem}
    return publish_map(path, labels, grid or grid_of(labels), legend, tags=moment | scene)


def write_confidence(path: Path, confidence: Pixels) -> Path:
    """A raster as --confidence leaves it: (H,W) uint8, 0 to 250, nodata 255."""
    height, width = confidence.shape
    profile = {"driver": "GTiff", "count": 1, "dtype": "uint8", "height": height, "width": width, "nodata": 255}
    with rasterio.open(path, "w", crs="EPSG:32631", transform=NORTH_UP, **profile) as file:
        file.write(confidence, 1)
    return path


def counted_by_hand(
    stack: Sequence[Observation], classes: Sequence[int], least: int = 1
) -> tuple[list[list[int]], list[list[int]]]:
    """Classes and counts, by plain loops over pixels and the rule as it is written down."""
    height, width = stack[0].labels.shape
    best, counts = [[255] * width for _ in range(height)], [[0] * width for _ in range(height)]
    for row in range(height):
        for col in range(width):
            seen = [one for one in stack if int(one.labels[row, col]) in classes]
            counts[row][col] = min(len(seen), 254)
            if len(seen) < least or not seen:
                continue
            candidates = {int(one.labels[row, col]) for one in seen}

            def merit(value: int, seen: list[Observation] = seen, row: int = row, col: int = col) -> tuple[int, ...]:
                mine = [one for one in seen if one.labels[row, col] == value]
                weights = [0 if c == 255 else c for one in mine if one.confidence is not None
                           for c in [int(one.confidence[row, col])]]  # fmt: skip
                return sum(weights), len(mine), max(one.day or 0 for one in mine), -value

            best[row][col] = max(candidates, key=merit)
    return best, counts
