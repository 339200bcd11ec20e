"""Points, lines and polygons from GeoJSON and GeoPackage files, with one of their attributes.

Files are read here and not by GDAL: no driver that follows links is involved.
"""

from __future__ import annotations

import json
import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyproj
import shapely
from pyproj.exceptions import ProjError

from geoseg_cli.errors import AccessError, InputError, InputMissingError

MAX_BYTES = 256 * 2**20
"""Largest file that is read; borders of all countries in full detail have less."""

_JOURNAL = bytes.fromhex("d9d505f920a163d7")
"""How a rollback journal begins while it counts (SQLite, database file format, section 3)."""

SUFFIXES = (".geojson", ".json", ".gpkg")
OTHER_SUFFIXES = (".shp", ".fgb", ".parquet", ".geoparquet", ".kml", ".gml", ".geojsonl")
"""Of files that hold shapes and are not read: what they are turned into is told."""

_MOST_NAMED = 10
_WGS_84 = "OGC:CRS84"
_GEOPACKAGE_ENVELOPES = {0: 0, 1: 32, 2: 48, 3: 48, 4: 64}
"""Bytes of the envelope that a GeoPackage geometry carries, by its code (OGC 12-128r18, 2.1.3)."""


@dataclass(frozen=True, slots=True)
class ShapeFile:
    """What a file holds.

    Attributes:
        shapes: Geometries of shapely, collections of GeoJSON taken apart; features without one are left out.
        values: The attribute that was asked for, one for each shape; None for each where none was.
        crs: What the coordinates are in.
    """

    shapes: tuple[Any, ...]
    values: tuple[Any, ...]
    crs: pyproj.CRS


def read_shapes(path: Path, purpose: str, attribute: str | None = None) -> ShapeFile:
    """Read a file.

    Args:
        path: ``.geojson`` or ``.json`` (WGS 84 unless its ``crs`` member says otherwise), or ``.gpkg`` with one layer.
        purpose: What it is for, as messages say it, such as ``an area``.
        attribute: Name of a property or column to read as well.

    Raises:
        InputMissingError: There is no such file.
        AccessError: It may not be read.
        InputError: It is something else, or no feature has the attribute.
    """
    kind = path.suffix.lower()
    if kind not in SUFFIXES:
        raise InputError(
            f"{path}: polygons are read from .geojson and .gpkg files",
            f"ogr2ogr -f GPKG {path.stem}.gpkg {path.name}",
        )
    path = path.absolute()
    try:
        _refuse_unfit(path, purpose)
        return _read_geopackage(path, purpose, attribute) if kind == ".gpkg" else _read_geojson(path, attribute)
    except FileNotFoundError as error:
        raise InputMissingError(f"there is no {path}", "give the path of a .geojson or .gpkg file") from error
    except OSError as error:
        raise AccessError(f"{path} cannot be read: {error.strerror}", "check the file's permissions") from error
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise _damaged(path, error) from error
    except (sqlite3.Error, shapely.GEOSException, ProjError) as error:
        raise _damaged(path, error) from error


def _refuse_unfit(path: Path, purpose: str) -> None:
    status = path.stat()
    # A named pipe would block on open.
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        raise InputError(f"{path} is no regular file", "save the polygons to a file, and name it")
    if status.st_size > MAX_BYTES:
        raise InputError(
            f"{path} has {status.st_size / 2**20:.0f} MiB, too much for {purpose}", "simplify its polygons"
        )


def _damaged(path: Path, error: Exception) -> InputError:
    what = "GeoPackage" if path.suffix.lower() == ".gpkg" else "GeoJSON"
    return InputError(f"{path} is no {what} that can be read ({error})", "open it in a GIS and export it again")


def _refuse_absent(path: Path, attribute: str, present: list[str]) -> None:
    if attribute not in present:
        rest = f" and {len(present) - _MOST_NAMED} more" if len(present) > _MOST_NAMED else ""
        raise InputError(
            f"{path} has no attribute {attribute}; it has {', '.join(present[:_MOST_NAMED]) or 'none'}{rest}",
            "name the one that holds the class: --attribute NAME",
        )


def _read_geojson(path: Path, attribute: str | None) -> ShapeFile:
    top = json.loads(path.read_bytes())
    # Not part of RFC 7946, but what GDAL writes for coordinates that are not WGS 84, and reads.
    stated = (top.get("crs") or {}).get("properties", {}).get("name", _WGS_84)
    found = list(_geometries(top))
    if attribute is not None:
        _refuse_absent(path, attribute, list(dict.fromkeys(name for _, properties in found for name in properties)))
    shapes = tuple(shapely.from_geojson(json.dumps(geometry)) for geometry, _ in found)
    values = tuple(None if attribute is None else properties.get(attribute) for _, properties in found)
    return ShapeFile(shapes, values, pyproj.CRS.from_user_input(stated))


