"""Batches of polygons with attributes -> GeoParquet 1.1 (geoparquet.org), written as they come.

pyarrow writes the file; the few lines of metadata that make it GeoParquet stand here, because GDAL's packages on PyPI
have no Parquet and the libraries that do want the whole table at once. Memory is that of one group of rows.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt
import pyproj
import shapely

from geoseg_cli.errors import StorageError, UsageError
from geoseg_cli.grid import Grid
from geoseg_cli.results.storage import READ_BACK_HINT, storage_trouble

Columns = Mapping[str, npt.NDArray[Any]]

GEOMETRY = "geometry"
GROUP_FEATURES = 20_000
"""Polygons that are read or written at once."""


class ParquetWriter:
    """Takes batches of features and makes one GeoParquet file of them; used as ``vector_file.VectorWriter``.

    Attributes:
        features, points: Features and their vertices so far.
    """

    def __init__(self, out: Path, target: Path, grid: Grid) -> None:
        """Plan.

        Args:
            out: The new file.
            target: The output that error messages name.
            grid: Whose CRS the coordinates are in.
        """
        self._out, self._target, self._grid = out, target, grid
        self._waiting: list[Any] = []
        self._file: Any = None
        self.features = 0
        self.points = 0

    def write(self, polygons: npt.NDArray[Any], columns: Columns) -> None:
        """Append features.

        Args:
            polygons: (N,) shapely polygons in the grid's CRS.
            columns: Name to (N,) values, the same names in every batch.

        Raises:
            AccessError, StorageError: The disk does not take them.
        """
        arrow = arrow_module("pyarrow")
        parts = {name: arrow.array(values) for name, values in columns.items() if values.dtype != object}
        parts |= {name: arrow.array(columns[name], arrow.string()) for name in columns if name not in parts}
        arrays = [parts[name] for name in columns] + [arrow.array(shapely.to_wkb(polygons), arrow.binary())]
        self._waiting.append(arrow.table(arrays, [*columns, GEOMETRY]))
        self.features += len(polygons)
        self.points += int(shapely.get_num_coordinates(polygons).sum())
        if sum(len(table) for table in self._waiting) >= GROUP_FEATURES:
            self._flush()

    def finish(self, metadata: Mapping[str, str]) -> None:
        """Make the file.

        Args:
            metadata: Kept in the file's own metadata.

        Raises:
            AccessError, StorageError: The disk does not take it.
        """
        self._flush()
        with storage_trouble(self._target):
            self._file.add_key_value_metadata(dict(metadata))
            self._file.close()

    def read_back(self, names: Sequence[str]) -> Iterator[tuple[npt.NDArray[Any], dict[str, npt.NDArray[Any]]]]:
        """Batches of polygons and columns from the finished file.

        Raises:
            StorageError: The file has another number of features, or cannot be read.
        """
        seen, arrow = 0, arrow_module("pyarrow.parquet")
        with storage_trouble(self._target, "read back"), arrow.ParquetFile(self._out) as file:
            for batch in file.iter_batches(GROUP_FEATURES, columns=[*names, GEOMETRY]):
                seen += len(batch)
                columns = {name: batch.column(name).to_numpy(zero_copy_only=False) for name in names}
                yield shapely.from_wkb(batch.column(GEOMETRY).to_numpy(zero_copy_only=False)), columns
        if seen != self.features:
            raise StorageError(
                f"{self._target}: {self.features} features were written, {seen} came back", READ_BACK_HINT
            )

    def _flush(self) -> None:
        table = arrow_module("pyarrow").concat_tables(self._waiting)
        self._waiting = [table.slice(len(table))]  # of no rows: it keeps the names and types
        with storage_trouble(self._target):
            if self._file is None:
                schema = table.schema.with_metadata({"geo": json.dumps(_geo(self._grid))})
                self._file = arrow_module("pyarrow.parquet").ParquetWriter(self._out, schema, compression="zstd")
            elif not len(table):
                return
            self._file.write_table(table.cast(self._file.schema))


def arrow_module(name: str) -> Any:
    """A module of pyarrow.

    Raises:
        UsageError: It is not installed.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise UsageError(
            "GeoParquet is written with pyarrow, which is not installed", "pip install 'geoseg[vector]'"
        ) from error


def _geo(grid: Grid) -> dict[str, Any]:
    """What GeoParquet 1.1 wants a file to say of its geometry; a CRS of null is one that nobody knows."""
    crs = None if grid.crs is None else pyproj.CRS.from_wkt(grid.crs.to_wkt()).to_json_dict()
    column = {"encoding": "WKB", "geometry_types": ["Polygon"], "crs": crs, "orientation": "counterclockwise"}
    return {"version": "1.1.0", "primary_column": GEOMETRY, "columns": {GEOMETRY: column}}
