"""Areas of interest from bounds and from files of polygons, laid on the grid of a scene.

A polygon takes in the pixels whose centres lie in it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyproj
import shapely
from affine import Affine
from pyproj.exceptions import ProjError

from geoseg_cli.area import Area, WindowArea
from geoseg_cli.errors import GeosegError, GridError, InputError, UsageError
from geoseg_cli.grid import Grid, Window
from geoseg_cli.printable import counted

BoolArray = npt.NDArray[np.bool_]
ShapeArray = npt.NDArray[np.object_]
"""Geometries of shapely."""

Bounds = tuple[float, float, float, float]
"""Left, bottom, right, top."""

_EDGE_PARTS = 256
"""Into how many parts the longest side of a shape is cut, at most, before it is bent into another CRS."""
_EDGE_PX = 4
"""Edges of about so many pixels are not cut further: a file of small fields would grow a hundredfold."""

_BLOCK_ROWS = 256


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
        known = self._block
        if known is not None and known[0] == index:
            return known[1]
        block = Window(index * _BLOCK_ROWS, 0, _BLOCK_ROWS, self._grid.width)
        drawn = burned(np.array([self._shape]), np.ones(1, np.int32), block).astype(np.bool_)
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
    # Imported here: few runs have an area in a file, and loading SQLite takes 20 ms.
    from geoseg_cli.shape_file import read_shapes

    file = read_shapes(path, "an area")
    others = sorted({shape.geom_type for shape in file.shapes} - {"Polygon", "MultiPolygon"})
    shapes = [shape for shape in file.shapes if not shape.is_empty]
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
    area = PolygonArea(*_on_grid(shapes, file.crs, grid, path))
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


def _on_grid(shapes: list[Any], crs: pyproj.CRS, grid: Grid, path: Path) -> tuple[Any, Grid, tuple[str, ...]]:
    """The union in pixel coordinates, and a warning where a polygon crossed itself."""
    crossed = sum(not shape.is_valid for shape in shapes)
    warnings = (f"{path.name}: {counted(crossed, 'polygon')} with crossing edges: mended",) if crossed else ()
    union = shapely.union_all([shapely.make_valid(shapely.force_2d(shape)) for shape in shapes])
    shape = _polygons(on_pixels(np.array([union]), crs, grid)[0])
    if shape.is_empty:
        raise _missed(path)
    return shape, grid, warnings


def burned(shapes: ShapeArray, numbers: npt.NDArray[np.int32], window: Window) -> npt.NDArray[np.int32]:
    """Draw shapes over each other.

    Args:
        shapes: (N,) in (column, row) coordinates; polygons cover the pixels whose centres they hold, points their own.
        numbers: (N,) what to write, not 0.
        window: Pixels to draw; where a centre lies on an edge, rounding can decide otherwise in another window.

    Returns:
        (H, W) int32 number of the last shape that covers a pixel, 0 for none.
    """
    from rasterio.features import rasterize

    if not len(shapes):
        return np.zeros((window.height, window.width), np.int32)
    drawn: npt.NDArray[np.int32] = rasterize(
        list(zip(shapes, numbers.tolist(), strict=True)),
        out_shape=(window.height, window.width),
        transform=Affine.translation(window.col, window.row),
        dtype="int32",
    )
    return drawn


def on_pixels(shapes: ShapeArray, crs: pyproj.CRS, grid: Grid) -> ShapeArray:
    """Lay shapes on a grid that has a CRS.

    Args:
        shapes: (N,) valid points, lines or polygons of two dimensions.
        crs: What their coordinates are in; edges are straight there.
        grid: Where to.

    Returns:
        (N,) the same in (column, row) coordinates, cut to the grid and a pixel around it; what has no place there is
        empty.

    Raises:
        GridError: Nothing leads from one CRS to the other.
    """
    assert grid.crs is not None
    target = pyproj.CRS.from_wkt(grid.crs.to_wkt())
    if not crs.equals(target, ignore_axis_order=True):
        shapes = _bent(shapes, crs, target, grid)
    bounds = shapely.bounds(shapes)
    shapes = np.where(np.isfinite(bounds).all(axis=1), shapes, shapely.Point())
    cut: ShapeArray = _in_pixels(shapely.make_valid(shapes), grid)
    return cut


def _bent(shapes: ShapeArray, crs: pyproj.CRS, target: pyproj.CRS, grid: Grid) -> ShapeArray:
    """The parts of shapes around the scene, in the scene's CRS."""
    # What lies far away may have no coordinates at all in the scene's CRS.
    around = _surroundings(grid, target, crs)
    near = shapely.intersection(shapes, around)
    left, bottom, right, top = shapely.bounds(near).T
    # Twice as high as the grid; across the 180th meridian its width says nothing.
    pixel = (around.bounds[3] - around.bounds[1]) / (2 * max(grid.height, grid.width))
    # Empty shapes have no bounds.
    longest = np.nan_to_num(np.maximum(right - left, top - bottom))
    fine = shapely.segmentize(near, np.maximum(longest / _EDGE_PARTS, _EDGE_PX * pixel))
    bent: ShapeArray = shapely.transform(fine, _transformer(crs, target).transform, interleaved=False)
    return bent


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


def _in_pixels(shapes: Any, grid: Grid) -> Any:
    """Shapes in map coordinates, one or an array, as (column, row), cut to the grid and a pixel around it."""
    inverse = ~grid.transform
    on_grid = shapely.transform(shapes, lambda x, y: inverse @ (x, y), interleaved=False)
    return shapely.intersection(on_grid, shapely.box(-1, -1, grid.width + 1, grid.height + 1))


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
