"""A class map as an ``xarray.DataArray`` that says what its values mean, in the words of the CF conventions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from geoseg_cli.catalog import Legend
from geoseg_cli.errors import UsageError
from geoseg_cli.printable import printable
from geoseg_cli.results.map_file import OwnMap, opened_map
from geoseg_cli.results.storage import storage_trouble

if TYPE_CHECKING:
    from xarray import DataArray

Chunks = int | Mapping[str, int] | Literal["auto", True]
"""What rioxarray takes: pixels, pixels along ``y`` and ``x``, ``"auto"``, or ``True`` for the map's own blocks."""

_NOT_IN_A_WORD = re.compile(r"[^A-Za-z0-9_.+@-]+")
"""CF conventions 1.11, section 3.5: what a word of flag_meanings may not hold."""

_KEPT_TAGS = ("TIFFTAG_SOFTWARE", "TIFFTAG_DATETIME", "AREA_OR_POINT")


def open_result(path: Path | str, chunks: Chunks | None = None) -> DataArray:
    """Open a class map that geoseg wrote; its pixels are read when they are used.

    What the values mean stands in the attributes as the CF conventions 1.11 want it (section 3.5): ``flag_values``
    (of the map's type) and ``flag_meanings`` (one word a class, blanks between); beside them ``flag_titles`` (one line
    a class), ``flag_colors`` (``#RRGGBB``, blanks between), ``legend``, ``_FillValue`` and the map's tags.

    Args:
        path: The map.
        chunks: Chunks of dask, as rioxarray takes them; None for no dask.

    Returns:
        (y, x) uint8 or uint16, called as the map's band is, with coordinates of pixel centres and ``spatial_ref``.
        Pixels without an answer are 255 or 65535, also called ``_FillValue``; they are not masked.

    Raises:
        InputMissingError: There is no such file.
        InputError: It is no class map of geoseg.
        UsageError: Chunks are asked for, but dask is not installed.
        AccessError, StorageError: It cannot be read.
    """
    import rioxarray

    path = Path(path).absolute()  # it may be read after the working folder has changed
    if chunks is not None and find_spec("dask") is None:
        raise UsageError("chunks need dask, which is not installed", "pip install dask, or leave chunks out")
    wanted: Any = dict(chunks) if isinstance(chunks, Mapping) else chunks  # rioxarray's types leave out "auto"
    # The second file is opened while the first one keeps GDAL from looking at what lies beside the map.
    with opened_map(path) as file, storage_trouble(path, "read"):
        own = OwnMap.of(path, file)
        opened: Any = rioxarray.open_rasterio(path, chunks=wanted, driver="GTiff")
    array: DataArray = opened.isel(band=0, drop=True).rename(own.band or "labels")
    array.attrs = attributes(own)
    if own.grid.crs is not None:
        array = array.rio.write_coordinate_system()
    return array


def attributes(own: OwnMap) -> dict[str, Any]:
    """What a map says of itself, as attributes that netCDF can hold."""
    classes = own.legend.classes
    kept = {name: text for name, text in own.tags.items() if name.startswith("GEOSEG_") or name in _KEPT_TAGS}
    return {
        "long_name": own.band.replace("_", " ") or "classes",
        "legend": own.legend.name,
        "flag_values": np.array(own.legend.values, own.legend.dtype),
        "flag_meanings": " ".join(words(own.legend)),
        "flag_titles": "\n".join(printable(one.title) for one in classes),
        "flag_colors": " ".join(one.color for one in classes),
        "_FillValue": np.array(own.legend.nodata, own.legend.dtype)[()],
        **kept,
    }


def words(legend: Legend) -> tuple[str, ...]:
    """A word for each class that the conventions allow, no two alike: its name, where that is one."""
    plain = tuple(_NOT_IN_A_WORD.sub("_", one.name) or "class" for one in legend.classes)
    if len(set(plain)) == len(plain):
        return plain
    return tuple(f"{word}_{value}" for word, value in zip(plain, legend.values, strict=True))
