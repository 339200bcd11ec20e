"""How much of a map each class covers: pixels, share and hectares on the ground."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from geoseg_cli.catalog import LabelType, Legend, value_count
from geoseg_cli.grid import Grid
from geoseg_cli.rows import LabelArray

if TYPE_CHECKING:
    import pyproj

FloatArray = npt.NDArray[np.float64]

M2_PER_HECTARE = 10_000.0
SAMPLED_ROWS = 1025
"""Rows where pixel areas are computed; between them they are interpolated, with a relative error below 2e-6."""
_MOST_AT_ONCE = 256
PROBE_M = 500.0
"""Half the length of the difference quotient: long against PROJ's rounding, short against the Earth's radius."""


@dataclass(frozen=True, slots=True)
class ClassArea:
    """What one class covers.

    Attributes:
        value, name, title: As in the legend.
        pixels: Number of pixels.
        share: Part of all pixels that have an answer, 0 to 1; nodata does not count.
        hectares: Area on the ellipsoid; None where the grid does not tell where on Earth it lies.
    """

    value: int
    name: str
    title: str
    pixels: int
    share: float
    hectares: float | None


class ClassCounts:
    """Pixels and ground area per raster value, summed while rows arrive; O(height) memory.

    Attributes:
        pixels: (V,) int64, number of pixels of each of the V values that the type has, 256 for uint8.
    """

    def __init__(self, grid: Grid, dtype: LabelType = "uint8") -> None:
        self._grid, self._values = grid, value_count(dtype)
        self.pixels: npt.NDArray[np.int64] = np.zeros(self._values, np.int64)
        self._sums_m2: FloatArray = np.zeros(self._values)

    @property
    def area_m2(self) -> FloatArray | None:
        """(V,) float64, area of the pixels of each value on the ground; None where the grid does not tell."""
        return None if self._row_m2 is None else self._sums_m2

    @cached_property
    def _row_m2(self) -> FloatArray | None:
        """Found out with the first rows, not before the engine has begun."""
        return pixel_areas_m2(self._grid)

    def add(self, row: int, labels: LabelArray) -> None:
        """Count some rows.

        Args:
            row: Row of the grid that ``labels[0]`` is.
            labels: (h,W) of the type.
        """
        if self._values > _MOST_AT_ONCE:
            self._add_sparse(row, labels)
            return
        counts = np.stack([np.bincount(line, minlength=self._values) for line in labels])
        self.pixels += counts.sum(axis=0)
        if self._row_m2 is not None:
            self._sums_m2 += self._row_m2[row : row + len(labels)] @ counts

    def _add_sparse(self, row: int, labels: LabelArray) -> None:
        """As ``add``, line by line: a table of all lines by all values would be larger than the map."""
        for index, line in enumerate(labels):
            values, counts = np.unique(line, return_counts=True)
            self.pixels[values] += counts
            if self._row_m2 is not None:
                self._sums_m2[values] += self._row_m2[row + index] * counts


def class_areas(counts: ClassCounts, legend: Legend) -> tuple[ClassArea, ...]:
    """What every class of the legend covers, in the legend's order, absent classes included."""
    answered = sum(int(counts.pixels[value]) for value in legend.values)
    return tuple(
        ClassArea(
            cls.value,
            cls.name,
            cls.title,
            int(counts.pixels[cls.value]),
            int(counts.pixels[cls.value]) / answered if answered else 0.0,
            None if counts.area_m2 is None else float(counts.area_m2[cls.value]) / M2_PER_HECTARE,
        )
        for cls in legend.classes
    )


def pixel_areas_m2(grid: Grid) -> FloatArray | None:
    """Mean ground area of the pixels of each row.

    The area is that on the ellipsoid of the CRS, for projected grids too: a Web Mercator pixel at 60 degrees
    covers a quarter of what its map units say, a UTM pixel differs by up to 0.1 %.

    Returns:
        (H,) float64 in square metres; None without a geographic or projected CRS, and where some part of
        the grid lies outside the projection.
    """
    if grid.crs is None or not (grid.crs.is_geographic or grid.crs.is_projected):
        return None
    import pyproj

    crs = pyproj.CRS.from_wkt(grid.crs.to_wkt(version="WKT2_2018"))
    earth = _Earth(crs, grid)
    rows = np.linspace(0.5, grid.height - 0.5, min(grid.height, SAMPLED_ROWS))
    # Simpson's rule along the row: exact for areas that vary as a cubic of the column.
    left, middle, right = (earth.pixel_m2(rows, share * grid.width) for share in (0.0, 0.5, 1.0))
    areas: FloatArray = np.interp(np.arange(grid.height) + 0.5, rows, (left + 4 * middle + right) / 6)
    return areas if np.isfinite(areas).all() else None


class _Earth:
    """Pixel positions -> points on the ellipsoid, and the area that one pixel covers there."""

    def __init__(self, crs: pyproj.CRS, grid: Grid) -> None:
        from pyproj import Transformer

        geodetic, ellipsoid = crs.geodetic_crs, crs.get_geod()
        assert geodetic is not None, "a geographic or projected CRS has a geodetic one"
        assert ellipsoid is not None, "a geodetic CRS has an ellipsoid"
        self._to_geodetic = Transformer.from_crs(crs, geodetic, always_xy=True)
        # Degrees for most, grads for a few French ones.
        self._radians_per_unit = geodetic.axis_info[0].unit_conversion_factor
        self._axis_m, self._eccentricity2 = ellipsoid.a, ellipsoid.es
        self._transform = grid.transform
        gsd_m = grid.gsd_m() or (1.0, 1.0)
        self._row_step, self._col_step = (max(0.5, PROBE_M / size) if size > 0 else 0.5 for size in gsd_m)

    def pixel_m2(self, rows: FloatArray, col: float) -> FloatArray:
        """Ground area per pixel at (row, col): (n,) -> (n,), NaN outside the projection."""
        down = self._points(rows + self._row_step, col) - self._points(rows - self._row_step, col)
        along = self._points(rows, col + self._col_step) - self._points(rows, col - self._col_step)
        area = np.linalg.norm(np.cross(down, along), axis=1)
        result: FloatArray = area / (4 * self._row_step * self._col_step)
        return result

    def _points(self, rows: FloatArray, col: float) -> FloatArray:
        """(n,) rows at one column -> (n,3) geocentric metres; no seam at the antimeridian, none at the poles."""
        t = self._transform
        x, y = t.a * col + t.b * rows + t.c, t.d * col + t.e * rows + t.f
        lon, lat = (np.asarray(v) * self._radians_per_unit for v in self._to_geodetic.transform(x, y))
        with np.errstate(invalid="ignore"):
            normal = self._axis_m / np.sqrt(1 - self._eccentricity2 * np.sin(lat) ** 2)
            equatorial = normal * np.cos(lat)
            polar = normal * (1 - self._eccentricity2) * np.sin(lat)
            return np.stack([equatorial * np.cos(lon), equatorial * np.sin(lon), polar], axis=1)
