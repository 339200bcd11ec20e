"""Pictures of maps: which pixel is shown where, checked by its place on the ground."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS

from geoseg_cli.errors import InputError, InputMissingError, StorageError
from geoseg_cli.grid import Grid
from geoseg_cli.results.picture import Frame, read_picture
from geoseg_cli.results.raster import RasterSpec

UTM = CRS.from_epsg(32631)
EIGHT = [
    Affine(10, 0, 5e5, 0, -10, 5e6),
    Affine(10, 0, 5e5, 0, 10, 5e6),
    Affine(-10, 0, 5e5, 0, -10, 5e6),
    Affine(-10, 0, 5e5, 0, 10, 5e6),
    Affine(0, 10, 5e5, -10, 0, 5e6),
    Affine(0, 10, 5e5, 10, 0, 5e6),
    Affine(0, -10, 5e5, -10, 0, 5e6),
    Affine(0, -10, 5e5, 10, 0, 5e6),
]


def centres(shown: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Map coordinates of the centre of every pixel, (H,W) each."""
    rows, cols = np.mgrid[: shown.height, : shown.width] + 0.5
    t = shown.transform
    return t.a * cols + t.b * rows + t.c, t.d * cols + t.e * rows + t.f


def places(grid: Grid, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Row and column, with fractions, of map coordinates in a file."""
    t = ~grid.transform
    return t.d * x + t.e * y + t.f, t.a * x + t.b * y + t.c


@pytest.mark.parametrize("transform", EIGHT)
def test_every_stored_direction_is_shown_north_up_and_at_its_place(transform):
    grid = Grid(UTM, transform, 40, 55)
    pixels = np.random.default_rng(0).integers(0, 255, (40, 55), np.uint8)
    frame = Frame.fit(grid, 1000)
    shown = frame.show(pixels, 255)
    assert frame.shown.transform.a > 0 > frame.shown.transform.e
    assert frame.shown.transform.b == frame.shown.transform.d == 0
    assert shown.shape == (frame.shown.height, frame.shown.width)
    rows, cols = places(grid, *centres(frame.shown))
    np.testing.assert_array_equal(shown, pixels[np.floor(rows).astype(int), np.floor(cols).astype(int)])


@pytest.mark.parametrize("degrees", [30, 45, -70, 170])
def test_a_slanted_grid_is_turned_and_empty_around(degrees):
    transform = Affine.translation(5e5, 4e6) @ Affine.rotation(degrees) @ Affine.scale(10, -10)
    grid = Grid(UTM, transform, 60, 45)
    pixels = np.random.default_rng(0).integers(0, 200, (60, 45), np.uint8)
    frame = Frame.fit(grid, 1000)
    shown = frame.show(pixels, 255)
    assert frame.shown.transform.a > 0 > frame.shown.transform.e
    assert frame.shown.transform.b == frame.shown.transform.d == 0
    rows, cols = places(grid, *centres(frame.shown))
    # GDAL may be off by an eighth of a pixel: pixels nearer to an edge may be their neighbours.
    is_sure = (np.abs(rows - np.round(rows)) > 0.2) & (np.abs(cols - np.round(cols)) > 0.2)
    is_inside = (rows > 0) & (cols > 0) & (rows < 60) & (cols < 45)
    row, col = np.floor(rows).astype(int), np.floor(cols).astype(int)
    where = is_sure & is_inside
    assert where.sum() > 500
    np.testing.assert_array_equal(shown[where], pixels[row[where], col[where]])
    assert (shown[is_sure & ~is_inside] == 255).all()


def test_the_corners_of_a_slanted_image_are_transparent():
    transform = Affine.translation(5e5, 4e6) @ Affine.rotation(45) @ Affine.scale(10, -10)
    shown = Frame.fit(Grid(UTM, transform, 50, 50), 1000).show_image(np.full((50, 50, 4), 255, np.uint8))
    assert [shown[row, col, 3] for row, col in ((0, 0), (0, -1), (-1, 0), (-1, -1))] == [0] * 4
    assert shown[shown.shape[0] // 2, shown.shape[1] // 2].tolist() == [255] * 4


def test_pixels_of_degrees_become_square_on_the_ground():
    grid = Grid(CRS.from_epsg(4326), Affine(1e-4, 0, 10, 0, -1e-4, 60), 300, 600)
    frame = Frame.fit(grid, 10_000)
    height_m, width_m = frame.shown.gsd_m()
    assert height_m == pytest.approx(width_m, rel=0.01)
    # At 60 degrees a degree of longitude is half as long as one of latitude.
    assert (frame.shown.height, frame.shown.width) == (600, pytest.approx(600, abs=2))


def test_a_grid_without_a_crs_is_shown_as_stored():
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    frame = Frame.fit(Grid(None, Affine(1, 0, 0, 0, 1, 0), 3, 4), 100)
    np.testing.assert_array_equal(frame.show(pixels, 255), pixels)


@settings(deadline=None)
@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(16, 900), st.floats(0.2, 5), st.floats(0, 360))
def test_no_picture_is_larger_than_asked_for_and_none_is_empty(height, width, max_px, ratio, degrees):
    transform = Affine.translation(5e5, 4e6) @ Affine.rotation(degrees) @ Affine.scale(10 * ratio, -10)
    frame = Frame.fit(Grid(UTM, transform, height, width), max_px)
    for size in (frame, frame.shown):
        assert min(size.height, size.width) >= 1
        assert max(size.height, size.width) <= max_px
    ground = np.array(centres(frame.shown))
    assert np.isfinite(ground).all()


def test_a_map_is_read_through_overviews_and_holds_classes_only(make_map, labels, legend):
    path = make_map(labels(1500, 1300))
    picture = read_picture(path, 333)
    assert picture.labels.shape == (333, round(1300 * 333 / 1500))
    assert set(np.unique(picture.labels)) <= {*legend.values, legend.nodata}
    assert picture.legend == legend


def test_every_pixel_has_its_class_color_and_nodata_is_transparent(make_map, labels, legend):
    pixels = labels(90, 130)
    colors = read_picture(make_map(pixels), 1000).colors()
    for cls in legend.classes:
        assert (colors[pixels == cls.value] == (*cls.rgb, 255)).all()
    assert (pixels == 255).any()
    assert (colors[pixels == 255][:, 3] == 0).all()


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_what_is_no_map_of_geoseg_is_refused(tmp_path: Path, make_map, make_cog, grid, labels):
    with pytest.raises(InputMissingError):
        read_picture(tmp_path / "none.tif", 100)
    with pytest.raises(InputError, match="no class map of geoseg"):
        read_picture(make_cog(RasterSpec(grid(5, 5)), labels(5, 5)[None]), 100)
    (tmp_path / "text.tif").write_text("text")
    with pytest.raises(InputError, match="it is no TIFF"):
        read_picture(tmp_path / "text.tif", 100)
    path = make_map(labels(300, 300))
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises((StorageError, InputError)):
        read_picture(path, 100)


def test_values_outside_the_legend_are_refused(make_map, labels, legend):
    pixels = labels(20, 20)
    pixels[3, 4] = 10
    path = make_map(pixels, legend=legend)
    picture = read_picture(path, 100)
    assert picture.labels[3, 4] == 10
    fewer = make_map(pixels, name="fewer.tif", legend=legend.subset((20, 30)), tags={"GEOSEG_LEGEND": "fewer"})
    with pytest.raises(InputError, match="no classes of its legend"):
        read_picture(fewer, 100)
