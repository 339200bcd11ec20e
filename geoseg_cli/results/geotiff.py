"""Work raster -> plain tiled GeoTIFF with overviews inside, for readers that a COG is too new for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import rasterio
import rasterio.shutil
from rasterio.enums import Resampling

from geoseg_cli.results.cog import block_side
from geoseg_cli.results.creation_options import check_creation_options
from geoseg_cli.results.raster import BLOCK_PX, RasterSpec, WorkRaster
from geoseg_cli.results.read_back import can_have_overviews, check_written
from geoseg_cli.results.storage import storage_trouble

DEFAULT_OPTIONS: Mapping[str, str] = {
    "TILED": "YES",
    "COMPRESS": "DEFLATE",
    "ZLEVEL": "6",
    "BIGTIFF": "IF_SAFER",
    "GEOTIFF_VERSION": "AUTO",
    "INTERLEAVE": "BAND",
    # Other readers than GDAL fail on blocks that are not there.
    "SPARSE_OK": "FALSE",
}


def write_geotiff(work: WorkRaster, out: Path, options: Mapping[str, str] | None = None) -> None:
    """Turn a closed work raster into a plain GeoTIFF and read it back.

    Args:
        work: Closed and complete.
        out: New file, in the work folder of an ``OutputTransaction``.
        options: Creation options of GDAL's GTiff driver that replace ours; see ``check_creation_options``.

    Raises:
        UsageError: An option is unknown or would change what the file says.
        AccessError, StorageError: The disk does not take the file, or gives back something else.
    """
    options = options or {}
    check_creation_options(options, "gtiff")
    side = str(block_side(work.spec.grid))
    chosen = dict(DEFAULT_OPTIONS) | {"BLOCKXSIZE": side, "BLOCKYSIZE": side}
    chosen |= {name.upper(): value for name, value in options.items()}
    with storage_trouble(work.target):
        rasterio.shutil.copy(work.path, out.absolute(), driver="GTiff", **chosen)
        _add_overviews(out, work.spec, chosen)
    check_geotiff(out, work)


def check_geotiff(path: Path, work: WorkRaster) -> None:
    """Read a plain GeoTIFF back and compare it with what was handed to its work raster.

    Raises:
        StorageError: Layout, grid, description or a block differs, or an overview holds a value that the
            raster does not.
    """
    check_written(path, work, None)


def _add_overviews(out: Path, spec: RasterSpec, chosen: Mapping[str, str]) -> None:
    """Overviews at halves of the size until one fits a block, compressed like the raster itself.

    GDAL takes how they are stored from configuration options, which the environment can set; so all are stated.
    """
    longest, threshold = max(spec.grid.height, spec.grid.width), max(BLOCK_PX, *_block_sides(chosen))
    factors = [2 ** (level + 1) for level in range(longest.bit_length()) if longest > threshold * 2**level]
    if not (factors and can_have_overviews(spec.grid)):
        return
    stated = {
        "COMPRESS_OVERVIEW": chosen["COMPRESS"],
        "ZLEVEL_OVERVIEW": chosen["ZLEVEL"],
        "PREDICTOR_OVERVIEW": chosen.get("PREDICTOR", "1"),
        "SPARSE_OK_OVERVIEW": "FALSE",
        "TIFF_USE_OVR": "FALSE",
        "GDAL_TIFF_OVR_BLOCKSIZE": str(BLOCK_PX),
        "GDAL_NUM_THREADS": chosen.get("NUM_THREADS", "1"),
        "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    }
    with rasterio.Env(**stated), rasterio.open(out.absolute(), "r+", driver="GTiff") as file:
        file.build_overviews(factors, Resampling[spec.overview_resampling.lower()])


def _block_sides(chosen: Mapping[str, str]) -> tuple[int, int]:
    return int(chosen["BLOCKYSIZE"]), int(chosen["BLOCKXSIZE"])
