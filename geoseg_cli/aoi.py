"""Areas of interest: which pixels of a scene get an answer.

An area is a rectangle of pixels (``--bounds``) or polygons from a GeoJSON or GeoPackage file. A polygon takes in the
pixels whose centres lie in it. Files are read here and not by GDAL: no driver that follows links is involved.
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
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyproj
import shapely
import shapely.affinity
from affine import Affine
from pyproj.exceptions import ProjError

from geoseg_cli.errors import AccessError, GeosegError, GridError, InputError, InputMissingError, UsageError
from geoseg_cli.grid import Grid, Window
from geoseg_cli.rows import Rows, only_where

BoolArray = npt.NDArray[np.bool_]

Bounds = tuple[float, float, float, float]
"""Left, bottom, right, top."""

MAX_BYTES = 256 * 2**20
"""Largest file of polygons that is read; borders of all countries in full detail have less."""

_WGS_84 = "OGC:CRS84"
_EDGE_PARTS = 256
"""Into how many parts the longest side of an area is cut before it is bent into another CRS."""

_BLOCK_ROWS = 256
_GEOPACKAGE_ENVELOPES = {0: 0, 1: 32, 2: 48, 3: 48, 4: 64}
"""Bytes of the envelope that a GeoPackage geometry carries, by its code (OGC 12-128r18, 2.1.3)."""


class Area(Protocol):
    """A part of a grid."""

    @property
    def window(self) -> Window:
        """A window that holds all of it."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the user should know."""

    def mask(self, window: Window) -> BoolArray:
        """(H, W) bool, which pixels of a window belong to it; the same for a pixel in whatever window."""

    def touches(self, window: Window) -> bool:
        """Whether a pixel of the window can belong to it; never False where one does."""


@dataclass(frozen=True, slots=True)
class WindowArea:
    """A rectangle of whole pixels."""

    window: Window
    warnings: tuple[str, ...] = ()

    def mask(self, window: Window) -> BoolArray:
        """(H, W) bool, which pixels of ``window`` lie in the rectangle."""
        inside = np.zeros((window.height, window.width), np.bool_)
        common = self.window.intersection(window)
        row, col = common.row - window.row, common.col - window.col
        inside[row : row + common.height, col : col + common.width] = True
        return inside

    def touches(self, window: Window) -> bool:
        """Whether at least one pixel lies in both."""
        return self.window.touches(window)


