"""Points and polygons of a GeoJSON file as labels of scenes.

A feature has a class and a place. A pixel that features of two classes or of two parts of the split claim is
unknown: nobody can say which is right, and no part may learn from another. Axes: H rows, W columns.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import shapely
from affine import Affine
from pyproj import CRS, Transformer
from pyproj.exceptions import CRSError
from rasterio.features import rasterize
from shapely.geometry import shape
from shapely.geometry.base import BaseGeometry

from geoseg_cli.catalog import NODATA, Legend
from geoseg_cli.errors import GridError, InputError, InputMissingError
from geoseg_cli.grid import Grid, Window
from geoseg_cli.training.chips import UInt8Array
from geoseg_cli.training.config import VectorsTable
from geoseg_cli.training.split import READ_PARTS, Part

LON_LAT: Final = "OGC:CRS84"
"""Coordinates of GeoJSON, RFC 7946 section 4."""
EQUAL_AREA: Final = "EPSG:6933"
"""Metres of a cylindrical equal-area map of the whole Earth, in which squares are the same for all scenes."""
_KINDS: Final = ("Point", "MultiPoint", "Polygon", "MultiPolygon")


@dataclass(frozen=True, slots=True)
class Feature:
    """A labelled shape.

    Attributes:
        geometry: In longitude and latitude, or the CRS of its file.
        value: Class value.
        place: Where it is; features of one place are in one part of the split.
    """

    geometry: BaseGeometry
    value: int
    place: str


@dataclass(frozen=True, slots=True)
class Features:
    """What a file holds.

    Attributes:
        path: The file.
        crs: Of the coordinates.
        items: At least one feature.
        point_radius_m: A point labels pixels up to so far away.
    """

    path: Path
    crs: CRS
    items: tuple[Feature, ...]
    point_radius_m: float


def read_features(table: VectorsTable, legend: Legend) -> Features:
    """Read a GeoJSON file.

    Args:
        table: Its path, and what its properties mean.
        legend: Classes that may occur.

    Raises:
        InputMissingError: There is no such file.
        InputError: It is no GeoJSON of points and polygons, or a feature lacks its class or place.
    """
    rows, crs = _load(table.file)
    classes = {str(c.value): c.value for c in legend.classes} | {c.name: c.value for c in legend.classes}
    to_squares = Transformer.from_crs(crs, EQUAL_AREA, always_xy=True)
    items = []
    for number, row in enumerate(rows):
        where = f"{table.file}: feature {number}"
        geometry = _geometry(row, where)
        properties = row.get("properties") or {}
        value = _class(properties.get(table.class_property), classes, f"{where}, {table.class_property!r}")
        if table.place_property is None:
            place = _square(geometry, to_squares, table.block_m)
        else:
            place = _named_place(properties.get(table.place_property), f"{where}, {table.place_property!r}")
        items.append(Feature(geometry, value, place))
    if not items:
        raise InputError(f"{table.file} holds no feature", "give a FeatureCollection of points and polygons")
    return Features(table.file, crs, tuple(items), table.point_radius_m)


class Burner:
    """Features as labels on the pixels of one scene.

    Args:
        features: What to burn.
        parts: Place -> its part of the split.
        grid: The scene's pixels.

    Raises:
        GridError: The scene has no CRS.
    """

    def __init__(self, features: Features, parts: dict[str, Part], grid: Grid) -> None:
        if grid.crs is None:
            raise GridError(
                f"{features.path} cannot be laid on a scene without a CRS",
                "write the scene's CRS into it: gdal_edit.py -a_srs EPSG:NNNN FILE",
            )
        self._shapes = _in_pixels(features, grid)
        self._tree = shapely.STRtree(self._shapes)
        self._claims = [(parts[feature.place], feature.value) for feature in features.items]

    def read(self, window: Window) -> dict[Part, UInt8Array]:
        """Labels of a window.

        Returns:
            Part that may be read -> (H, W) uint8 class values, 255 where nothing is known; parts without a labelled
            pixel are left out.
        """
        claims = self._masks(window)
        count = np.sum(list(claims.values()), axis=0) if claims else np.zeros((window.height, window.width), int)
        labels: dict[Part, UInt8Array] = {}
        for (part, value), mask in claims.items():
            if part in READ_PARTS and (mask & (count == 1)).any():
                plane = labels.setdefault(part, np.full(mask.shape, NODATA, np.uint8))
                plane[mask & (count == 1)] = value
        return labels

    def touches(self, window: Window) -> bool:
        """Whether some feature comes near a window."""
        return len(self._tree.query(_box(window))) > 0

    def _masks(self, window: Window) -> dict[tuple[Part, int], np.ndarray[Any, np.dtype[np.bool_]]]:
        """Part and class -> (H, W) bool, what its features cover."""
        near: dict[tuple[Part, int], list[BaseGeometry]] = {}
        for index in sorted(self._tree.query(_box(window)).tolist()):
            near.setdefault(self._claims[index], []).append(self._shapes[index])
        to_map = Affine.translation(window.col, window.row)
        size = (window.height, window.width)
        return {
            claim: rasterize(shapes, out_shape=size, transform=to_map, dtype="uint8").astype(bool)
            for claim, shapes in near.items()
        }


def _in_pixels(features: Features, grid: Grid) -> list[BaseGeometry]:
    """Geometries in columns and rows of a grid, points widened to their radius."""
    assert grid.crs is not None
    to_grid = Transformer.from_crs(features.crs, CRS.from_wkt(grid.crs.to_wkt()), always_xy=True)
    inverse = ~grid.transform

    def to_pixels(points: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        x, y = to_grid.transform(points[:, 0], points[:, 1])
        columns, rows = inverse @ (np.asarray(x), np.asarray(y))
        # What a projection cannot show is far outside every grid.
        moved = np.stack([columns, rows], axis=1)
        return np.where(np.isfinite(moved), moved, -1e9)

    steps = grid.gsd_m()
    radius_px = features.point_radius_m / math.sqrt(steps[0] * steps[1]) if steps else 0.0
    moved = [shapely.transform(shapely.force_2d(feature.geometry), to_pixels) for feature in features.items]
    return [one.buffer(radius_px) if radius_px and "Point" in one.geom_type else one for one in moved]


def _box(window: Window) -> BaseGeometry:
    box: BaseGeometry = shapely.box(window.col, window.row, window.col_stop, window.row_stop)
    return box


def _load(path: Path) -> tuple[list[dict[str, Any]], CRS]:
    """Features of a file as JSON objects, and their CRS."""
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputMissingError(f"no file {path}", "give a GeoJSON file") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as GeoJSON: {error}", "ogr2ogr -f GeoJSON out.json IN") from error
    rows = table.get("features") if isinstance(table, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InputError(f"{path} is no FeatureCollection", "ogr2ogr -f GeoJSON out.json IN writes one")
    named = ((table.get("crs") or {}).get("properties") or {}).get("name", LON_LAT)
    try:
        return rows, CRS.from_user_input(named)
    except CRSError as error:
        raise InputError(f"{path}: its CRS {named!r} is not known", "ogr2ogr -t_srs EPSG:4326 out.json IN") from error


def _geometry(row: dict[str, Any], where: str) -> BaseGeometry:
    kind = (row.get("geometry") or {}).get("type")
    if kind not in _KINDS:
        raise InputError(f"{where} is a {kind or 'feature without geometry'}", f"labels are {', '.join(_KINDS)}")
    try:
        geometry = shape(row["geometry"])
    except (KeyError, ValueError, TypeError, IndexError, shapely.errors.ShapelyError) as error:
        raise InputError(f"{where}: its coordinates make no {kind}: {error}", "correct or remove it") from error
    if geometry.is_empty:
        raise InputError(f"{where} is empty", "remove it")
    return geometry if geometry.is_valid else geometry.buffer(0)


def _class(given: Any, classes: dict[str, int], where: str) -> int:
    text = str(int(given)) if isinstance(given, float) and given.is_integer() else str(given)
    if given is None or text not in classes:
        raise InputError(f"{where}: {given!r} is no class", f"classes are {', '.join(classes)}; or set class_property")
    return classes[text]


def _named_place(given: Any, where: str) -> str:
    if given is None or not str(given).strip():
        raise InputError(f"{where} does not say the place", "fill the property, or leave place_property out")
    return str(given).strip()


def _square(geometry: BaseGeometry, to_squares: Transformer, block_m: float) -> str:
    """The square that holds the middle of a shape."""
    middle = geometry.representative_point()
    x, y = to_squares.transform(middle.x, middle.y)
    if not (math.isfinite(x) and math.isfinite(y)):
        raise InputError(f"coordinates {middle.x}, {middle.y} are nowhere on Earth", "give longitude, latitude")
    return f"x{math.floor(x / block_m)}y{math.floor(y / block_m)}"


def scenes_of(path: Path) -> Sequence[Path]:
    """A scene, or the GeoTIFFs of a folder by name.

    Raises:
        InputMissingError: There is none.
    """
    found = sorted(_tiffs(path)) if path.is_dir() else [path] if path.is_file() else []
    if not found:
        raise InputMissingError(f"no scene at {path}", "give a GeoTIFF, or a folder of them")
    return found


def _tiffs(folder: Path) -> Iterator[Path]:
    return (path for path in folder.iterdir() if path.suffix.lower() in (".tif", ".tiff") and path.name[0] != ".")
