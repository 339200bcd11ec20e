"""Points and polygons as the truth on the pixels of a map.

A point takes the pixel in which it lies, a polygon those whose centres lie in it. A pixel that shapes of two classes
claim is unknown: nobody can say which is right. Axes: H rows, W columns, N shapes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely

from geoseg_cli.aoi import ShapeArray, burned, on_pixels
from geoseg_cli.errors import GridError, InputError
from geoseg_cli.evaluate.boundary import NumberArray, none_in
from geoseg_cli.evaluate.classes import ClassNumbers, MapClasses, ReferenceOptions, Tally
from geoseg_cli.evaluate.rasters import mapped_classes
from geoseg_cli.grid import Grid, Window
from geoseg_cli.shape_file import read_shapes

IndexArray = npt.NDArray[np.int32]

_KINDS = frozenset({"Point", "MultiPoint", "Polygon", "MultiPolygon"})
_POLYGONS = (3, 6)
"""Shapely's numbers of Polygon and MultiPolygon."""
_BLOCK_ROWS = 256


class ShapeReference:
    """Shapes of a file on a map's grid; each is a unit of its own where intervals are made.

    Attributes:
        tally: Attributes that are no class, by shapes.
        count: Shapes that have a class.
    """

    unit = "shapes"

    def __init__(self, path: Path, grid: Grid, classes: MapClasses, options: ReferenceOptions) -> None:
        """Read a file.

        Raises:
            GeosegError: It cannot be read or laid on the grid, holds lines, or has no such attribute.
        """
        if grid.crs is None:
            raise GridError(
                f"{path} cannot be laid on a map without a CRS",
                "write the map's CRS into it: gdal_edit.py -a_srs EPSG:NNNN FILE",
            )
        self.path, self.tally = path, Tally()
        file = read_shapes(path, "a reference", options.attribute)
        _refuse_other_kinds(path, file.shapes)
        by_text = own_names(classes) if options.mapping is None else mapped_classes(options.mapping, classes)
        folded = {text.casefold(): number for text, number in by_text.items()}
        numbers = ClassNumbers(folded, classes, _folded(options.ignored))
        found = np.array([numbers.of_text(value, self.tally) for value in file.values], classes.dtype)
        kept = np.flatnonzero(found != numbers.none)
        # In the order of their classes: the last and the first to claim a pixel then tell whether all agree.
        kept = kept[np.argsort(found[kept], kind="stable")]
        self._classes = found[kept]
        shapes = np.array(file.shapes, object)[kept]
        self.count, self._grid = len(shapes), grid
        self._shapes = _whole(on_pixels(_valid(shapes), file.crs, grid), shapes)
        self._tree = shapely.STRtree(self._shapes)
        self._drawn: tuple[int, IndexArray, IndexArray] | None = None
        self._has_pixel = np.zeros(self.count, np.bool_)
        self._contradicted = 0

    @property
    def notes(self) -> tuple[str, ...]:
        """What became of the shapes, once all was read."""
        notes = []
        idle = self.count - int(self._has_pixel.sum())
        if idle:
            notes.append(
                f"{idle:,} of {self.count:,} shapes label no pixel: they lie off the map, between the centres of"
                " pixels, or under others of their class"
            )
        if self._contradicted:
            notes.append(f"{self._contradicted:,} px are claimed by shapes of different classes and do not count")
        return tuple(notes)

    def read(self, window: Window, counted: slice) -> NumberArray:
        """(H, W) class numbers, the largest of the type for none."""
        return self.read_units(window, counted)[0]

    def read_units(self, window: Window, counted: slice) -> tuple[NumberArray, IndexArray]:
        """As :meth:`read`, and (H, W) int32 the shape that labels each pixel, -1 for none."""
        first, last = self._claims(window)
        # One row more, for -1: no shape.
        none = self._classes.dtype.type(none_in(self._classes))
        classes = np.append(self._classes, none)
        contradicted = classes[first] != classes[last]
        numbers = np.where(contradicted, none, classes[last])
        units = np.where(contradicted, np.int32(-1), last)
        self._contradicted += int(np.count_nonzero(contradicted[counted]))
        self._has_pixel[units[counted][units[counted] >= 0]] = True
        return numbers, units

    def close(self) -> None:
        """Nothing is open."""

    def _claims(self, window: Window) -> tuple[IndexArray, IndexArray]:
        """(H, W) the first and the last shape in the order of classes that claims each pixel, -1 for none."""
        parts = []
        # Always the same blocks: rounding cannot decide otherwise in another window.
        for index in range(window.row // _BLOCK_ROWS, -(-window.row_stop // _BLOCK_ROWS)):
            top = index * _BLOCK_ROWS
            rows = slice(max(window.row - top, 0), min(window.row_stop - top, _BLOCK_ROWS))
            _, first, last = self._draw(index)
            parts.append((first[rows, window.cols], last[rows, window.cols]))
        firsts, lasts = zip(*parts, strict=True)
        return np.concatenate(firsts), np.concatenate(lasts)

    def _draw(self, index: int) -> tuple[int, IndexArray, IndexArray]:
        """The claims of block ``index`` of rows; the last one drawn is kept, rows come in order."""
        if self._drawn is None or self._drawn[0] != index:
            top, width = index * _BLOCK_ROWS, self._grid.width
            near = np.sort(self._tree.query(shapely.box(0, top, width, top + _BLOCK_ROWS))).astype(np.int32)
            self._drawn = index, self._burn(near[::-1], top), self._burn(near, top)
        return self._drawn

    def _burn(self, order: IndexArray, top: int) -> IndexArray:
        """(256, W) the last shape of an order that covers each pixel, -1 for none."""
        window = Window(top, 0, _BLOCK_ROWS, self._grid.width)
        return burned(self._shapes[order], order + 1, window) - 1


def own_names(classes: MapClasses) -> dict[str, int]:
    """Value, name or title of each class of a map -> its number."""
    words = {one.title: number for number, one in enumerate(classes.legend.classes)}
    words |= {one.name: number for number, one in enumerate(classes.legend.classes)}
    return words | {str(value): number for value, number in classes.numbers.items()}


def _folded(texts: frozenset[str]) -> frozenset[str]:
    return frozenset(text.casefold() for text in texts)


def _refuse_other_kinds(path: Path, shapes: tuple[Any, ...]) -> None:
    others = sorted({shape.geom_type for shape in shapes} - _KINDS)
    if others or not shapes:
        raise InputError(
            f"{path} holds {' and '.join(others) or 'no shapes at all'}, a reference needs points or polygons",
            "leave them out, or draw polygons around them",
        )


def _valid(shapes: ShapeArray) -> ShapeArray:
    valid: ShapeArray = shapely.make_valid(shapely.force_2d(shapes))
    return valid


def _whole(cut: ShapeArray, shapes: ShapeArray) -> ShapeArray:
    """Polygons without the lines and points that mending and cutting leave: those would be drawn as well."""
    was_polygon = np.isin(shapely.get_type_id(shapes), _POLYGONS)
    for index in np.flatnonzero(was_polygon & ~np.isin(shapely.get_type_id(cut), _POLYGONS)):
        parts = shapely.get_parts(cut[index])
        cut[index] = shapely.union_all(parts[np.isin(shapely.get_type_id(parts), _POLYGONS)])
    return cut
