from __future__ import annotations

import numpy as np
import pyproj
import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from rasterio.crs import CRS

from geoseg_cli.catalog import Legend, legends
from geoseg_cli.grid import Grid
from geoseg_cli.results.areas import ClassCounts, class_areas, pixel_areas_m2


def outline_m2(grid: Grid) -> float:
    """Area inside the densified outline of a grid, by geodesic polygon: independent of pixels and derivatives."""
    crs = pyproj.CRS.from_wkt(grid.crs.to_wkt())
    share = np.linspace(0, 1, 2001)[:-1]
    ones, zeros = np.ones_like(share), np.zeros_like(share)
    cols = np.concatenate([share, ones, 1 - share, zeros]) * grid.width
    rows = np.concatenate([zeros, share, ones, 1 - share]) * grid.height
    t = grid.transform
    to_degrees = pyproj.Transformer.from_crs(crs, crs.geodetic_crs, always_xy=True)
    lon, lat = to_degrees.transform(t.a * cols + t.b * rows + t.c, t.d * cols + t.e * rows + t.f)
    return abs(crs.get_geod().polygon_area_perimeter(lon, lat)[0])


GRIDS = {
    "utm": Grid(CRS.from_epsg(32631), Affine(10, 0, 300_000, 0, -10, 5_000_000), 10_980, 10_980),
    "utm rotated": Grid(
        CRS.from_epsg(32631),
        Affine.translation(5e5, 5e6) @ Affine.rotation(30) @ Affine.scale(10, -10),
        3_000,
        5_000,
    ),
    "south-up": Grid(CRS.from_epsg(32631), Affine(10, 0, 5e5, 0, 10, 5e6), 1_000, 1_000),
    "one pixel": Grid(CRS.from_epsg(32631), Affine(10, 0, 5e5, 0, -10, 5e6), 1, 1),
    "geographic": Grid(CRS.from_epsg(4326), Affine(1e-4, 0, 10, 0, -1e-4, 60), 20_000, 30_000),
    "geographic, coarse": Grid(CRS.from_epsg(4326), Affine(0.5, 0, -20, 0, -0.5, 75), 260, 100),
    "geographic, sheared": Grid(CRS.from_epsg(4326), Affine(1e-3, 2e-4, 10, -3e-4, -1e-3, 50), 1_000, 800),
    "antimeridian": Grid(CRS.from_epsg(32701), Affine(10, 0, 100_000, 0, -10, 8_000_000), 5_000, 5_000),
    "web mercator": Grid(CRS.from_epsg(3857), Affine(10, 0, 1e6, 0, -10, 8e6), 5_000, 5_000),
    "south pole": Grid(CRS.from_epsg(3031), Affine(1000, 0, -1e6, 0, -1000, 1e6), 2_000, 2_000),
    "polar ring": Grid(CRS.from_epsg(3031), Affine(500, 0, 1e6, 0, -500, 2e6), 500, 700),
    "feet": Grid(CRS.from_epsg(2263), Affine(30, 0, 950_000, 0, -30, 250_000), 2_000, 2_000),
    "sphere": Grid(
        CRS.from_string("+proj=sinu +R=6371007.181 +units=m"), Affine(463, 0, 0, 0, -463, 1e6), 2_400, 2_400
    ),
    "grads": Grid(CRS.from_epsg(4807), Affine(1e-3, 0, 1, 0, -1e-3, 54), 1_000, 1_000),
}


@pytest.mark.parametrize("name", [name for name in GRIDS if name not in ("south pole", "grads")])
def test_pixels_add_up_to_the_geodesic_area_of_the_outline(name):
    grid = GRIDS[name]
    areas = pixel_areas_m2(grid)
    assert areas.shape == (grid.height,)
    assert areas.sum() * grid.width == pytest.approx(outline_m2(grid), rel=2e-5)


def test_a_grid_around_the_pole_has_no_hole():
    areas = pixel_areas_m2(GRIDS["south pole"])
    # Polar stereographic, true at 71 S: the areal scale is 1 / k0^2 at the pole, k0 = 0.97276901.
    assert areas[1000] == pytest.approx(1e6 / 0.97276901**2, rel=0.02)
    assert areas.sum() * 2_000 == pytest.approx(4e12 / 0.97276901**2, rel=0.03)
    assert np.abs(np.diff(areas) / areas[1:]).max() < 1e-3


