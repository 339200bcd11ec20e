"""Pixel algebra and ground sampling distance."""

from __future__ import annotations

import math

import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from pyproj import Geod
from rasterio.crs import CRS

from geoseg_cli.grid import Grid, Window

UTM = CRS.from_epsg(32631)
windows = st.builds(Window, st.integers(0, 50), st.integers(0, 50), st.integers(0, 50), st.integers(0, 50))


def pixels_of(window: Window) -> set[tuple[int, int]]:
    return {(r, c) for r in range(window.row, window.row_stop) for c in range(window.col, window.col_stop)}


@given(windows, windows)
def test_intersection_holds_exactly_the_common_pixels(one: Window, other: Window) -> None:
    common = pixels_of(one) & pixels_of(other)
    assert pixels_of(one.intersection(other)) == common
    assert one.touches(other) == bool(common)


def test_rasterio_gets_column_before_row() -> None:
    made = Window(1, 2, 3, 4).to_rasterio()
    assert (made.col_off, made.row_off, made.width, made.height) == (2, 1, 4, 3)


def test_sampling_distance_of_a_projected_grid_is_its_pixel_size() -> None:
    grid = Grid(UTM, Affine(10, 0, 5e5, 0, -20, 4e6), 100, 100)
    assert grid.gsd_m() == pytest.approx((20, 10))


def test_sampling_distance_of_a_rotated_grid_is_the_length_of_a_step() -> None:
    grid = Grid(UTM, Affine.translation(5e5, 4e6) @ Affine.rotation(30) @ Affine.scale(10, -10), 9, 9)
    assert grid.gsd_m() == pytest.approx((10, 10))


def test_sampling_distance_in_feet_is_given_in_metres() -> None:
    grid = Grid(CRS.from_epsg(2263), Affine(10, 0, 1e6, 0, -10, 2e5), 9, 9)
    assert grid.gsd_m() == pytest.approx((3.048, 3.048), rel=1e-5)


@pytest.mark.parametrize("latitude", [0.0, 42.3, -57.0, 80.0])
def test_sampling_distance_of_degrees_agrees_with_the_ellipsoid(latitude: float) -> None:
    step = 1e-4
    grid = Grid(CRS.from_epsg(4326), Affine(step, 0, 5, 0, -step, latitude + step / 2), 1, 1)
    geod = Geod(ellps="WGS84")
    across = geod.inv(5, latitude, 5 + step, latitude)[2]
    down = geod.inv(5, latitude - step / 2, 5, latitude + step / 2)[2]
    assert grid.gsd_m() == pytest.approx((down, across), rel=0.01)


def test_a_grid_without_crs_has_no_sampling_distance() -> None:
    assert Grid(None, Affine.identity(), 3, 3).gsd_m() is None


@given(st.integers(0, 40), st.integers(0, 40), st.integers(1, 40), st.integers(1, 40), st.sampled_from([-10, 10]))
def test_bounds_on_pixel_edges_give_exactly_those_pixels(row: int, col: int, height: int, width: int, e: int) -> None:
    grid = Grid(UTM, Affine(10, 0, 499_980, 0, e, 4_000_020), 80, 80)
    x0, y0 = grid.transform @ (col, row)
    x1, y1 = grid.transform @ (col + width, row + height)
    window = grid.window_of_bounds(x0, min(y0, y1), x1, max(y0, y1))
    assert window == Window(row, col, height, width)


def test_bounds_that_miss_the_grid_give_an_empty_window() -> None:
    grid = Grid(UTM, Affine(10, 0, 0, 0, -10, 100), 10, 10)
    window = grid.window_of_bounds(1000, 1000, 1100, 1100)
    assert math.prod((window.height, window.width)) == 0


def test_sampling_distance_of_web_mercator_shrinks_with_the_latitude() -> None:
    x, y = 1_113_194.9, 14_000_000.0
    grid = Grid(CRS.from_epsg(3857), Affine(10, 0, x, 0, -10, y), 1, 1)
    latitude = math.degrees(2 * math.atan(math.exp((y - 5) / 6_378_137)) - math.pi / 2)
    assert latitude > 70
    assert grid.gsd_m() == pytest.approx((10 * math.cos(math.radians(latitude)),) * 2, rel=1e-3)


def test_a_crs_that_is_no_map_has_no_sampling_distance() -> None:
    assert Grid(CRS.from_epsg(4978), Affine(10, 0, 0, 0, -10, 0), 3, 3).gsd_m() is None
