"""Pixel algebra: windows of pixels and the map grid they lie on.

Every pair of numbers here is row before column and height before width; this is the only module that
knows that rasterio counts columns first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from affine import Affine

if TYPE_CHECKING:
    from rasterio.crs import CRS
    from rasterio.windows import Window as RasterioWindow

METRES_PER_DEGREE = 111_320.0
"""Length of one degree along the equator (WGS 84 semi-major axis x pi / 180), in metres."""


@dataclass(frozen=True, slots=True)
class Window:
    """A rectangle of whole pixels; ``row`` and ``col`` are its first ones, counted from 0."""

    row: int
    col: int
    height: int
    width: int

    @property
    def row_stop(self) -> int:
        """First row below the window."""
        return self.row + self.height

    @property
    def col_stop(self) -> int:
        """First column right of the window."""
        return self.col + self.width

    @property
    def rows(self) -> slice:
        """The rows as a slice of an array whose row 0 is the grid's row 0."""
        return slice(self.row, self.row_stop)

    @property
    def cols(self) -> slice:
        """The columns as a slice of an array whose column 0 is the grid's column 0."""
        return slice(self.col, self.col_stop)

    def intersection(self, other: Window) -> Window:
        """The common part; height or width 0 where the windows do not meet."""
        row, col = max(self.row, other.row), max(self.col, other.col)
        height = max(0, min(self.row_stop, other.row_stop) - row)
        width = max(0, min(self.col_stop, other.col_stop) - col)
        return Window(row, col, height, width)

    def touches(self, other: Window) -> bool:
        """Whether at least one pixel lies in both windows."""
        common = self.intersection(other)
        return common.height > 0 and common.width > 0

    def to_rasterio(self) -> RasterioWindow:
        """The same rectangle in rasterio's (column, row, width, height) order."""
        from rasterio.windows import Window as RasterioWindow

        return RasterioWindow(self.col, self.row, self.width, self.height)


@dataclass(frozen=True, slots=True)
class Grid:
    """Where pixels lie on Earth; two equal grids have the same pixels.

    Attributes:
        crs: Coordinate reference system, or None where the file states none.
        transform: Affine from (column, row) to map coordinates (GDAL's geotransform).
        height: Rows.
        width: Columns.
    """

    crs: CRS | None
    transform: Affine
    height: int
    width: int

    @property
    def window(self) -> Window:
        """The whole grid as a window."""
        return Window(0, 0, self.height, self.width)

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """Left, bottom, right and top of the rectangle around all pixels, in the units of the CRS."""
        corners = [
            self.transform @ corner for corner in ((0, 0), (self.width, 0), (0, self.height), (self.width, self.height))
        ]
        x, y = zip(*corners, strict=True)
        return min(x), min(y), max(x), max(y)

    @property
    def is_geographic(self) -> bool:
        """Whether the map coordinates are degrees."""
        return self.crs is not None and bool(self.crs.is_geographic)

    @property
    def center(self) -> tuple[float, float]:
        """Map coordinates (x, y) of the middle of the grid."""
        x, y = self.transform @ (self.width / 2, self.height / 2)
        return float(x), float(y)

    def gsd_m(self) -> tuple[float, float] | None:
        """Ground sampling distance of one (row, column) step at the grid's middle in metres.

        Degrees are turned into metres on a sphere: good to 1 %. Metres of a Mercator map are shrunk by its scale at
        that latitude; other projections are taken as true to scale.

        Returns:
            None without a CRS, and for one that is neither geographic nor projected.
        """
        if self.crs is None or not (self.crs.is_geographic or self.crs.is_projected):
            return None
        t = self.transform
        if self.is_geographic:
            x_scale = METRES_PER_DEGREE * math.cos(math.radians(self.center[1]))
            y_scale = METRES_PER_DEGREE
        else:
            x_scale = y_scale = float(self.crs.linear_units_factor[1]) / self._mercator_stretch()
        per_row = math.hypot(t.b * x_scale, t.e * y_scale)
        per_col = math.hypot(t.a * x_scale, t.d * y_scale)
        return per_row, per_col

    def _mercator_stretch(self) -> float:
        """Map metres per ground metre of a Mercator map at the grid's middle; 1 for other projections."""
        if self.crs is None or self.crs.to_dict().get("proj") != "merc":
            return 1.0
        from pyproj import Transformer

        to_degrees = Transformer.from_crs(self.crs.to_wkt(), "EPSG:4326", always_xy=True)
        return 1 / max(math.cos(math.radians(to_degrees.transform(*self.center)[1])), 1e-6)

    def window_of_bounds(self, left: float, bottom: float, right: float, top: float) -> Window:
        """The smallest window that covers a rectangle in map coordinates, clipped to the grid.

        Args:
            left, bottom, right, top: The rectangle in units of the CRS, in rasterio's order.

        Returns:
            A window; height or width is 0 where the rectangle misses the grid.
        """
        inverse = ~self.transform
        corners = [inverse @ (x, y) for x in (left, right) for y in (bottom, top)]
        cols, rows = [c for c, _ in corners], [r for _, r in corners]
        # 1e-6 px: bounds that name a pixel edge must not take in the next pixel by rounding.
        row, col = math.floor(min(rows) + 1e-6), math.floor(min(cols) + 1e-6)
        row_stop, col_stop = math.ceil(max(rows) - 1e-6), math.ceil(max(cols) - 1e-6)
        return Window(row, col, max(0, row_stop - row), max(0, col_stop - col)).intersection(self.window)

    def profile(self) -> dict[str, Any]:
        """The grid as keywords of ``rasterio.open(..., "w")``."""
        return {"crs": self.crs, "transform": self.transform, "height": self.height, "width": self.width}
