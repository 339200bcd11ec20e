"""Outlines on the globe, compared with points whose longitude and latitude are computed another way."""

from __future__ import annotations

import math

import numpy as np
import pyproj
import pytest
import shapely
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from rasterio.crs import CRS
from shapely.geometry import shape as to_shape

from geoseg_cli.grid import Grid
from geoseg_cli.results.footprint import footprint


def lon_lat(grid: Grid, row: float, col: float) -> tuple[float, float]:
    x, y = grid.transform @ (col, row)
    return pyproj.Transformer.from_crs(grid.crs.to_wkt(), "EPSG:4326", always_xy=True).transform(x, y)


def utm(zone: int, easting: float, northing: float, side_px: int = 1000, north: bool = True) -> Grid:
    crs = CRS.from_epsg((32600 if north else 32700) + zone)
    return Grid(crs, Affine(10, 0, easting, 0, -10, northing), side_px, side_px)


@given(
    st.integers(1, 60), st.floats(200_000, 800_000), st.floats(100_000, 9_000_000),
    st.floats(0.05, 0.95), st.floats(0.05, 0.95),
)  # fmt: skip
def test_every_pixel_of_a_utm_grid_lies_inside_and_in_the_box(zone, easting, northing, down, along):
    grid = utm(zone, easting, northing)
    shape, (west, south, east, north) = footprint(grid)
    lon, lat = lon_lat(grid, down * grid.height, along * grid.width)
    assert to_shape(shape).buffer(1e-6).contains(shapely.Point(lon, lat))
    assert south <= lat <= north
    assert west <= lon <= east or (west > east and (lon >= west or lon <= east))


def test_the_outline_of_a_tile_keeps_near_its_curved_edge():
    """Lines of GeoJSON are straight in degrees; between the points they leave the edge furthest in the middle."""
    grid = utm(31, 300_000, 6_700_020, 10_980)
    plane = pyproj.CRS.from_proj4("+proj=aeqd +lat_0=60 +lon_0=0.4 +datum=WGS84")
    to_metres = pyproj.Transformer.from_crs("EPSG:4326", plane, always_xy=True)

    def furthest(ring):
        dense = np.array(shapely.segmentize(ring, 0.001).coords)
        line = shapely.LinearRing(np.stack(to_metres.transform(*dense.T), axis=1))
        edge = [lon_lat(grid, 0, col) for col in np.linspace(0, 10_980, 401)]
        return max(line.distance(shapely.Point(to_metres.transform(*point))) for point in edge)

    assert furthest(to_shape(footprint(grid)[0]).exterior) < 1.1
    corners = [(0, 0), (0, 10_980), (10_980, 10_980), (10_980, 0)]
    assert furthest(shapely.LinearRing([lon_lat(grid, *corner) for corner in corners])) > 300, "corners are not enough"


def test_an_outline_runs_counter_clockwise_also_on_south_up_grids():
    for transform in (Affine(10, 0, 500_000, 0, -10, 5e6), Affine(10, 0, 500_000, 0, 10, 5e6)):
        shape, _ = footprint(Grid(CRS.from_epsg(32631), transform, 50, 60))
        assert to_shape(shape).exterior.is_ccw


def test_a_grid_across_the_antimeridian_is_cut_there():
    grid = utm(1, 166_000, 1_000_000, 3000)  # zone 1 begins at 180 degrees west
    shape, (west, south, east, north) = footprint(grid)
    assert shape["type"] == "MultiPolygon"
    assert west > 179 > -179 > east
    parts = to_shape(shape).geoms
    assert all(part.bounds[0] >= -180 and part.bounds[2] <= 180 for part in parts)
    whole = sum(abs(pyproj.Geod(ellps="WGS84").geometry_area_perimeter(part)[0]) for part in parts)
    assert whole == pytest.approx(30_000**2, rel=0.01)
    assert south < north


def test_a_grid_in_degrees_beyond_180_is_put_back():
    shape, box = footprint(Grid(CRS.from_epsg(4326), Affine(0.1, 0, 175, 0, -0.1, 10), 100, 100))
    assert box == [175, 0, -175, 10]
    assert {part.bounds for part in to_shape(shape).geoms} == {(175, 0, 180, 10), (-180, 0, -175, 10)}


@pytest.mark.parametrize(("epsg", "pole"), [(3413, 90), (3031, -90)])
def test_a_grid_over_a_pole_reaches_it_at_all_longitudes(epsg, pole):
    grid = Grid(CRS.from_epsg(epsg), Affine(10_000, 0, -2e6, 0, -10_000, 2e6), 400, 400)
    shape, box = footprint(grid)
    outline = to_shape(shape)
    assert (box[0], box[2]) == (-180, 180)
    assert (box[3] if pole > 0 else box[1]) == pole
    assert 60 < min(abs(box[1]), abs(box[3])) < 75, "the nearest point of the edge is 2000 km from the pole"
    for lon in range(-175, 180, 10):
        assert outline.contains(shapely.Point(lon, math.copysign(85, pole)))
        assert not outline.contains(shapely.Point(lon, 0))


def test_the_whole_globe_is_one_box_from_either_meridian():
    for left in (-180, 0):
        _, box = footprint(Grid(CRS.from_epsg(4326), Affine(1, 0, left, 0, -1, 90), 180, 360))
        assert box == [-180, -90, 180, 90]


@pytest.mark.parametrize(
    "grid",
    [
        Grid(None, Affine(10, 0, 0, 0, -10, 0), 5, 5),
        Grid(CRS.from_wkt('LOCAL_CS["plan",UNIT["metre",1]]'), Affine(10, 0, 0, 0, -10, 0), 5, 5),
        Grid(CRS.from_epsg(3035), Affine(1e9, 0, 0, 0, -1e9, 0), 5, 5),
    ],
)
def test_a_grid_that_lies_nowhere_on_earth_has_no_outline(grid):
    assert footprint(grid) is None
