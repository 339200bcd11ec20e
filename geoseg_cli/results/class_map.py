"""A finished class map, opened to be read in strips."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.errors import RasterioIOError

from geoseg_cli.catalog import LabelType, LandClass, Legend, legends, usual_nodata, value_count
from geoseg_cli.errors import InputError, InputMissingError, ModelError, UsageError
from geoseg_cli.grid import Grid, Window
from geoseg_cli.printable import counted
from geoseg_cli.results.components import Strip
from geoseg_cli.results.description import COUNTS_TAG
from geoseg_cli.results.storage import storage_trouble
from geoseg_cli.rows import LabelArray

STRIP_PX = 512
"""Rows that are read at a time: those of a block of the maps that geoseg writes."""


@dataclass(frozen=True, slots=True)
class LabelRaster:
    """A GeoTIFF with one band of uint8 or uint16; a composite's count of observations beside it is left alone.

    Attributes:
        path: The file.
        grid: Where its pixels lie.
        nodata: Value of pixels without an answer; None where the file names none.
        scale: Meaning of one step of a value.
        tags: Its default-domain metadata.
        dtype: What its pixels are.
        band: Description of its band; empty where it has none.
    """

    path: Path
    grid: Grid
    nodata: int | None
    scale: float
    tags: Mapping[str, str]
    dtype: LabelType
    band: str = ""

    @classmethod
    def open(cls, path: Path) -> LabelRaster:
        """Look at a file.

        Raises:
            InputMissingError: There is no such file.
            InputError: It is no GeoTIFF, or has other than one band of uint8 or uint16.
        """
        if not path.is_file():
            raise InputMissingError(f"there is no file {path}", "give the path of a map that geoseg wrote")
        try:
            with _opened(path) as file:
                nodata = None if file.nodata is None else int(file.nodata)
                shape, grid = (file.count, *file.dtypes), Grid(file.crs, file.transform, file.height, file.width)
                scale, tags, bands = file.scales[0], file.tags(), file.descriptions
        except RasterioIOError as error:
            raise InputError(f"{path} cannot be read as a GeoTIFF: {error}", "give a map that geoseg wrote") from error
        is_composite = shape == (2, "uint8", "uint8") and COUNTS_TAG in tags
        if shape not in ((1, "uint8"), (1, "uint16")) and not is_composite:
            raise InputError(
                f"{path} has {counted(shape[0], 'band')} of {shape[1]}, not one of uint8 or uint16",
                "give a map of classes",
            )
        return cls(path, grid, nodata, scale, tags, shape[1], bands[0] or "")

    def strips(self) -> Iterator[Strip]:
        """Its rows from top to bottom.

        Raises:
            AccessError, StorageError: The file cannot be read.
        """
        with storage_trouble(self.path, "read"), _opened(self.path) as file:
            for row in range(0, self.grid.height, STRIP_PX):
                window = Window(row, 0, min(STRIP_PX, self.grid.height - row), self.grid.width)
                yield row, file.read(1, window=window.to_rasterio())


@dataclass(frozen=True, slots=True)
class ClassMap:
    """A raster of classes and what they mean.

    Attributes:
        raster: The file.
        legend: Its classes.
    """

    raster: LabelRaster
    legend: Legend

    @classmethod
    def open(cls, path: Path, legend: str | None = None) -> ClassMap:
        """Open a map.

        Args:
            path: The file.
            legend: Name of the legend for a file that does not tell its classes itself; None for one that does.

        Raises:
            InputMissingError: There is no such file.
            InputError: It is no map of classes, or does not tell which.
            UsageError: There is no such legend.
        """
        raster = LabelRaster.open(path)
        if legend is not None:
            if legend not in legends():
                raise UsageError(f"there is no legend {legend!r}", f"use one of {', '.join(legends())}")
            return cls(raster, legends()[legend])
        return cls(raster, _legend_in(raster))

    def strips(self) -> Iterator[Strip]:
        """Its rows from top to bottom; pixels without an answer have the legend's nodata.

        Raises:
            InputError: A value is no class of the legend.
            AccessError, StorageError: The file cannot be read.
        """
        # Classes of uint16 in a file of uint8 are those that it cannot hold, and the other way round.
        lookup = np.zeros(max(value_count(self.raster.dtype), self.legend.value_count), bool)
        lookup[[*self.legend.values, self.legend.nodata]] = True
        file_nodata = self.raster.nodata
        for row, values in self.raster.strips():
            labels: LabelArray = values
            if file_nodata is not None and file_nodata not in self.legend.values:
                labels = np.where(values == file_nodata, np.array(self.legend.nodata, self.legend.dtype), values)
            self._refuse_unknown(labels, lookup)
            yield row, labels.astype(self.legend.dtype, copy=False)

    def _refuse_unknown(self, labels: LabelArray, known: npt.NDArray[np.bool_]) -> None:
        if not known[labels].all():
            values = sorted({int(value) for value in np.unique(labels[~known[labels]])})
            raise InputError(
                f"{self.raster.path}: {', '.join(map(str, values[:5]))} is no class of {self.legend.name}",
                "name the legend that the map was made with, or use a map that geoseg wrote",
            )


def _opened(path: Path) -> Any:
    # Without a look at the folder: sidecars must not decide what the classes are.
    with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"):
        return rasterio.open(path.absolute(), driver="GTiff")


def _legend_in(raster: LabelRaster) -> Legend:
    """The legend that geoseg writes into its maps."""
    try:
        rows = json.loads(raster.tags["GEOSEG_CLASSES"])
        classes = tuple(
            LandClass(int(row["value"]), str(row["name"]), str(row["title"]), f"#{row['color_hint']}") for row in rows
        )
        nodata = usual_nodata(one.value for one in classes) if raster.nodata is None else raster.nodata
        return Legend(raster.tags.get("GEOSEG_LEGEND", "of the map"), classes, nodata)
    except (KeyError, TypeError, ValueError, RecursionError, ModelError) as error:
        raise InputError(
            f"{raster.path} does not say what its classes are", f"name its legend, one of {', '.join(legends())}"
        ) from error
