"""Small rasters with an answer that is known beforehand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from affine import Affine
from rasterio.crs import CRS

from geoseg_cli.catalog import Legend, legends
from geoseg_cli.grid import Grid
from geoseg_cli.results.cog import write_cog
from geoseg_cli.results.raster import RasterSpec, WorkRaster
from tests.results.published import publish_map

UTM = CRS.from_epsg(32631)
NORTH_UP = Affine(10, 0, 500_000, 0, -10, 5_000_000)

Pixels = npt.NDArray[np.uint8]


@pytest.fixture
def legend() -> Legend:
    return legends()["esa-worldcover"]


@pytest.fixture
def grid() -> Callable[..., Grid]:
    def make(height: int, width: int, crs: CRS | None = UTM, transform: Affine = NORTH_UP) -> Grid:
        return Grid(crs, transform, height, width)

    return make


@pytest.fixture
def labels(legend: Legend) -> Callable[..., Pixels]:
    """Random classes in patches of 7 px, with nodata in the first column."""

    def make(height: int, width: int, seed: int = 0) -> Pixels:
        values = np.array(legend.values, np.uint8)
        coarse = np.random.default_rng(seed).integers(0, len(values), (height // 7 + 1, width // 7 + 1))
        pixels = values[np.kron(coarse, np.ones((7, 7), int))[:height, :width]]
        pixels[:, 0] = legend.nodata
        return pixels

    return make


@pytest.fixture
def make_work(tmp_path: Path) -> Callable[..., WorkRaster]:
    """A closed work raster of (B,H,W) pixels."""

    def make(spec: RasterSpec, pixels: Pixels, path: Path | None = None) -> WorkRaster:
        with WorkRaster(path or tmp_path / "scratch.tif", spec) as work:
            work.write(0, pixels)
        return work

    return make


@pytest.fixture
def make_cog(tmp_path: Path, make_work: Callable[..., WorkRaster]) -> Callable[..., Path]:
    """A COG of (B,H,W) pixels."""

    def make(spec: RasterSpec, pixels: Pixels, **options: str) -> Path:
        out = tmp_path / "map.tif"
        write_cog(make_work(replace(spec, bands=len(pixels)), pixels), out, options)
        return out

    return make


@pytest.fixture
def make_map(tmp_path: Path, grid: Callable[..., Grid], legend: Legend) -> Callable[..., Path]:
    """A published map of (H,W) labels with its sidecars: ``make_map(labels, name=..., grid=..., legend=...)``."""

    def make(labels: Pixels, name: str = "maps/map.tif", **more: Any) -> Path:
        out = tmp_path / name
        out.parent.mkdir(parents=True, exist_ok=True)
        return publish_map(out, labels, more.pop("grid", grid(*labels.shape)), more.pop("legend", legend), **more)

    return make
