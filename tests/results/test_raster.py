from __future__ import annotations

import tracemalloc
import zlib
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
import rasterio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS

from geoseg_cli.errors import AccessError, GridError, StorageError
from geoseg_cli.results.raster import BLOCK_PX, RasterSpec, WorkRaster, software_tags


def random_pixels(bands, height, width):
    return np.random.default_rng(height).integers(0, 256, (bands, height, width)).astype(np.uint8)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(1, 700), min_size=1, max_size=6), st.integers(1, 40), st.integers(1, 2))
def test_any_heights_of_chunks_give_the_same_bytes(tmp_path_factory, grid, heights, width, bands):
    folder = tmp_path_factory.mktemp("chunks")
    pixels = random_pixels(bands, sum(heights), width)
    spec = RasterSpec(grid(sum(heights), width), bands=bands)
    with WorkRaster(folder / "chunks.tif", spec) as chunked:
        row = 0
        for height in heights:
            chunked.write(row, pixels[:, row : row + height])
            row += height
    with WorkRaster(folder / "whole.tif", spec) as whole:
        whole.write(0, pixels)
    assert chunked.path.read_bytes() == whole.path.read_bytes()
    assert np.array_equal(chunked.checksums, whole.checksums)
    with rasterio.open(chunked.path) as file:
        assert np.array_equal(file.read(), pixels)


def test_checksums_counts_and_values_are_those_of_the_pixels(tmp_path, grid):
    pixels = random_pixels(2, 1100, 33) // 3
    with WorkRaster(tmp_path / "w.tif", RasterSpec(grid(1100, 33), bands=2)) as work:
        work.write(0, pixels)
    wanted = [[zlib.crc32(plane[r : r + BLOCK_PX].tobytes()) for r in (0, 512, 1024)] for plane in pixels]
    assert work.checksums.tolist() == wanted
    assert work.counts.pixels.tolist() == np.bincount(pixels[0].ravel(), minlength=256).tolist()
    for band in (0, 1):
        assert np.flatnonzero(work.present[band]).tolist() == np.unique(pixels[band]).tolist()


@pytest.mark.parametrize(
    ("row", "shape", "dtype", "complaint"),
    [
        (11, (1, 5, 20), np.uint8, "row 11 handed in where row 10 is the next"),
        (9, (1, 5, 20), np.uint8, "row 9 handed in"),
        (10, (1, 91, 20), np.uint8, "below row 100"),
        (10, (2, 5, 20), np.uint8, "2 bands"),
        (10, (1, 5, 19), np.uint8, "19 columns"),
        (10, (1, 5, 20), np.int16, "int16"),
    ],
)
def test_rows_that_do_not_follow_or_fit_are_refused(tmp_path, grid, row, shape, dtype, complaint):
    work = WorkRaster(tmp_path / "w.tif", RasterSpec(grid(100, 20)))
    work.write(0, np.zeros((1, 10, 20), np.uint8))
    with pytest.raises(ValueError, match=complaint):
        work.write(row, np.zeros(shape, dtype))
    work.abandon()


def test_a_raster_with_missing_rows_cannot_be_closed(tmp_path, grid):
    work = WorkRaster(tmp_path / "w.tif", RasterSpec(grid(100, 20)))
    work.write(0, np.zeros((1, 99, 20), np.uint8))
    assert not work.is_complete
    with pytest.raises(RuntimeError, match="99 of 100 rows"):
        work.close()


def test_rows_never_written_read_as_nodata_not_as_class_0(tmp_path, grid):
    work = WorkRaster(tmp_path / "w.tif", RasterSpec(grid(2000, 20)))
    work.write(0, np.zeros((1, 600, 20), np.uint8))
    work.abandon()
    with rasterio.open(work.path) as file:
        pixels = file.read(1)
    assert (pixels[:600] == 0).all()
    assert (pixels[600:] == 255).all()


def test_leaving_the_block_by_an_exception_does_not_ask_for_the_missing_rows(tmp_path, grid):
    with pytest.raises(KeyboardInterrupt), WorkRaster(tmp_path / "w.tif", RasterSpec(grid(100, 20))):
        raise KeyboardInterrupt


def test_memory_is_one_row_of_blocks_however_high_the_raster(tmp_path, grid):
    width, height = 500, 40 * BLOCK_PX
    rows = np.zeros((1, 100, width), np.uint8)
    tracemalloc.start()
    with WorkRaster(tmp_path / "w.tif", RasterSpec(grid(height, width))) as work:
        for row in range(0, height, 100):
            work.write(row, rows[:, : min(100, height - row)])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    block_row, counts_of_a_block_row, area_per_row = BLOCK_PX * width, BLOCK_PX * 256 * 8 * 2, height * 8 * 6
    assert peak < 2 * block_row + counts_of_a_block_row + area_per_row + 1_000_000
    assert peak < height * width / 2


def test_a_crs_that_no_geotiff_can_hold_is_refused_before_any_work(tmp_path, grid):
    rotated_pole = CRS.from_string(
        "+proj=ob_tran +o_proj=longlat +o_lon_p=0 +o_lat_p=39.25 +lon_0=18 +to_meter=0.0174532925199433"
    )
    with pytest.raises(GridError, match="coordinate reference system") as caught:
        WorkRaster(tmp_path / "w.tif", RasterSpec(grid(5, 5, rotated_pole)), tmp_path / "map.tif")
    assert str(tmp_path / "map.tif") in caught.value.message
    assert not list(tmp_path.iterdir())


def test_a_missing_folder_is_a_storage_error_that_names_the_target(tmp_path, grid):
    with pytest.raises(StorageError, match=r"map\.tif"):
        WorkRaster(tmp_path / "gone" / "w.tif", RasterSpec(grid(5, 5)), tmp_path / "map.tif")


def test_a_denied_permission_is_an_access_error(tmp_path, grid, monkeypatch):
    def deny(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("geoseg_cli.results.raster._describe", deny)
    with pytest.raises(AccessError, match="Permission denied") as caught:
        WorkRaster(tmp_path / "w.tif", RasterSpec(grid(5, 5)), tmp_path / "map.tif")
    assert caught.value.exit_code == 77


def test_descriptions_must_be_as_many_as_bands(grid):
    with pytest.raises(ValueError, match="2 descriptions for 1 bands"):
        RasterSpec(grid(5, 5), descriptions=("a", "b"))


def test_a_palette_belongs_to_at_most_two_bands_that_are_not_averaged(grid, legend):
    for wrong in ({"bands": 3}, {"overview_resampling": "AVERAGE"}):
        with pytest.raises(ValueError, match="palette"):
            RasterSpec(grid(5, 5), palette=legend.palette(), **wrong)


def test_the_date_tag_is_in_utc_and_in_tiff_form():
    moment = datetime(2026, 1, 1, 1, 30, 5, tzinfo=timezone(timedelta(hours=2)))
    assert software_tags("geoseg 1.0", moment) == {
        "TIFFTAG_SOFTWARE": "geoseg 1.0",
        "TIFFTAG_DATETIME": "2025:12:31 23:30:05",
        "AREA_OR_POINT": "Area",
    }
    assert software_tags("", datetime(2026, 1, 1, tzinfo=UTC))["TIFFTAG_DATETIME"] == "2026:01:01 00:00:00"


def test_the_worst_case_covers_what_random_pixels_really_need(grid, make_cog):
    spec = RasterSpec(grid(1024, 1024), bands=2)
    cog = make_cog(spec, random_pixels(2, 1024, 1024))
    used = sum(path.stat().st_size for path in cog.parent.iterdir())
    assert used < spec.worst_case_bytes() < 3 * used
