"""A run asks the disk for each block of a scene once, whatever the overlap of its tiles; the sample for few of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from rasterio.transform import Affine

from geoseg_cli.batches import Cutter, piece_width
from geoseg_cli.bundle import InputSpec
from geoseg_cli.grid import Grid, Window
from geoseg_cli.scenes import Scene, SceneOptions, block_cache, open_scene
from geoseg_cli.scenes.raster_file import BlockShape
from geoseg_cli.scenes.sample import spread_windows
from geoseg_cli.tiles import TilePlan
from tests.conftest import write_scene

SIDE_PX, BLOCK_PX = 1280, 128
TWO = InputSpec(("red", "nir"), (), (0.0,) * 2, (1.0,) * 2)
OPTIONS = SceneOptions(("red", "nir"), "dn")
ONCE = 1.02
"""Bytes asked for by the file's size where each block is read once: GDAL asks for whole pages of 4096 bytes."""

BLOCK_HEADERS_BYTES = 65_536
"""Some hundred bytes of GDAL's own for each of at most 160 blocks."""

LAYOUTS: dict[str, dict[str, Any]] = {
    "tiles": {"tiled": True, "blockxsize": BLOCK_PX, "blockysize": BLOCK_PX},
    "strips": {"blockysize": 5},
}


def bytes_asked() -> int:
    """Bytes that this process asked the system for so far."""
    counts = Path("/proc/self/io")
    if not counts.exists():
        pytest.skip("no /proc: the bytes that are read cannot be counted")
    return int(counts.read_text().split("rchar:")[1].split()[0])


def noise_file(folder: Path, layout: str, interleave: str) -> Path:
    """Two bands of noise, which does not compress: every block of the file is of nearly one size."""
    pixels = np.random.default_rng(0).integers(1, 60_000, (2, SIDE_PX, SIDE_PX), np.uint16)
    return write_scene(folder / "s.tif", pixels, interleave=interleave, compress="deflate", **LAYOUTS[layout])


@pytest.fixture(params=[(layout, by) for layout in LAYOUTS for by in ("band", "pixel")], ids="-".join)
def stored(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The file in each layout and interleave."""
    return noise_file(tmp_path, *request.param)


def pages_between_pieces(scene: Scene, plan: TilePlan) -> int:
    """Bytes of one page for each place where GDAL stops and goes on in a row of blocks of a band."""
    gaps = -(-(SIDE_PX - piece_width(scene, plan, tiles=1)) // piece_width(scene, plan))
    return 4096 * gaps * -(-SIDE_PX // scene.block_shape.height) * len(TWO.bands)


def asked_by_batches(scene: Scene, plan: TilePlan) -> int:
    start = bytes_asked()
    assert sum(len(batch.tiles) for batch in Cutter(scene, plan, TWO).batches(4)) == len(plan)
    return bytes_asked() - start


@pytest.mark.parametrize("overlap_px", [0, 40, 96])
def test_every_block_is_decoded_once_with_the_cache_that_is_asked_for(stored: Path, overlap_px: int) -> None:
    plan = TilePlan.cover(SIDE_PX, SIDE_PX, 192, overlap_px)
    with open_scene(stored, TWO, OPTIONS) as scene:
        enough = scene.size_in_cache(plan.tile_height) + BLOCK_HEADERS_BYTES
        most = ONCE * stored.stat().st_size + pages_between_pieces(scene, plan)
        with block_cache(enough):
            assert asked_by_batches(scene, plan) <= most


@pytest.mark.parametrize(("layout", "interleave"), [("tiles", "band"), ("tiles", "pixel"), ("strips", "band")])
def test_blocks_are_decoded_again_with_a_smaller_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str, interleave: str
) -> None:
    """What the test above counts can come out wrong; of strips less so where threads decode them beside each other."""
    monkeypatch.setattr("geoseg_cli.scenes.raster_file.usable_cores", lambda: 1)
    stored = noise_file(tmp_path, layout, interleave)
    plan = TilePlan.cover(SIDE_PX, SIDE_PX, 192, 40)
    with open_scene(stored, TWO, OPTIONS) as scene, rasterio.Env(GDAL_CACHEMAX=scene.size_in_cache() // 8):
        assert asked_by_batches(scene, plan) > ONCE * stored.stat().st_size + pages_between_pieces(scene, plan)


def test_opening_decodes_few_blocks(stored: Path) -> None:
    start = bytes_asked()
    open_scene(stored, TWO, OPTIONS).close()
    # Four of the hundred tiles; four of the 85 groups of strips that hold as many pixels as are wanted.
    assert bytes_asked() - start <= 0.07 * stored.stat().st_size


@given(
    st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 700), st.integers(1, 700), st.sampled_from([4, 16, 256])
)
def test_windows_of_a_sample_are_whole_blocks_spread_over_the_scene(
    height: int, width: int, block_height: int, block_width: int, count: int
) -> None:
    grid, cell = Grid(None, Affine.identity(), height, width), BlockShape(block_height, block_width)
    rows, cols = -(-height // block_height), -(-width // block_width)
    windows = spread_windows(grid, cell, count)
    assert len(set(windows)) == len(windows)
    assert min(count, rows * cols) // 2 <= len(windows) <= min(count, rows * cols)
    for window in windows:
        assert (window.row % block_height, window.col % block_width) == (0, 0)
        assert window == Window(window.row, window.col, block_height, block_width).intersection(grid.window)
    if count >= rows * cols:
        assert sum(window.height * window.width for window in windows) == height * width


@pytest.mark.parametrize(("rows", "cols"), [(8, 8), (11, 11), (22, 22), (686, 1), (1, 40)])
@pytest.mark.parametrize("count", [4, 15, 16])
def test_each_quarter_of_a_scene_gives_its_share_of_a_sample(rows: int, cols: int, count: int) -> None:
    grid, cell = Grid(None, Affine.identity(), rows * 16, cols * 16), BlockShape(16, 16)
    windows = spread_windows(grid, cell, count)
    for side, starts in ((rows, [window.row for window in windows]), (cols, [window.col for window in windows])):
        if side > 1:
            shares, _ = np.histogram(starts, 4, (0, side * 16))
            assert shares.min() >= len(windows) // 4 - 1
            assert shares.min() >= 1


@pytest.mark.parametrize(("side", "step"), [(64, 128), (96, 192)])
def test_columns_are_those_of_the_widest_block_of_all_files(tmp_path: Path, side: int, step: int) -> None:
    tiled = {"tiled": True, "compress": "deflate"}
    ones = np.ones((1, 512, 512), np.uint16)
    red = write_scene(tmp_path / "B04.tif", ones, blockxsize=BLOCK_PX, blockysize=BLOCK_PX, **tiled)
    coarse = write_scene(tmp_path / "B11.tif", ones[:, ::2, ::2], blockxsize=side, blockysize=side, **tiled)
    with rasterio.open(red) as fine, rasterio.open(coarse, "r+") as file:
        file.transform = fine.transform * Affine.scale(2)
    spec = InputSpec(("red", "swir16"), (), (0.0,) * 2, (1.0,) * 2)
    with open_scene(tmp_path, spec, SceneOptions(radiometry="dn", sensor="sentinel-2")) as scene:
        assert scene.column_step == step
