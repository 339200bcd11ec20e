"""A class map of geoseg, opened alone: is it one, and what does it say of itself?"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rasterio

from geoseg_cli.catalog import Legend
from geoseg_cli.errors import GeosegError, InputError, InputMissingError
from geoseg_cli.grid import Grid
from geoseg_cli.results.description import PIXELS_TAG, legend_from_tags
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


@contextmanager
def opened_map(path: Path) -> Iterator[tuple[Any, OwnMap]]:
    """Open a class map without what lies beside it.

    Args:
        path: The map.

    Yields:
        The open rasterio file, and what it says of itself.

    Raises:
        InputMissingError: There is no such file.
        InputError: It is no class map of geoseg.
        AccessError, StorageError: It cannot be read.
    """
    if not os.path.isfile(path):
        raise InputMissingError(f"{path}: there is no such file", "check the path")
    # GDAL believes files beside a map more than the map itself.
    with storage_trouble(path, "read"), rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"):
        with open(path, "rb") as start:
            if start.read(4) not in _TIFF_MAGIC:
                raise _not_ours(path, "it is no TIFF")
        with rasterio.open(path.absolute(), driver="GTiff") as file:
            yield file, _own_map(path, file)


def _own_map(path: Path, file: Any) -> OwnMap:
    tags = file.tags()
    if PIXELS_TAG not in tags:
        raise _not_ours(path, f"it has no tag {PIXELS_TAG}")
    if file.dtypes != ("uint8",) or file.nodata is None or not 0 <= file.nodata <= 255:
        raise _not_ours(path, "it is not one band of uint8 with a nodata number")
    try:
        legend = legend_from_tags(tags, int(file.nodata))
    except GeosegError as error:
        raise _not_ours(path, error.message) from error
    if legend is None:
        raise _not_ours(path, "its tags hold no classes")
    grid = Grid(file.crs, file.transform, file.height, file.width)
    return OwnMap(grid, legend, file.descriptions[0] or "", tags)


def _not_ours(path: Path, why: str) -> InputError:
    return InputError(f"{path} is no class map of geoseg: {why}", "give a map that geoseg classify or cloudmask wrote")
