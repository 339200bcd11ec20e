"""Opens a class map that geoseg wrote, and reads what it says of itself."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rasterio
from rasterio.errors import NotGeoreferencedWarning

from geoseg_cli.catalog import Legend
from geoseg_cli.errors import GeosegError, InputError, InputMissingError
from geoseg_cli.grid import Grid, Window
from geoseg_cli.results.areas import ClassCounts, class_areas
from geoseg_cli.results.description import COUNTS_TAG, PIXELS_TAG, MapDescription, legend_from_tags
from geoseg_cli.results.raster import BLOCK_PX
from geoseg_cli.results.storage import storage_trouble

_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


@dataclass(frozen=True, slots=True)
class OwnMap:
    """What a class map says of itself, before a pixel is read.

    Attributes:
        grid: Where its pixels lie.
        legend: Its classes.
        band: Description of its band.
        tags: Its tags.
    """

    grid: Grid
    legend: Legend
    band: str
    tags: Mapping[str, str]

    @classmethod
    def of(cls, path: Path, file: Any) -> OwnMap:
        """Ask an open map.

        Raises:
            InputError: It is no class map of geoseg.
        """
        return cls(map_grid(file), map_legend(path, file), file.descriptions[0] or "", file.tags())


def refuse_folder(path: Path) -> None:
    """Refuse a folder where a map is wanted.

    Raises:
        InputError: It is one.
    """
    if os.path.isdir(path):
        raise InputError(f"{path} is a folder, not a map", f"name the maps in it: {path / '*.tif'}")


@contextmanager
def opened_map(path: Path) -> Iterator[Any]:
    """The file as a rasterio dataset, and nothing that lies beside it.

    Raises:
        InputMissingError: There is no such file.
        InputError: It is no TIFF, or a folder.
        AccessError, StorageError: It cannot be read; raised for what is read in the ``with`` block too.
    """
    refuse_folder(path)
    if not os.path.isfile(path):
        raise InputMissingError(f"{path}: there is no such file", "check the path")
    with storage_trouble(path, "read"):
        with open(path, "rb") as start:
            if start.read(4) not in _TIFF_MAGIC:
                raise _not_ours(path, "it is no TIFF")
        with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"), _opened(path) as file:
            yield file


def _opened(path: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # a map of a scene without a place on Earth
        return rasterio.open(path.absolute(), driver="GTiff")


def map_legend(path: Path, file: Any) -> Legend:
    """The classes of an open map.

    Raises:
        InputError: It is no class map of geoseg.
    """
    if PIXELS_TAG not in file.tags():
        raise _not_ours(path, f"it has no tag {PIXELS_TAG}")
    bands = 2 if COUNTS_TAG in file.tags() else 1
    if file.dtypes not in (("uint8",) * bands, ("uint16",)) or file.nodata is None or not 0 <= file.nodata <= 65_535:
        raise _not_ours(path, "it does not hold classes as uint8 or uint16 with a nodata number")
    try:
        legend = legend_from_tags(file.tags(), int(file.nodata))
    except GeosegError as error:
        raise _not_ours(path, error.message) from error
    if legend is None:
        raise _not_ours(path, "its tags hold no classes")
    if legend.dtype != file.dtypes[0]:
        raise _not_ours(path, f"its pixels are {file.dtypes[0]}, its classes {legend.dtype}")
    return legend


def map_grid(file: Any) -> Grid:
    """Where the pixels of an open map lie."""
    return Grid(file.crs, file.transform, file.height, file.width)


def read_map(path: Path, file: Any) -> tuple[MapDescription, ClassCounts, str]:
    """What an open map says of itself, what its pixels are, and their SHA-256.

    Raises:
        InputError: It is no class map of geoseg.
    """
    legend, grid = map_legend(path, file), map_grid(file)
    counts, digest = ClassCounts(grid, legend.dtype), hashlib.sha256()
    for window in row_windows(grid.height, grid.width):
        labels = file.read(1, window=window.to_rasterio())
        digest.update(labels.tobytes())
        counts.add(window.row, labels)
    band = file.descriptions[0] or ""
    description = MapDescription(path.name, grid, legend, band, file.tags(), class_areas(counts, legend))
    return description, counts, digest.hexdigest()


def row_windows(height: int, width: int) -> Iterator[Window]:
    """A raster from top to bottom, a row of blocks at a time."""
    for row in range(0, height, BLOCK_PX):
        yield Window(row, 0, min(BLOCK_PX, height - row), width)


def _not_ours(path: Path, why: str) -> InputError:
    return InputError(f"{path} is no class map of geoseg: {why}", "give a map that geoseg classify or cloudmask wrote")
