"""The work raster: rows of pixels arrive top to bottom, and every full row of blocks gets its checksum."""

from __future__ import annotations

import contextlib
import math
import os
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.io import MemoryFile

from geoseg_cli.catalog import NODATA, LabelType, Legend, value_count
from geoseg_cli.errors import GridError, StorageError
from geoseg_cli.grid import Grid, Window
from geoseg_cli.results.areas import ClassCounts
from geoseg_cli.results.block_file import BLOCK_PX as BLOCK_PX
from geoseg_cli.results.block_file import BlockFile
from geoseg_cli.results.block_file import PixelArray as PixelArray
from geoseg_cli.results.storage import READ_BACK_HINT, storage_trouble
from geoseg_cli.rows import LabelArray

Palette = Mapping[int, tuple[int, int, int, int]]
OverviewResampling = Literal["NEAREST", "MODE", "AVERAGE"]

WORK_OPTIONS: Mapping[str, Any] = {
    "driver": "GTiff",
    "tiled": True,
    "blockxsize": BLOCK_PX,
    "blockysize": BLOCK_PX,
    "interleave": "band",
    "compress": "NONE",
    # The file is filled with nodata when it is made, so its disk space is taken then, not in the middle of a run.
    "sparse_ok": False,
    "bigtiff": "IF_SAFER",
    # Stated, because GDAL_NUM_THREADS would fill in otherwise: with threads a full disk raises nothing at all.
    "num_threads": 1,
}