def _geometries(node: dict[str, Any], properties: dict[str, Any] | None = None) -> Iterator[tuple[Any, dict[str, Any]]]:
    """All geometries of a GeoJSON object with the properties of their feature, collections taken apart."""
    if node["type"] == "FeatureCollection":
        for feature in node["features"]:
            yield from _geometries(feature)
    elif node["type"] == "Feature":
        if node["geometry"] is not None:
            yield from _geometries(node["geometry"], node.get("properties") or {})
    elif node["type"] == "GeometryCollection":
        for geometry in node["geometries"]:
            yield from _geometries(geometry, properties)
    else:
        yield node, properties or {}


def _read_geopackage(path: Path, purpose: str, attribute: str | None) -> ShapeFile:
    path.open("rb").close()  # SQLite does not say why it cannot open a file
    _refuse_unfinished(path)
    _refuse_interrupted(path)
    uri = f"{path.as_uri()}?mode=ro&immutable=1"
    with closing(sqlite3.connect(uri, uri=True)) as base:
        base.execute("PRAGMA trusted_schema = OFF")  # a view in the file may not call functions with side effects
        table, column, number = _layer(base, path, purpose)
        wanted = f"NULL, {_quoted(column)}"
        if attribute is not None:
            columns = [row[1] for row in base.execute(f"PRAGMA table_info({_quoted(table)})")]
            _refuse_absent(path, attribute, [name for name in columns if name != column])
            wanted = f"{_quoted(attribute)}, {_quoted(column)}"
        rows = base.execute(f"SELECT {wanted} FROM {_quoted(table)}").fetchall()
        kept = [(value, _from_blob(blob)) for value, blob in rows if blob is not None]
        shapes, values = tuple(shape for _, shape in kept), tuple(value for value, _ in kept)
        return ShapeFile(shapes, values, _geopackage_crs(base, number, path))


def _layer(base: sqlite3.Connection, path: Path, purpose: str) -> tuple[str, str, int]:
    """Table, geometry column and number of the CRS of the only layer."""
    layers = base.execute(
        "SELECT c.table_name, g.column_name, g.srs_id FROM gpkg_contents c"
        " JOIN gpkg_geometry_columns g ON g.table_name = c.table_name WHERE c.data_type = 'features'"
    ).fetchall()
    if len(layers) != 1:
        names = ", ".join(sorted(name for name, _, _ in layers)) or "none"
        raise InputError(
            f"{path} has {len(layers)} layers of shapes ({names}), {purpose} needs one",
            f"ogr2ogr -f GPKG area.gpkg {path.name} LAYER",
        )
    table, column, number = layers[0]
    return table, column, number


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _refuse_unfinished(path: Path) -> None:
    """Refuse a file whose last changes are still in the log of a program: it would be read without them."""
    log = path.with_name(path.name + "-wal")
    if os.path.exists(log) and log.stat().st_size:
        raise InputError(
            f"{path} has changes that are not in it yet: {log.name} beside it is not empty",
            f"close the program that has it open, or export it: ogr2ogr -f GPKG area.gpkg {path.name}",
        )


def _refuse_interrupted(path: Path) -> None:
    """Refuse a file that a program left half changed: its old content is in a journal that nobody rolled back."""
    journal = path.with_name(path.name + "-journal")
    try:
        with journal.open("rb") as stream:
            is_hot = stream.read(len(_JOURNAL)) == _JOURNAL
    except FileNotFoundError:
        return
    if is_hot:
        raise InputError(
            f"{path} was left in the middle of a change: {journal.name} beside it undoes what was begun",
            "close the program that has it open; if none has, open it once in the program that wrote it",
        )


def _geopackage_crs(base: sqlite3.Connection, number: int, path: Path) -> pyproj.CRS:
    found = base.execute(
        "SELECT organization, organization_coordsys_id, definition FROM gpkg_spatial_ref_sys WHERE srs_id = ?", [number]
    ).fetchone()
    if number <= 0 or found is None:
        raise InputError(
            f"{path} does not say in which CRS its shapes are",
            f"ogr2ogr -f GPKG -a_srs EPSG:NNNN area.gpkg {path.name}",
        )
    organization, code, definition = found
    if organization.upper() == "EPSG":
        return pyproj.CRS.from_epsg(code)
    return pyproj.CRS.from_wkt(definition)


def _from_blob(blob: bytes) -> Any:
    """The shape in a GeoPackage blob: a header before well-known binary."""
    if blob[:2] != b"GP":
        raise ValueError("a shape without a GeoPackage header")
    return shapely.from_wkb(blob[8 + _GEOPACKAGE_ENVELOPES[blob[3] >> 1 & 7] :])