class PolygonArea:
    """Polygons on a grid.

    Attributes:
        window: Around all pixels whose centres can lie in it.
        warnings: What the user should know.
    """

    def __init__(self, shape: Any, grid: Grid, warnings: tuple[str, ...] = ()) -> None:
        """Lay a shape on a grid.

        Args:
            shape: Polygon or MultiPolygon in (column, row) coordinates: pixel (r, c) has its centre at (c+0.5, r+0.5).
            grid: The scene's.
            warnings: What the user should know.
        """
        self._shape, self._grid, self.warnings = shape, grid, warnings
        left, top, right, bottom = shape.bounds if not shape.is_empty else (0, 0, 0, 0)
        row, col = int(np.ceil(top - 0.5)), int(np.ceil(left - 0.5))
        row_stop, col_stop = int(np.floor(bottom - 0.5)) + 1, int(np.floor(right - 0.5)) + 1
        around = Window(row, col, max(0, row_stop - row), max(0, col_stop - col))
        self.window = around.intersection(grid.window)
        self._block: tuple[int, BoolArray] | None = None
        shapely.prepare(shape)

    def mask(self, window: Window) -> BoolArray:
        """(H, W) bool, which pixels of ``window`` have their centre in the polygons."""
        inside = np.zeros((window.height, window.width), np.bool_)
        wanted = self.window.intersection(window)
        if not wanted.height or not wanted.width:
            return inside
        col = slice(wanted.col - window.col, wanted.col_stop - window.col)
        # Always the same blocks: rounding cannot decide otherwise in another window.
        for index in range(wanted.row // _BLOCK_ROWS, -(-wanted.row_stop // _BLOCK_ROWS)):
            top = index * _BLOCK_ROWS
            row, stop = max(top, wanted.row), min(top + _BLOCK_ROWS, wanted.row_stop)
            inside[row - window.row : stop - window.row, col] = self._draw(index)[row - top : stop - top, wanted.cols]
        return inside

    def touches(self, window: Window) -> bool:
        """Whether the polygons meet the window's ground."""
        if not self.window.touches(window):
            return False
        return bool(self._shape.intersects(shapely.box(window.col, window.row, window.col_stop, window.row_stop)))

    def has_pixels(self) -> bool:
        """Whether it takes in any pixel; False for a polygon between the centres."""
        starts = range(self.window.row, self.window.row_stop, _BLOCK_ROWS)
        return any(self.mask(Window(row, 0, _BLOCK_ROWS, self._grid.width)).any() for row in starts)

    def _draw(self, index: int) -> BoolArray:
        """(256, W) bool of block ``index`` of rows; the last block is kept, rows come in order."""
        from rasterio.features import rasterize

        known = self._block
        if known is not None and known[0] == index:
            return known[1]
        drawn: BoolArray = rasterize(
            [(self._shape, 1)],
            out_shape=(_BLOCK_ROWS, self._grid.width),
            transform=Affine.translation(0, index * _BLOCK_ROWS),
            dtype="uint8",
        ).astype(np.bool_)
        self._block = index, drawn
        return drawn


def load_area(path: Path, grid: Grid) -> PolygonArea:
    """Read polygons and lay them on a scene's grid.

    Args:
        path: ``.geojson`` or ``.json`` (WGS 84 unless its ``crs`` member says otherwise), or ``.gpkg`` with one layer.
        grid: The scene's.

    Returns:
        Their union; edges are straight in the file's CRS.

    Raises:
        InputMissingError: There is no such file.
        AccessError: It may not be read.
        InputError: It holds no polygons, or something else.
        GridError: The scene has no CRS.
        UsageError: The polygons miss the scene.
    """
    path = path.absolute()
    shapes, crs = _read(path)
    others = sorted({shape.geom_type for shape in shapes} - {"Polygon", "MultiPolygon"})
    shapes = [shape for shape in shapes if not shape.is_empty]
    if others or not shapes:
        raise InputError(
            f"{path} holds {' and '.join(others) or 'no shapes at all'}, an area needs polygons",
            "draw polygons around what is wanted",
        )
    if grid.crs is None:
        raise GridError(
            f"the scene has no CRS, so nothing tells where {path} lies in it",
            "write the CRS into the scene: gdal_edit.py -a_srs EPSG:NNNN FILE",
        )
    area = PolygonArea(*_on_grid(shapes, crs, grid, path))
    if not area.has_pixels():
        raise _missed(path)
    return area


def area_of_bounds(bounds: Bounds, grid: Grid, crs: str | None = None, where: str = "the scene") -> Area:
    """The part of a grid inside a rectangle of map coordinates.

    Args:
        bounds: Left, bottom, right, top; in degrees left is above right where they cross the 180th meridian.
        grid: The scene's.
        crs: What the four numbers are in, such as ``EPSG:4326`` (longitude first); None for the scene's CRS.
        where: What the error message calls the scene.

    Returns:
        All pixels that the rectangle touches; in a grid that is neither parallel nor at right angles to the map, those
        whose centres lie in it. Bounds in another CRS are widened to a rectangle in the scene's.

    Raises:
        UsageError: The bounds miss the scene, or are empty, or ``crs`` is none.
        GridError: The scene has no CRS but ``crs`` is given.
    """
    stated = " ".join(f"{number:.15g}" for number in bounds)
    parts = _in_grid_crs(bounds, crs, grid, stated)
    t = grid.transform
    if (t.b or t.d) and (t.a or t.e):
        boxes = shapely.union_all([shapely.box(*part) for part in parts])
        area: Area = PolygonArea(_in_pixels(boxes, grid), grid)
    else:
        area = _joined([grid.window_of_bounds(*part) for part in parts], grid)
    if not area.window.height or not area.window.width:
        raise UsageError(
            f"--bounds {stated} miss {where}",
            "give left bottom right top in the scene's CRS, or name theirs with --bounds-crs",
        )
    return area


def _joined(windows: list[Window], grid: Grid) -> Area:
    """The pixels of windows that overlap or lie apart."""
    kept = [window for window in windows if window.height and window.width]
    if len(kept) < 2:
        return WindowArea(kept[0] if kept else windows[0])
    boxes = shapely.union_all([shapely.box(one.col, one.row, one.col_stop, one.row_stop) for one in kept])
    return PolygonArea(boxes, grid)


def only_inside(finished: Iterator[Rows], area: Area, nodata: int) -> Iterator[Rows]:
    """Rows with nodata outside an area.

    Args:
        finished: Rows on the area's grid, at its full width.
        area: What is kept.
        nodata: Label of pixels without an answer.
    """
    for rows in finished:
        valid = rows.valid & area.mask(Window(rows.row, 0, *rows.labels.shape))
        labels = np.where(valid, rows.labels, np.uint8(nodata))
        confidence, probabilities = only_where(valid, rows.confidence), only_where(valid, rows.probabilities)
        yield Rows(rows.row, labels, confidence, probabilities, valid)


def cropped(finished: Iterator[Rows], window: Window) -> Iterator[Rows]:
    """Only the pixels of a window, their rows counted from its first one."""
    for rows in finished:
        start = max(rows.row, window.row)
        stop = min(rows.row + rows.labels.shape[0], window.row_stop)
        if start < stop:
            part = (..., slice(start - rows.row, stop - rows.row), window.cols)
            confidence, probabilities = (
                None if values is None else values[part] for values in (rows.confidence, rows.probabilities)
            )
            yield Rows(start - window.row, rows.labels[part], confidence, probabilities, rows.valid[part])


def cropped_grid(grid: Grid, window: Window) -> Grid:
    """The grid of a window's pixels; they stay where they are."""
    return Grid(grid.crs, grid.transform @ Affine.translation(window.col, window.row), window.height, window.width)


def _read(path: Path) -> tuple[list[Any], pyproj.CRS]:
    """Shapes of a file and what they are in."""
    kind = path.suffix.lower()
    if kind not in {".geojson", ".json", ".gpkg"}:
        raise InputError(
            f"{path}: polygons are read from .geojson and .gpkg files",
            f"ogr2ogr -f GPKG {path.stem}.gpkg {path.name}",
        )
    try:
        status = path.stat()
        # A named pipe would block on open.
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
            raise InputError(f"{path} is no regular file", "save the polygons to a file, and name it")
        size = status.st_size
        if size > MAX_BYTES:
            raise InputError(f"{path} has {size / 2**20:.0f} MiB, too much for an area", "simplify its polygons")
        return _read_geopackage(path) if kind == ".gpkg" else _read_geojson(path)
    except FileNotFoundError as error:
        raise InputMissingError(f"there is no {path}", "give the path of a .geojson or .gpkg file") from error
    except OSError as error:
        raise AccessError(f"{path} cannot be read: {error.strerror}", "check the file's permissions") from error
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise _damaged(path, error) from error
    except (sqlite3.Error, shapely.GEOSException, ProjError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> InputError:
    what = "GeoPackage" if path.suffix.lower() == ".gpkg" else "GeoJSON"
    return InputError(f"{path} is no {what} that can be read ({error})", "open it in a GIS and export it again")


def _read_geojson(path: Path) -> tuple[list[Any], pyproj.CRS]:
    top = json.loads(path.read_bytes())
    # Not part of RFC 7946, but what GDAL writes for coordinates that are not WGS 84, and reads.
    stated = (top.get("crs") or {}).get("properties", {}).get("name", _WGS_84)
    return [shapely.from_geojson(json.dumps(one)) for one in _geometries(top)], pyproj.CRS.from_user_input(stated)


def _geometries(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All geometries of a GeoJSON object, collections taken apart."""
    if node["type"] == "FeatureCollection":
        for feature in node["features"]:
            yield from _geometries(feature)
    elif node["type"] == "Feature":
        if node["geometry"] is not None:
            yield from _geometries(node["geometry"])
    elif node["type"] == "GeometryCollection":
        for geometry in node["geometries"]:
            yield from _geometries(geometry)
    else:
        yield node


def _read_geopackage(path: Path) -> tuple[list[Any], pyproj.CRS]:
    path.open("rb").close()  # SQLite does not say why it cannot open a file
    _refuse_unfinished(path)
    uri = f"{path.as_uri()}?mode=ro&immutable=1"
    with closing(sqlite3.connect(uri, uri=True)) as base:
        base.execute("PRAGMA trusted_schema = OFF")  # a view in the file may not call functions with side effects
        layers = base.execute(
            "SELECT c.table_name, g.column_name, g.srs_id FROM gpkg_contents c"
            " JOIN gpkg_geometry_columns g ON g.table_name = c.table_name WHERE c.data_type = 'features'"
        ).fetchall()
        if len(layers) != 1:
            names = ", ".join(sorted(name for name, _, _ in layers)) or "none"
            raise InputError(
                f"{path} has {len(layers)} layers of shapes ({names}), an area needs one",
                f"ogr2ogr -f GPKG area.gpkg {path.name} LAYER",
            )
        table, column, number = layers[0]
        quoted = [name.replace('"', '""') for name in (column, table)]
        blobs = base.execute(f'SELECT "{quoted[0]}" FROM "{quoted[1]}"').fetchall()
        return [_from_blob(blob) for (blob,) in blobs if blob is not None], _geopackage_crs(base, number, path)


def _refuse_unfinished(path: Path) -> None:
    """Refuse a file whose last changes are still in the log of a program: it would be read without them."""
    log = path.with_name(path.name + "-wal")
    if os.path.exists(log) and log.stat().st_size:
        raise InputError(
            f"{path} has changes that are not in it yet: {log.name} beside it is not empty",
            f"close the program that has it open, or export it: ogr2ogr -f GPKG area.gpkg {path.name}",
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


def _on_grid(shapes: list[Any], crs: pyproj.CRS, grid: Grid, path: Path) -> tuple[Any, Grid, tuple[str, ...]]:
    """The union in pixel coordinates, and a warning where a polygon crossed itself."""
    crossed = sum(not shape.is_valid for shape in shapes)
    warnings = (f"{path.name}: {crossed} polygons cross themselves and were mended",) if crossed else ()
    union = shapely.union_all([shapely.make_valid(shapely.force_2d(shape)) for shape in shapes])
    assert grid.crs is not None
    target = pyproj.CRS.from_wkt(grid.crs.to_wkt())
    if not crs.equals(target, ignore_axis_order=True):
        union = _bent(union, crs, target, grid)
    if union.is_empty or not np.isfinite(union.bounds).all():
        raise _missed(path)
    shape = _polygons(_in_pixels(shapely.make_valid(union), grid))
    if shape.is_empty:
        raise _missed(path)
    return shape, grid, warnings


def _bent(union: Any, crs: pyproj.CRS, target: pyproj.CRS, grid: Grid) -> Any:
    """The part of a shape around the scene, in the scene's CRS."""
    # What lies far away may have no coordinates at all in the scene's CRS.
    near = union.intersection(_surroundings(grid, target, crs))
    if near.is_empty:
        return near
    left, bottom, right, top = near.bounds
    fine = shapely.segmentize(near, max(right - left, top - bottom) / _EDGE_PARTS)
    return shapely.transform(fine, _transformer(crs, target).transform, interleaved=False)


def _transformer(source: pyproj.CRS, target: pyproj.CRS) -> pyproj.Transformer:
    try:
        return pyproj.Transformer.from_crs(source, target, always_xy=True)
    except ProjError as error:
        raise GridError(
            f"nothing leads from {source.name} to {target.name}", "bring the area into the scene's CRS first"
        ) from error


def _missed(path: Path) -> GeosegError:
    return UsageError(
        f"{path} takes in no pixel of the scene", "draw polygons that overlap the scene, or check the file's CRS"
    )


def _in_pixels(shape: Any, grid: Grid) -> Any:
    """A shape in map coordinates as (column, row), cut to the grid and a pixel around it."""
    t = ~grid.transform
    on_grid = shapely.affinity.affine_transform(shape, [t.a, t.b, t.d, t.e, t.c, t.f])
    return on_grid.intersection(shapely.box(-1, -1, grid.width + 1, grid.height + 1))


def _polygons(shape: Any) -> Any:
    """What of a shape has an area."""
    return shapely.union_all([part for part in shapely.get_parts(shape) if part.geom_type.endswith("Polygon")])


def _surroundings(grid: Grid, target: pyproj.CRS, crs: pyproj.CRS) -> Any:
    """A box around the grid in another CRS, wider by half its size; two of them across the 180th meridian."""
    corners = [grid.transform @ (col, row) for col in (0, grid.width) for row in (0, grid.height)]
    xs, ys = zip(*corners, strict=True)
    left, bottom, right, top = _transformer(target, crs).transform_bounds(
        min(xs), min(ys), max(xs), max(ys), densify_pts=21
    )
    spare = 0.5 * (top - bottom)
    if left <= right:
        spare += 0.5 * (right - left)
        return shapely.box(left - spare, bottom - spare, right + spare, top + spare)
    return shapely.union(
        shapely.box(left - spare, bottom - spare, 181, top + spare),
        shapely.box(-181, bottom - spare, right + spare, top + spare),
    )


def _in_grid_crs(bounds: Bounds, crs: str | None, grid: Grid, stated: str) -> list[Bounds]:
    """The rectangle in the scene's CRS: one, or several where it crosses the 180th meridian or degrees go on there.

    Raises:
        UsageError: Left lies above right and that means nothing, or as :func:`_into_grid`.
    """
    source = _crs_of_bounds(crs, grid)
    in_degrees = source is not None and source.is_geographic
    left, _, right, _ = bounds
    if left > right and not in_degrees:
        raise UsageError(
            f"--bounds {stated} are empty: left is above right",
            "only in degrees that means across the 180th meridian: add --bounds-crs EPSG:4326",
        )
    is_split = in_degrees and (left > right or crs is not None)
    halves = _on_both_sides(bounds) if is_split else [bounds]
    if crs is not None:
        assert source is not None
        halves = [_into_grid(half, source, crs, grid, stated) for half in halves]
    if grid.crs is None or not grid.crs.is_geographic:
        return halves
    # A raster in degrees may go on at 181 where bounds say -179.
    return [(one[0] + turn, one[1], one[2] + turn, one[3]) for one in halves for turn in (-360, 0, 360)]


def _on_both_sides(bounds: Bounds) -> list[Bounds]:
    """Bounds in degrees, cut where they cross the 180th meridian, with every longitude from -180 to 180."""
    left, bottom, right, top = bounds
    width = right - left if right > left else right - left + 360
    if width >= 360:
        return [(-180, bottom, 180, top)]
    left = (left + 180) % 360 - 180
    if left + width <= 180:
        return [(left, bottom, left + width, top)]
    return [(left, bottom, 180, top), (-180, bottom, left + width - 360, top)]


def _crs_of_bounds(crs: str | None, grid: Grid) -> pyproj.CRS | None:
    """What the four numbers are in; None where nothing tells."""
    if crs is None:
        return None if grid.crs is None else pyproj.CRS.from_wkt(grid.crs.to_wkt())
    if grid.crs is None:
        raise GridError("the scene has no CRS, so --bounds-crs means nothing", "leave out --bounds-crs")
    try:
        return pyproj.CRS.from_user_input(crs)
    except ProjError as error:
        raise UsageError(f"--bounds-crs {crs} is no CRS", "name one such as EPSG:4326") from error


def _into_grid(bounds: Bounds, source: pyproj.CRS, crs: str, grid: Grid, stated: str) -> Bounds:
    """A rectangle around the bounds in the scene's CRS."""
    assert grid.crs is not None
    try:
        moved = _transformer(source, pyproj.CRS.from_wkt(grid.crs.to_wkt())).transform_bounds(*bounds, densify_pts=21)
    except ProjError as error:
        raise UsageError(
            f"--bounds {stated} in {crs} cannot be brought into the scene's CRS ({error})",
            "give them in a CRS of two axes, such as EPSG:4326",
        ) from error
    if not np.isfinite(moved).all() or moved[0] > moved[2]:
        raise UsageError(
            f"--bounds {stated} in {crs} have no place in the scene's CRS", "give bounds nearer to the scene"
        )
    return moved
