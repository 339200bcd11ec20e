"""A raster that was written is read back block by block and compared with what was handed to its work raster."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.enums import ColorInterp

from geoseg_cli.errors import StorageError
from geoseg_cli.grid import Grid, Window
from geoseg_cli.results.raster import BLOCK_PX, RasterSpec, WorkRaster
from geoseg_cli.results.storage import READ_BACK_HINT, storage_trouble

LEAST_BLOCK_PX = 128
"""Smallest side of the blocks that are written; strips are lower."""


def check_written(path: Path, work: WorkRaster, layout: str | None) -> None:
    """Read a GeoTIFF back and compare it with what was handed to its work raster.

    Args:
        path: The file.
        work: Closed and complete.
        layout: What GDAL must call its layout; None for one that has no name.

    Raises:
        StorageError: Layout, grid, description or a block differs, or an overview holds a value that the
            raster does not.
    """
    # Without a look at the folder: the file alone must say everything, sidecars do not travel with it.
    with storage_trouble(work.target, "read back"), rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"):
        with rasterio.open(path.absolute(), driver="GTiff") as file:
            _check_structure(file, work, layout)
            _check_pixels(file, work)
            levels = len(file.overviews(1))
        for level in range(levels):
            with rasterio.open(path.absolute(), driver="GTiff", overview_level=level) as overview:
                _check_overview(overview, work)


def has_tiles(file: Any) -> bool:
    """Whether an open raster is cut into tiles; what rasterio calls tiled leaves out files one block wide."""
    block_height, block_width = file.block_shapes[0]
    return bool(block_width != file.width or block_height >= min(file.height, LEAST_BLOCK_PX))


def can_have_overviews(grid: Grid) -> bool:
    """Readers take the decimation from the widths: overviews of a single column would look like full size."""
    return grid.width > 1


def _has_layout(file: Any, layout: str | None) -> bool:
    """Whether GDAL calls the layout so; it does not name that of uncompressed files of several bands."""
    named = file.tags(ns="IMAGE_STRUCTURE").get("LAYOUT")
    return bool(named == layout or (named is None and file.compression is None and file.count > 1))


def _check_structure(file: Any, work: WorkRaster, layout: str | None) -> None:
    spec = work.spec
    needs_overviews = max(file.shape) > max(BLOCK_PX, *file.block_shapes[0]) and can_have_overviews(spec.grid)
    findings = {
        "layout": _has_layout(file, layout) and has_tiles(file),
        "grid": Grid(file.crs, file.transform, file.height, file.width) == spec.grid,
        "bands": file.dtypes == ("uint8",) * spec.bands,
        "nodata": file.nodatavals == (spec.nodata,) * spec.bands,
        "scale": (file.scales, file.offsets) == ((spec.scale,) * spec.bands, (spec.offset,) * spec.bands),
        "descriptions": not spec.descriptions or file.descriptions == spec.descriptions,
        "palette": spec.palette is None or _has_colors(file, spec),
        "colour interpretation": ColorInterp.alpha not in file.colorinterp,
        "tags": _kept(spec.tags).items() <= _kept(file.tags()).items(),
        "overviews": bool(file.overviews(1)) or not needs_overviews,
    }
    wrong = [name for name, is_right in findings.items() if not is_right]
    if wrong:
        raise _corrupt(work.target, f"it came back with other {', '.join(wrong)}")


def _kept(tags: Mapping[str, str]) -> dict[str, str]:
    """What GDAL keeps of tags: neither empty values nor white space around them.

    AREA_OR_POINT belongs to the georeferencing and goes with it in a file that has none.
    """
    return {name: value.strip() for name, value in tags.items() if value.strip() and name != "AREA_OR_POINT"}


def _has_colors(file: Any, spec: RasterSpec) -> bool:
    try:
        found = file.colormap(1)
    except ValueError:  # rasterio's way to say that there is none
        return False
    wanted = spec.palette or {}
    return all(found[value][:3] == color[:3] for value, color in wanted.items() if value != spec.nodata)


def _check_pixels(file: Any, work: WorkRaster) -> None:
    for index in range(work.spec.block_rows):
        window = work.spec.block_row(index)
        for band, plane in enumerate(file.read(window=window.to_rasterio())):
            if zlib.crc32(np.ascontiguousarray(plane).data) != work.checksums[band, index]:
                rows = f"rows {window.row} to {window.row_stop - 1} of band {band + 1}"
                raise _corrupt(work.target, f"{rows} came back with other pixels")


def _check_overview(overview: Any, work: WorkRaster) -> None:
    allowed = _overview_values(work)
    for window in _row_bands(overview.height, overview.width):
        for band, plane in enumerate(overview.read(window=window.to_rasterio())):
            strange = [int(value) for value in np.unique(plane) if not allowed[band, value]]
            if strange:
                size = f"{overview.height} x {overview.width}"
                raise _corrupt(work.target, f"its {size} overview holds {strange}, which the full raster does not")


def _overview_values(work: WorkRaster) -> npt.NDArray[np.bool_]:
    """(bands, 256) bool, the values that an overview may hold."""
    allowed = work.present.copy()
    nodata = work.spec.nodata
    if work.spec.overview_resampling == "AVERAGE":
        for band in allowed:
            valid = np.flatnonzero(band & (np.arange(256) != nodata))
            if valid.size:
                band[valid[0] : valid[-1] + 1] = True
    allowed[:, nodata] = True
    return allowed


def _row_bands(height: int, width: int) -> Iterator[Window]:
    for row in range(0, height, BLOCK_PX):
        yield Window(row, 0, min(BLOCK_PX, height - row), width)


def _corrupt(target: Path, what: str) -> StorageError:
    return StorageError(f"{target} was written and read back, but {what}", READ_BACK_HINT)
