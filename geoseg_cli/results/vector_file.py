"""Batches of polygons with attributes -> GeoPackage, FlatGeobuf, GeoJSON or, by ``parquet_file``, GeoParquet.

Features are gathered in a plain GeoPackage and copied into the file that was asked for by GDAL, which streams them:
memory is O(batch), but for FlatGeobuf, whose driver keeps some 40 bytes per feature for the index.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy.typing as npt
import shapely

from geoseg_cli.errors import GridError, StorageError, UsageError
from geoseg_cli.grid import Grid
from geoseg_cli.results.commit import OutputTransaction
from geoseg_cli.results.parquet_file import Columns, ParquetWriter, arrow_module
from geoseg_cli.results.storage import READ_BACK_HINT, storage_trouble

LAYER, PARQUET = "polygons", "Parquet"
BATCH_FEATURES = 50_000
_DATE_OPTION = "OGR_CURRENT_DATE"


@dataclass(frozen=True, slots=True)
class VectorFormat:
    """A format of vector files.

    Attributes:
        driver: GDAL's name.
        layer_options: GDAL's layer creation options.
        media_type: What a catalogue calls it.
        is_lon_lat: Whether its coordinates are always longitude and latitude.
        dataset_options: GDAL's dataset creation options.
    """

    driver: str
    layer_options: Mapping[str, str]
    media_type: str
    is_lon_lat: bool = False
    dataset_options: Mapping[str, str] = field(default_factory=dict)


FORMATS: Mapping[str, VectorFormat] = {
    # GDAL before 3.7 warns of versions after 1.3.
    ".gpkg": VectorFormat("GPKG", {}, "application/geopackage+sqlite3", dataset_options={"VERSION": "1.3"}),
    ".fgb": VectorFormat("FlatGeobuf", {}, "application/vnd.flatgeobuf"),
    ".parquet": VectorFormat(PARQUET, {}, "application/vnd.apache.parquet"),
    # RFC 7946: WGS 84, seven decimals, split at the antimeridian, outer rings counter-clockwise.
    ".geojson": VectorFormat("GeoJSON", {"RFC7946": "YES"}, "application/geo+json", is_lon_lat=True),
}


def format_of(out: Path, grid: Grid) -> VectorFormat:
    """The format that a file's name asks for; everything that can be refused before work starts is.

    Raises:
        UsageError: The name has another ending, or the package that writes vector files is not installed.
        GridError: The format needs a place on Earth, and the map has none.
    """
    ending = out.suffix.lower()
    if ending not in FORMATS:
        raise UsageError(f"{out} is none of {', '.join(FORMATS)}", "give the file one of these endings")
    if FORMATS[ending].driver == PARQUET:
        arrow_module("pyarrow.parquet")
    else:
        _pyogrio()
    if FORMATS[ending].is_lon_lat and (grid.crs is None or not (grid.crs.is_geographic or grid.crs.is_projected)):
        raise GridError(f"{out}: GeoJSON is in longitude and latitude, and the map has no CRS", "write .gpkg or .fgb")
    return FORMATS[ending]


def media_type_of(out: Path) -> str:
    """What a catalogue calls a file of a known ending."""
    return FORMATS[out.suffix.lower()].media_type


def vector_writer(
    transaction: OutputTransaction, out: Path, form: VectorFormat, grid: Grid, tags: Mapping[str, str]
) -> Writer:
    """What makes a file of a format where the transaction will publish it as ``out``, of a map with these tags."""
    if form.driver == PARQUET:
        return ParquetWriter(transaction.path(out), out, grid)
    return VectorWriter(transaction.scratch("gathered.gpkg"), transaction.path(out), out, form, grid, _date(tags))


class VectorWriter:
    """Takes batches of features and makes one file of them.

    Attributes:
        features, points: Features and their vertices so far.
    """

    def __init__(
        self, scratch: Path, out: Path, target: Path, form: VectorFormat, grid: Grid, date: str | None = None
    ) -> None:
        """Plan.

        Args:
            scratch: Where features are gathered; a new file that ends with .gpkg.
            out: The new file.
            target: The output that error messages name.
            form: What ``out`` is.
            grid: Whose CRS the coordinates are in.
            date: What a GeoPackage says of when it was changed; None for now.
        """
        self._scratch, self._out, self._target, self._form, self._date = scratch, out, target, form, date
        self._crs = None if grid.crs is None else grid.crs.to_wkt()
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
        with self._trouble():
            _pyogrio().write(
                self._scratch,
                shapely.to_wkb(polygons),
                list(columns.values()),
                list(columns),
                layer=LAYER,
                driver="GPKG",
                geometry_type="Polygon",
                crs=self._crs,
                append=self.features > 0,
                layer_options={} if self.features else {"SPATIAL_INDEX": "NO"},
            )
        self.features += len(polygons)
        self.points += int(shapely.get_num_coordinates(polygons).sum())

    def finish(self, metadata: Mapping[str, str]) -> None:
        """Make the file.

        Args:
            metadata: Kept by a GeoPackage with its layer; other formats have no place for it.

        Raises:
            AccessError, StorageError: The disk does not take it.
        """
        raw = _pyogrio()
        with (
            self._trouble(),
            self._dated(),
            raw.open_arrow(self._scratch, layer=LAYER, use_pyarrow=False) as (_, stream),
        ):
            raw.write_arrow(
                stream,
                self._out,
                layer=LAYER,
                driver=self._form.driver,
                geometry_type="Unknown" if self._form.is_lon_lat else "Polygon",
                geometry_name="geom",
                crs=self._crs,
                layer_options=dict(self._form.layer_options),
                dataset_options=dict(self._form.dataset_options),
                layer_metadata=dict(metadata) if self._form.driver == "GPKG" else None,
            )
        self._scratch.unlink()

    def read_back(self, names: Sequence[str]) -> Iterator[tuple[npt.NDArray[Any], dict[str, npt.NDArray[Any]]]]:
        """Batches of polygons and columns from the finished file.

        Raises:
            StorageError: The file has another number of features, or cannot be read.
        """
        raw, seen = _pyogrio(), 0
        with self._trouble("read back"):
            while seen < self.features:
                window = {"skip_features": seen, "max_features": BATCH_FEATURES}
                meta, _, geometry, data = raw.read(self._out, columns=list(names), **window)
                if not len(geometry):
                    break
                seen += len(geometry)
                yield shapely.from_wkb(geometry), dict(zip(meta["fields"], data, strict=True))
            extra = raw.read(self._out, read_geometry=False, skip_features=seen, max_features=1)[3]
        if seen != self.features or (len(extra) and len(extra[0])):  # GeoJSON without features has no fields
            raise StorageError(
                f"{self._target}: {self.features} features were written, {seen} came back", READ_BACK_HINT
            )

    @contextmanager
    def _dated(self) -> Iterator[None]:
        """GDAL dates a GeoPackage by its clock; by the map's own date the same map gives the same bytes."""
        package = importlib.import_module("pyogrio")
        package.set_gdal_config_options({_DATE_OPTION: self._date})
        try:
            yield
        finally:
            package.set_gdal_config_options({_DATE_OPTION: None})

    @contextmanager
    def _trouble(self, doing: Any = "write") -> Iterator[None]:
        """Errors of pyogrio are RuntimeErrors of its own."""
        with storage_trouble(self._target, doing), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="'crs' was not provided")
            try:
                yield
            except RuntimeError as error:
                if not type(error).__module__.startswith("pyogrio"):
                    raise
                raise OSError(str(error)) from error


def _pyogrio() -> Any:
    """pyogrio's functions on arrays.

    Raises:
        UsageError: It is not installed.
    """
    try:
        return importlib.import_module("pyogrio.raw")
    except ModuleNotFoundError as error:
        raise UsageError(
            "vector files are written with pyogrio, which is not installed", "pip install 'geoseg[vector]'"
        ) from error


def _date(tags: Mapping[str, str]) -> str | None:
    """When a map was made, as a GeoPackage says it; None where its tags do not tell."""
    try:
        made = datetime.strptime(tags.get("TIFFTAG_DATETIME", ""), "%Y:%m:%d %H:%M:%S")
    except ValueError:
        return None
    return f"{made:%Y-%m-%dT%H:%M:%S}.000Z"


Writer = VectorWriter | ParquetWriter
"""Either; both are used alike."""