@dataclass(frozen=True, slots=True)
class RasterSpec:
    """What a raster is, apart from its pixels.

    Attributes:
        grid: Where the pixels lie.
        bands: Number of bands.
        descriptions: One name per band, or none at all.
        nodata: Value of pixels without an answer.
        palette: Value -> (red, green, blue, alpha) of the first band, which holds classes; GeoTIFF keeps no alpha but
            nodata's, and no palette beside more than one further band.
        tags: Default-domain metadata; other domains do not survive the way into a COG.
        scale, offset: Physical value = scale x pixel + offset, the same for all bands.
        dtype: What the pixels of all bands are.
        overview_resampling: ``NEAREST`` or ``MODE`` for classes, ``AVERAGE`` for probabilities.
    """

    grid: Grid
    bands: int = 1
    descriptions: tuple[str, ...] = ()
    nodata: int = NODATA
    palette: Palette | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    scale: float = 1.0
    offset: float = 0.0
    overview_resampling: OverviewResampling = "NEAREST"
    dtype: LabelType = "uint8"

    def __post_init__(self) -> None:
        if self.descriptions and len(self.descriptions) != self.bands:
            raise ValueError(f"{len(self.descriptions)} descriptions for {self.bands} bands")
        if self.palette is not None and (self.bands > 2 or self.overview_resampling == "AVERAGE"):
            raise ValueError("a palette belongs to a band of classes, with one more at most, which cannot be averaged")

    @property
    def value_count(self) -> int:
        """How many different values a pixel can have."""
        return value_count(self.dtype)

    @property
    def block_rows(self) -> int:
        """Number of block rows, the last one perhaps lower than the others."""
        return -(-self.grid.height // BLOCK_PX)

    def block_row(self, index: int) -> Window:
        """The pixels of one block row."""
        row = index * BLOCK_PX
        return Window(row, 0, min(BLOCK_PX, self.grid.height - row), self.grid.width)

    def worst_case_bytes(self) -> int:
        """Disk space that writing can need at once if nothing compresses.

        Work raster (1, whole blocks), COG with overviews (4/3), the COG driver's own overview file (1/3), and 5 % on
        top. Cleaning needs two work rasters; a plain GeoTIFF needs no third file.
        """
        sides = (-(-side // BLOCK_PX) * BLOCK_PX for side in (self.grid.height, self.grid.width))
        return int(self._bytes_per_px * math.prod(sides) * 1.05) + self.finished_bytes()

    def finished_bytes(self) -> int:
        """What of the worst case is still to be written once the work raster is there."""
        pixels = self._bytes_per_px * self.grid.height * self.grid.width
        return int(pixels * (4 / 3 + 1 / 3) * 1.05) + 1_000_000

    @property
    def _bytes_per_px(self) -> int:
        return self.bands * np.dtype(self.dtype).itemsize


def software_tags(software: str, moment: datetime) -> dict[str, str]:
    """The tags every output carries.

    Args:
        software: Such as ``geoseg 1.0.0``.
        moment: When the output was made, with time zone.

    Returns:
        TIFFTAG_SOFTWARE, TIFFTAG_DATETIME in UTC (TIFF 6.0, section 8: colons in the date) and AREA_OR_POINT.
    """
    return {
        "TIFFTAG_SOFTWARE": software,
        "TIFFTAG_DATETIME": moment.astimezone(UTC).strftime("%Y:%m:%d %H:%M:%S"),
        "AREA_OR_POINT": "Area",
    }


def palette_of(legend: Legend) -> Palette | None:
    """The palette of a map; none in uint16, where one takes 384 KiB of every file and every overview."""
    return legend.palette() if legend.dtype == "uint8" else None


class WorkRaster:
    """A plain tiled GeoTIFF that is written once, from top to bottom; input of ``write_cog`` and ``write_geotiff``.

    In memory it holds one band of a row of blocks: O(width x 512) bytes. Pixels that were never written read as
    nodata, because a killed run must not look like a map of class 0. Not thread-safe: one thread writes.

    Attributes:
        path: The file.
        spec: What it holds.
        target: The output that error messages name.
        counts: Pixels and ground area per value of the first band, of all full rows of blocks.
        checksums: (bands, block rows) CRC-32 of the pixels handed in, row-major within a block row.
        present: (bands, V) bool, which of the V values of the type occur.
    """

    def __init__(self, path: Path, spec: RasterSpec, target: Path | None = None, *, again: bool = False) -> None:
        """Create the file, or go on with one.

        Args:
            path: The file.
            spec: What it holds.
            target: The output that error messages name; None for the file itself.
            again: Whether the file is there, left by a process that was killed; ``restore`` then takes its rows.

        Raises:
            GridError: The CRS cannot be stored in a GeoTIFF.
            AccessError, StorageError: The file cannot be created, or is none of ours.
        """
        self.path, self.spec, self.target = path.absolute(), spec, target or path
        self.counts = ClassCounts(spec.grid, spec.dtype)
        self.checksums: npt.NDArray[np.uint32] = np.zeros((spec.bands, spec.block_rows), np.uint32)
        self.present: npt.NDArray[np.bool_] = np.zeros((spec.bands, spec.value_count), bool)
        # Areas are sums of float64: made of whole rows of blocks, they do not depend on how rows arrive.
        self._labels: LabelArray = np.empty((BLOCK_PX, spec.grid.width), spec.dtype)
        self._rows = 0
        self._tags: dict[str, str] = {}
        _check_crs_fits(spec.grid, self.target)
        with storage_trouble(self.target):
            if not again:
                _create(self.path, spec)
            self._file = BlockFile(self.path)
            shape = spec.bands, spec.grid.height, spec.grid.width
            if self._file.shape != shape or self._file.dtype != np.dtype(spec.dtype):
                raise StorageError(f"{self.target}: its work file is of another shape or type", READ_BACK_HINT)

    @property
    def rows(self) -> int:
        """How many rows have been handed in."""
        return self._rows

    @property
    def is_complete(self) -> bool:
        """Whether every row has been handed in."""
        return self._rows == self.spec.grid.height

    def write(self, row: int, pixels: PixelArray) -> None:
        """Take the next rows; once this returns they outlive the process, though not the machine.

        Args:
            row: Row of the grid that ``pixels[:, 0]`` is; it must be the one after the last row so far.
            pixels: (B,h,W) of the raster's type, any h.

        Raises:
            ValueError: Rows are missing or come twice, or the array does not fit the raster: a mistake of ours.
            AccessError, StorageError: The disk does not take them.
        """
        self._check(row, pixels)
        with storage_trouble(self.target):
            self._file.write(row, pixels)
        self._count(pixels)

    def stored(self, row: int, height: int) -> PixelArray:
        """(B,h,W) pixels that the file holds in these rows.

        Raises:
            AccessError, StorageError: It cannot be read.
        """
        with storage_trouble(self.target, "read back"):
            return self._file.read(row, height)

    def restore(self, row: int, pixels: PixelArray) -> None:
        """As ``write`` for rows that the file holds already."""
        self._check(row, pixels)
        self._count(pixels)

    def sync(self) -> None:
        """Wait until the rows so far would outlive a loss of power."""
        with storage_trouble(self.target):
            os.fsync(self._file.fileno())

    def add_tags(self, tags: Mapping[str, str]) -> None:
        """Add metadata that is known only after the pixels."""
        self._tags.update(tags)

    def close(self) -> None:
        """Finish the file.

        Raises:
            RuntimeError: Rows are missing: a mistake of ours.
            AccessError, StorageError: The disk does not take the metadata.
        """
        self.abandon()
        if not self.is_complete:
            raise RuntimeError(f"{self.path}: {self._rows} of {self.spec.grid.height} rows were written")
        tags = {**self.spec.tags, **self._tags}
        alone = rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR")
        with storage_trouble(self.target), alone, rasterio.open(self.path, "r+", driver="GTiff") as file:
            # All of them: a run that goes on with this file may have another time stamp than the one that made it.
            file.update_tags(**tags)

    def strips(self) -> Iterator[tuple[int, LabelArray]]:
        """Rows of the first band of the closed file, a block row at a time, compared with what was handed in.

        Yields:
            First row, and (h, W) labels.

        Raises:
            StorageError: The file cannot be read, or gives back other pixels.
        """
        with storage_trouble(self.target, "read back"):
            # The environment ends before the first row is given: several readers may be under way.
            with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"):
                file = rasterio.open(self.path, driver="GTiff")
            with file:
                for index in range(self.spec.block_rows):
                    window = self.spec.block_row(index)
                    labels: LabelArray = file.read(1, window=window.to_rasterio())
                    if zlib.crc32(labels.data) != self.checksums[0, index]:
                        rows = f"rows {window.row} to {window.row_stop - 1}"
                        raise StorageError(
                            f"{self.target}: {rows} of its work file came back with other pixels", READ_BACK_HINT
                        )
                    yield window.row, labels

    def abandon(self) -> None:
        """Close the file as it is."""
        with contextlib.suppress(Exception):  # the trouble that led here is the one to report
            self._file.close()

    def __enter__(self) -> WorkRaster:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abandon()

    def _check(self, row: int, pixels: PixelArray) -> None:
        if row != self._rows:
            raise ValueError(f"row {row} handed in where row {self._rows} is the next one")
        bands, height, width = pixels.shape
        if (bands, width) != (self.spec.bands, self.spec.grid.width):
            raise ValueError(f"{bands} bands x {width} columns do not fit {self.spec.bands} x {self.spec.grid.width}")
        if row + height > self.spec.grid.height:
            raise ValueError(f"rows {row} to {row + height} end below row {self.spec.grid.height}")
        if pixels.dtype != self.spec.dtype:
            # GDAL would wrap 300 to 44 without a word.
            raise ValueError(f"pixels are {pixels.dtype}, not {self.spec.dtype}")

    def _count(self, pixels: PixelArray) -> None:
        done, height = 0, pixels.shape[1]
        while done < height:
            index, filled = divmod(self._rows, BLOCK_PX)
            taken = min(BLOCK_PX - filled, height - done)
            block = pixels[:, done : done + taken]
            for band, plane in enumerate(block):
                self.checksums[band, index] = zlib.crc32(
                    np.ascontiguousarray(plane).data, int(self.checksums[band, index])
                )
                if band:
                    self.present[band] |= _values_in(plane, self.spec.value_count)
            self._labels[filled : filled + taken] = block[0]
            self._rows += taken
            done += taken
            if self._rows % BLOCK_PX == 0 or self.is_complete:
                window = self.spec.block_row(index)
                self.counts.add(window.row, self._labels[: window.height])
                self.present[0] = self.counts.pixels > 0


def _values_in(plane: PixelArray, count: int) -> npt.NDArray[np.bool_]:
    found = np.zeros(count, bool)
    for line in plane:  # row by row: indexing converts to int64, eight times the memory
        found[line] = True
    return found


def _create(path: Path, spec: RasterSpec) -> None:
    # Stated, because GDAL takes three bands of bytes for colours and a fourth for their transparency.
    colors = {"photometric": "MINISBLACK", "alpha": "NO"} if spec.bands > 1 and not spec.palette else {}
    options = {**spec.grid.profile(), **WORK_OPTIONS, **colors}
    with rasterio.open(path, "w", count=spec.bands, dtype=spec.dtype, nodata=spec.nodata, **options) as file:
        _describe(file, spec)


def _describe(file: Any, spec: RasterSpec) -> None:
    """Everything about the raster is said before its pixels: a COG takes nothing more afterwards."""
    file.update_tags(**spec.tags)
    if spec.palette is not None:
        file.write_colormap(1, dict(spec.palette))
    for band, description in enumerate(spec.descriptions, start=1):
        file.set_band_description(band, description)
    if (spec.scale, spec.offset) != (1.0, 0.0):
        file.scales = (spec.scale,) * spec.bands
        file.offsets = (spec.offset,) * spec.bands


def _check_crs_fits(grid: Grid, target: Path) -> None:
    """Try the CRS on a single pixel: better refused now than lost after hours of work."""
    if grid.crs is None:
        return
    profile = {**grid.profile(), "height": 1, "width": 1}
    with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"), MemoryFile() as memory:
        with memory.open(driver="GTiff", count=1, dtype="uint8", **profile):
            pass
        with memory.open() as probe:
            if probe.crs == grid.crs:
                return
    raise GridError(
        f"{target}: a GeoTIFF cannot hold the input's coordinate reference system ({grid.crs.to_string()[:60]})",
        "warp the input to a CRS with an EPSG code first, e.g. gdalwarp -t_srs EPSG:4326",
    )
