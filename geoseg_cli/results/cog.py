"""Work raster -> cloud-optimized GeoTIFF, which is read back block by block before anybody else sees it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import rasterio.shutil

from geoseg_cli.ahead import usable_cores
from geoseg_cli.grid import Grid
from geoseg_cli.results.creation_options import check_creation_options
from geoseg_cli.results.extra_samples import mark_no_alpha
from geoseg_cli.results.raster import BLOCK_PX, WorkRaster
from geoseg_cli.results.read_back import can_have_overviews, check_written
from geoseg_cli.results.storage import storage_trouble

DEFAULT_OPTIONS: Mapping[str, str] = {
    "COMPRESS": "DEFLATE",
    "LEVEL": "6",
    "PREDICTOR": "NO",
    # The driver's default cannot foresee the compressed size and fails at 4 GiB.
    "BIGTIFF": "IF_SAFER",
    "GEOTIFF_VERSION": "AUTO",
    "OVERVIEWS": "IGNORE_EXISTING",
    # Other readers than GDAL fail on blocks that are not there.
    "SPARSE_OK": "FALSE",
    "STATISTICS": "NO",
}

_IMPORTED_BY = os.getpid()

BLOCK_SIDES_PX = (BLOCK_PX, 256, 384, 320, 448, 192)
"""Sides of the COG's blocks, the best first; see ``block_side``."""


def write_cog(work: WorkRaster, out: Path, options: Mapping[str, str] | None = None) -> None:
    """Turn a closed work raster into a COG and read it back.

    Args:
        work: Closed and complete.
        out: New file, in the work folder of an ``OutputTransaction``.
        options: Creation options of GDAL's COG driver that replace ours; see ``check_creation_options``.

    Raises:
        UsageError: An option is unknown or would change what the file says.
        AccessError, StorageError: The disk does not take the file, or gives back something else.
    """
    options = options or {}
    check_creation_options(options)
    chosen = dict(DEFAULT_OPTIONS) | {
        "BLOCKSIZE": str(block_side(work.spec.grid)),
        "OVERVIEW_RESAMPLING": work.spec.overview_resampling,
        # Engine and readers are done with this scene. The bytes are the same; what a full disk swallows is read back.
        "NUM_THREADS": str(_threads()),
    }
    chosen |= {name.upper(): value for name, value in options.items()}
    if not can_have_overviews(work.spec.grid):
        chosen["OVERVIEWS"] = "NONE"
    with storage_trouble(work.target):
        rasterio.shutil.copy(work.path, out.absolute(), driver="COG", **chosen)
        if work.spec.palette and work.spec.bands == 2:
            mark_no_alpha(out)
    check_cog(out, work)


def _threads() -> int:
    """Threads that compress; one in a forked process, where GDAL waits for the threads of its parent for ever."""
    return usable_cores() if os.getpid() == _IMPORTED_BY else 1


def block_side(grid: Grid) -> int:
    """The first of ``BLOCK_SIDES_PX`` that is not the width of a level which must be tiled.

    rasterio, and with it rio-cogeo's validator, takes a level that is exactly one block wide for one in strips.
    """
    sizes = [(-(-grid.height // 2**level), -(-grid.width // 2**level)) for level in range(grid.width.bit_length())]
    widths = {width for height, width in sizes if max(height, width) > BLOCK_PX}
    return next((side for side in BLOCK_SIDES_PX if side not in widths), BLOCK_PX)


def check_cog(path: Path, work: WorkRaster) -> None:
    """Read a COG back and compare it with what was handed to its work raster.

    Raises:
        StorageError: Layout, grid, description or a block differs, or an overview holds a value that the
            raster does not.
    """
    check_written(path, work, "COG")
