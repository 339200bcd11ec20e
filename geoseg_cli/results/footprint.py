"""Where a grid lies on the globe, as GeoJSON: longitudes and latitudes of WGS 84, cut at the antimeridian."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pyproj
import shapely
from shapely import affinity
from shapely.geometry import mapping
from shapely.geometry.polygon import orient

from geoseg_cli.grid import Grid

FloatArray = npt.NDArray[np.float64]

POINTS_PER_EDGE = 21
"""A straight edge of a map is a curve in degrees; 21 points keep within 1.1 m of that of 110 km at 60 degrees."""

DECIMALS = 7
"""About a centimetre."""


def footprint(grid: Grid) -> tuple[dict[str, Any], list[float]] | None:
    """Outline and bounding box of a grid.

    Returns:
        A GeoJSON Polygon or MultiPolygon, counter-clockwise, and (west, south, east, north), where west is more than
        east if the antimeridian is crossed (RFC 7946, sections 3.1.9 and 5.2); None where the grid does not tell.
    """
    ring = _ring(grid)
    if ring is None:
        return None
    west_to_east = _unwrapped(ring)
    turns = round((west_to_east[-1, 0] - west_to_east[0, 0]) / 360)
    if turns:
        west_to_east = _over_the_pole(west_to_east, ring)
    outline = shapely.Polygon(west_to_east)
    if not outline.is_valid or outline.area == 0:
        return None
    parts = _cut(outline)
    if turns:  # pieces that touch where the ring began
        parts = list(getattr(union := shapely.union_all(parts), "geoms", [union]))
    polygons = [orient(part) for part in parts]
    shape = polygons[0] if len(polygons) == 1 else shapely.MultiPolygon(polygons)
    is_all_around = bool(turns) or west_to_east[:, 0].max() - west_to_east[:, 0].min() > 360 - 1e-9
    return _rounded(mapping(shape)), _bounds(polygons, is_all_around)


def _ring(grid: Grid) -> FloatArray | None:
    """(n,2) longitudes and latitudes along the edge of the grid, first point repeated; None where there are none."""
    if grid.crs is None or not (grid.crs.is_geographic or grid.crs.is_projected):
        return None
    steps = np.linspace(0, 1, POINTS_PER_EDGE)[:-1]
    cols = np.concatenate([steps, np.ones_like(steps), 1 - steps, np.zeros_like(steps), [0]]) * grid.width
    rows = np.concatenate([np.zeros_like(steps), steps, np.ones_like(steps), 1 - steps, [0]]) * grid.height
    t = grid.transform
    crs = pyproj.CRS.from_wkt(grid.crs.to_wkt(version="WKT2_2018"))
    to_degrees = pyproj.Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
    ring = np.stack(to_degrees.transform(t.a * cols + t.b * rows + t.c, t.d * cols + t.e * rows + t.f), axis=1)
    return ring if np.isfinite(ring).all() else None


def _unwrapped(ring: FloatArray) -> FloatArray:
    """The ring without jumps of a whole turn between neighbours."""
    return np.stack([np.unwrap(ring[:, 0], period=360), ring[:, 1]], axis=1)


def _over_the_pole(open_ring: FloatArray, ring: FloatArray) -> FloatArray:
    """A ring around a pole becomes one along the pole's latitude, which is a line on a map of degrees."""
    pole = math.copysign(90, float(ring[:, 1].mean()))
    return np.concatenate([open_ring, [[open_ring[-1, 0], pole], [open_ring[0, 0], pole]]])


def _cut(outline: shapely.Polygon) -> list[shapely.Polygon]:
    """The parts of an outline between -180 and 180 degrees, from where it starts eastwards."""
    west, _, east, _ = outline.bounds
    parts = []
    for turn in range(math.floor((west + 180) / 360), math.ceil((east + 180) / 360)):
        globe = shapely.box(360 * turn - 180, -90, 360 * turn + 180, 90)
        part = affinity.translate(outline.intersection(globe), -360 * turn)
        parts += [piece for piece in getattr(part, "geoms", [part]) if piece.area > 0]
    return parts


def _bounds(parts: list[shapely.Polygon], is_all_around: bool) -> list[float]:
    boxes = [part.bounds for part in parts]
    south, north = min(box[1] for box in boxes), max(box[3] for box in boxes)
    west, east = (-180.0, 180.0) if is_all_around else (boxes[0][0], boxes[-1][2])
    return [round(value, DECIMALS) for value in (west, south, east, north)]


def _rounded(value: Any) -> Any:
    """Coordinates to a fixed number of decimals, so that the same map has the same outline everywhere."""
    if isinstance(value, dict):
        return {name: _rounded(part) for name, part in value.items()}
    if isinstance(value, tuple | list):
        return [_rounded(part) for part in value]
    return round(value, DECIMALS) if isinstance(value, float) else value
