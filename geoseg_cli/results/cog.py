"""Work raster -> cloud-optimized GeoTIFF, which is read back block by block before anybody else sees it."""

from __future__ import annotations

import difflib
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
import rasterio.shutil

from geoseg_cli.errors import StorageError, UsageError
from geoseg_cli.grid import Grid, Window
from geoseg_cli.results.raster import BLOCK_PX, RasterSpec, WorkRaster
from geoseg_cli.results.storage import READ_BACK_HINT, storage_trouble

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

LOSSLESS = ("NONE", "LZW", "DEFLATE", "ZSTD", "LZMA", "LERC", "LERC_DEFLATE", "LERC_ZSTD")
PREDICTORS = ("YES", "NO", "STANDARD")

BLOCK_SIDES_PX = (BLOCK_PX, 256, 384, 320, 448, 192)
"""Sides of the COG's blocks, the best first; see ``_block_side``."""

FREE_OPTIONS: Mapping[str, tuple[str, ...]] = {
    "BLOCKSIZE": (),
    "COMPRESS": LOSSLESS,
    "LEVEL": (),
    "PREDICTOR": PREDICTORS,
    "NUM_THREADS": (),
    "BIGTIFF": ("YES", "NO", "IF_NEEDED", "IF_SAFER"),
    "GEOTIFF_VERSION": ("AUTO", "1.0", "1.1"),
    "INTERLEAVE": ("BAND", "PIXEL"),
    "OVERVIEW_COMPRESS": ("AUTO", *LOSSLESS),
    "OVERVIEW_PREDICTOR": PREDICTORS,
    # Wider kernels invent classes.
    "OVERVIEW_RESAMPLING": ("NEAREST", "MODE"),
    "STATISTICS": ("AUTO", "YES", "NO"),
}
"""Options of the COG driver that cannot change a pixel or the grid (GDAL manual, drivers/raster/cog), and the
values they may take; () leaves that to GDAL."""


NUMBERS: Mapping[str, tuple[int, int, int]] = {
    "BLOCKSIZE": (128, 4096, 16),
    "LEVEL": (1, 22, 1),
    "NUM_THREADS": (1, 256, 1),
}
"""Option -> least and greatest value, and what it must be a multiple of (TIFF 6.0: sides of tiles, 16)."""


def check_creation_options(options: Mapping[str, str]) -> None:
    """Refuse options that ``write_cog`` would refuse, before any work is done.

    Args:
        options: NAME -> VALUE; case does not matter.

    Raises:
        UsageError: A name is unknown, or a value would change pixels, grid or layout.
    """
    for name, value in options.items():
        _check_option(name.upper(), value)


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
        "BLOCKSIZE": str(_block_side(work.spec.grid)),
        "OVERVIEW_RESAMPLING": work.spec.overview_resampling,
    }
    chosen |= {name.upper(): value for name, value in options.items()}
    if not _can_have_overviews(work.spec.grid):
        chosen["OVERVIEWS"] = "NONE"
    with storage_trouble(work.target):
        rasterio.shutil.copy(work.path, out.absolute(), driver="COG", **chosen)
    check_cog(out, work)


def _block_side(grid: Grid) -> int:
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
    # Without a look at the folder: the file alone must say everything, sidecars do not travel with it.
    with storage_trouble(work.target, "read back"), rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"):
        with rasterio.open(path.absolute(), driver="GTiff") as file:
            _check_structure(file, work)
            _check_pixels(file, work)
            levels = len(file.overviews(1))
        for level in range(levels):
            with rasterio.open(path.absolute(), driver="GTiff", overview_level=level) as overview:
                _check_overview(overview, work)


def _check_option(name: str, value: str) -> None:
    if name not in FREE_OPTIONS:
        near = difflib.get_close_matches(name, FREE_OPTIONS, 1)
        did_you_mean = f"; did you mean {near[0]}?" if near else ""
        raise UsageError(
            f"--co {name}={value}: {name} is not an option that can be set here{did_you_mean}",
            f"use one of {', '.join(sorted(FREE_OPTIONS))}",
        )
    if name in NUMBERS and value.upper() not in ("ALL_CPUS",) * (name == "NUM_THREADS"):
        low, high, step = NUMBERS[name]
        if not (value.isascii() and value.isdigit() and low <= int(value[:9]) <= high and int(value[:9]) % step == 0):
            multiple = f" that is a multiple of {step}" if step > 1 else ""
            raise UsageError(
                f"--co {name}={value}: {value} cannot be used", f"use a number from {low} to {high}{multiple}"
            )
    allowed = FREE_OPTIONS[name]
    if allowed and value.upper() not in allowed:
        raise UsageError(
            f"--co {name}={value}: {value} is unknown or would change pixels", f"use one of {', '.join(allowed)}"
        )


def _can_have_overviews(grid: Grid) -> bool:
    """Readers take the decimation from the widths: overviews of a single column would look like full size."""
    return grid.width > 1


def _check_structure(file: Any, work: WorkRaster) -> None:
    spec = work.spec
    needs_overviews = max(file.shape) > max(BLOCK_PX, *file.block_shapes[0]) and _can_have_overviews(spec.grid)
    findings = {
        "layout": file.tags(ns="IMAGE_STRUCTURE").get("LAYOUT") == "COG",
        "grid": Grid(file.crs, file.transform, file.height, file.width) == spec.grid,
        "bands": file.dtypes == ("uint8",) * spec.bands,
        "nodata": file.nodatavals == (spec.nodata,) * spec.bands,
        "scale": (file.scales, file.offsets) == ((spec.scale,) * spec.bands, (spec.offset,) * spec.bands),
        "descriptions": not spec.descriptions or file.descriptions == spec.descriptions,
        "palette": spec.palette is None or _has_colors(file, spec),
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