def test_degrees_may_be_grads():
    # 1 grad = 0.9 degrees: the same ground in degrees on the same ellipsoid, that of EPSG:4807.
    grads = GRIDS["grads"]
    degrees = Grid(
        CRS.from_wkt(
            'GEOGCS["c",DATUM["d",SPHEROID["Clarke 1880 (IGN)",6378249.2,293.466021293627]],PRIMEM["Greenwich",0],'
            'UNIT["degree",0.0174532925199433]]'
        ),
        Affine(9e-4, 0, 0.9, 0, -9e-4, 48.6),
        1_000,
        1_000,
    )
    assert pixel_areas_m2(grads) == pytest.approx(pixel_areas_m2(degrees), rel=1e-6)


def test_utm_pixels_are_100_m2_divided_by_the_square_of_the_scale():
    # On the central meridian the scale is 0.9996 by definition.
    grid = Grid(CRS.from_epsg(32631), Affine(10, 0, 499_995, 0, -10, 5e6), 1, 1)
    assert pixel_areas_m2(grid)[0] == pytest.approx(100 / 0.9996**2, rel=1e-6)


def test_an_equal_area_projection_needs_no_correction():
    grid = Grid(CRS.from_epsg(3035), Affine(20, 0, 3.9e6, 0, -20, 3.1e6), 3_000, 3_000)
    assert pixel_areas_m2(grid) == pytest.approx(400, rel=1e-6)


def test_web_mercator_is_not_believed():
    grid = Grid(CRS.from_epsg(3857), Affine(10, 0, 0, 0, -10, 8_399_738), 1, 1)  # 60 degrees north
    assert pixel_areas_m2(grid)[0] == pytest.approx(25, rel=0.01)


@pytest.mark.parametrize(
    "grid",
    [
        Grid(None, Affine(10, 0, 0, 0, -10, 0), 5, 5),
        Grid(CRS.from_wkt('LOCAL_CS["site",UNIT["metre",1]]'), Affine(10, 0, 0, 0, -10, 0), 5, 5),
        Grid(CRS.from_string("+proj=geos +h=35785831 +ellps=WGS84"), Affine(1e4, 0, -6e6, 0, -1e4, 6e6), 1200, 1200),
    ],
    ids=["no crs", "local", "partly outside the projection"],
)
def test_without_a_place_on_earth_there_are_no_hectares(grid):
    assert pixel_areas_m2(grid) is None
    counts = ClassCounts(grid)
    counts.add(0, np.full((5, grid.width), 10, np.uint8))
    area = class_areas(counts, legends()["esa-worldcover"])[0]
    assert (area.pixels, area.share, area.hectares) == (5 * grid.width, 1.0, None)


@given(st.integers(1, 60), st.integers(1, 30), st.integers(0, 2**32 - 1), st.integers(1, 7))
def test_counts_shares_and_hectares_agree_with_a_plain_count(height, width, seed, chunk):
    legend: Legend = legends()["cloudsen12"]
    grid = Grid(CRS.from_epsg(4326), Affine(0.1, 0, 10, 0, -0.1, 80), height, width)
    labels = np.random.default_rng(seed).choice(np.array([*legend.values, 255], np.uint8), (height, width))
    counts = ClassCounts(grid)
    for row in range(0, height, chunk):
        counts.add(row, labels[row : row + chunk])
    row_m2 = pixel_areas_m2(grid)
    valid = int((labels != 255).sum())
    for area, cls in zip(class_areas(counts, legend), legend.classes, strict=True):
        mine = labels == cls.value
        assert (area.value, area.name, area.title) == (cls.value, cls.name, cls.title)
        assert area.pixels == mine.sum()
        assert area.share == pytest.approx(mine.sum() / valid if valid else 0)
        assert area.hectares == pytest.approx((mine.sum(axis=1) * row_m2).sum() / 1e4)


def test_rows_weigh_what_they_cover_even_within_one_block():
    # Class 0 in the northern half, class 1 in the southern: the same pixels, not the same ground.
    grid = Grid(CRS.from_epsg(4326), Affine(0.1, 0, 0, 0, -0.1, 80), 400, 10)
    labels = np.zeros((400, 10), np.uint8)
    labels[200:] = 1
    counts = ClassCounts(grid)
    counts.add(0, labels)
    north, south = class_areas(counts, legends()["cloudsen12"])[:2]
    assert (north.share, south.share) == (0.5, 0.5)
    geod = pyproj.Geod(ellps="WGS84")
    for area, top in ((north, 80), (south, 60)):
        edge = np.linspace(0, 1, 501)
        lon, lat = np.concatenate([edge, 1 - edge]), np.concatenate([0 * edge + top, 0 * edge + top - 20])
        assert area.hectares == pytest.approx(abs(geod.polygon_area_perimeter(lon, lat)[0]) / 1e4, rel=1e-5)
