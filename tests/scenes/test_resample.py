"""Another pixel size: averages and interpolations against plain arithmetic, whatever window is read, and back."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from rasterio.crs import CRS

from geoseg_cli.engines.fake_engine import ConstantEngine, IdentityEngine
from geoseg_cli.errors import GridError, UsageError
from geoseg_cli.grid import Grid, Window
from geoseg_cli.job import PredictOptions
from geoseg_cli.predict import predict_scene
from geoseg_cli.rows import Rows
from geoseg_cli.scenes import SceneOptions, check_resolution
from geoseg_cli.scenes.raster_file import BlockShape
from geoseg_cli.scenes.resample import AreaOfView, Resampled, _Length, choose_gsd, resampled_grid
from tests.fakes.bundles import STEP, fake_bundle

UTM = CRS.from_epsg(32631)
SIDES = st.integers(1, 40)


@dataclass
class MemorySource:
    """Stored pixels in memory that remember which windows were read."""

    pixels: npt.NDArray[Any]
    valid: npt.NDArray[np.bool_]
    grid: Grid
    nodata_reason: str = "as made"
    block_shape: BlockShape = field(default_factory=lambda: BlockShape(16, 16))
    warnings: tuple[str, ...] = ()
    windows: list[Window] = field(default_factory=list)
    is_closed: bool = False

    def read(self, window: Window) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        assert window.intersection(self.grid.window) == window
        self.windows.append(window)
        return self.pixels[:, window.rows, window.cols], self.valid[window.rows, window.cols]

    def bytes_in_cache(self, rows: int) -> int:
        return rows

    def close(self) -> None:
        self.is_closed = True


def utm_grid(height: int, width: int, step_m: float = 10.0) -> Grid:
    return Grid(UTM, Affine(step_m, 0, 500_000, 0, -step_m, 5_000_000), height, width)


def source_of(height: int, width: int, step_m: float = 10.0, seed: int = 0, lost: float = 0.0) -> MemorySource:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 65_536, (2, height, width)).astype(np.uint16)
    return MemorySource(pixels, rng.random((height, width)) >= lost, utm_grid(height, width, step_m))


def rows_of(labels: npt.NDArray[np.uint8], valid: npt.NDArray[np.bool_], step: int) -> list[Rows]:
    confidence = np.where(valid, labels / np.float32(256), 0).astype(np.float32)
    made = []
    for row in range(0, labels.shape[0], step):
        part = slice(row, row + step)
        made.append(Rows(row, labels[part], confidence[part], np.stack([confidence[part]] * 2), valid[part]))
    return made


def mean_by_repetition(values: npt.NDArray[Any], shown: tuple[int, int]) -> npt.NDArray[np.float64]:
    """Area sums the slow way: every stored pixel becomes as many equal ones as fit both sizes."""
    height, width = values.shape
    fine = values.astype(np.float64).repeat(shown[0], axis=0).repeat(shown[1], axis=1)
    return np.asarray(fine.reshape(shown[0], height, shown[1], width).mean(axis=(1, 3)))


@given(st.integers(1, 500), st.integers(1, 500))
def test_weights_are_whole_and_every_pixel_gives_or_takes_the_same_sum(stored: int, shown: int) -> None:
    index, weight, counts = _Length(stored, shown).taps(0, shown)
    assert (weight == np.rint(weight)).all()
    assert (weight >= 0).all()
    assert len(set(weight.sum(axis=1))) == 1
    assert counts.any(axis=1).all()
    assert (weight[counts] > 0).all()
    if stored >= shown:
        given_away = np.bincount(index.ravel(), weight.ravel(), minlength=stored)
        np.testing.assert_array_equal(given_away, np.full(stored, shown))


@given(SIDES, SIDES, st.floats(10, 60), st.integers(0, 99), st.sampled_from([0.0, 0.3, 0.9]))
def test_coarser_pixels_are_the_mean_of_their_valid_area(
    height: int, width: int, gsd_m: float, seed: int, lost: float
) -> None:
    source = source_of(height, width, seed=seed, lost=lost)
    resampled = Resampled(source, gsd_m)
    shape = (resampled.grid.height, resampled.grid.width)
    pixels, valid = resampled.read(resampled.grid.window)
    share = mean_by_repetition(source.valid, shape)
    np.testing.assert_array_equal(valid, share > 0)
    assert pixels.dtype == np.float32
    for plane, stored in zip(pixels, source.pixels, strict=True):
        total = mean_by_repetition(np.where(source.valid, stored, 0), shape)
        np.testing.assert_allclose(plane[valid], total[valid] / share[valid], rtol=1e-6)
        assert (plane[~valid] == 0).all()


@given(SIDES, SIDES, st.floats(1.5, 10), st.integers(0, 99))
def test_finer_pixels_lie_on_straight_lines_between_centres(height: int, width: int, gsd_m: float, seed: int) -> None:
    source = source_of(height, width, seed=seed)
    resampled = Resampled(source, gsd_m)
    pixels, valid = resampled.read(resampled.grid.window)
    assert valid.all()
    rows = (np.arange(resampled.grid.height) + 0.5) * height / resampled.grid.height - 0.5
    cols = (np.arange(resampled.grid.width) + 0.5) * width / resampled.grid.width - 0.5
    down = np.stack([np.interp(rows, np.arange(height), column) for column in source.pixels[0].T], axis=1)
    expected = np.stack([np.interp(cols, np.arange(width), line) for line in down])
    np.testing.assert_allclose(pixels[0], expected, rtol=1e-6, atol=1e-2)


@given(SIDES, SIDES, st.floats(2, 50), st.integers(0, 99), st.sampled_from([0.0, 0.4]), st.data())
def test_a_pixel_is_the_same_in_every_window(
    height: int, width: int, gsd_m: float, seed: int, lost: float, data: st.DataObject
) -> None:
    resampled = Resampled(source_of(height, width, seed=seed, lost=lost), gsd_m)
    whole, whole_valid = resampled.read(resampled.grid.window)
    row = data.draw(st.integers(0, resampled.grid.height - 1))
    col = data.draw(st.integers(0, resampled.grid.width - 1))
    window = Window(
        row,
        col,
        data.draw(st.integers(1, resampled.grid.height - row)),
        data.draw(st.integers(1, resampled.grid.width - col)),
    )
    pixels, valid = resampled.read(window)
    np.testing.assert_array_equal(pixels, whole[:, window.rows, window.cols])
    np.testing.assert_array_equal(valid, whole_valid[window.rows, window.cols])


def test_reading_in_small_chunks_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    resampled = Resampled(source_of(97, 61, lost=0.2), 23.0)
    whole, valid = resampled.read(resampled.grid.window)
    monkeypatch.setattr("geoseg_cli.scenes.resample._CHUNK_BYTES", 4096)
    chunked, chunked_valid = resampled.read(resampled.grid.window)
    np.testing.assert_array_equal(chunked, whole)
    np.testing.assert_array_equal(chunked_valid, valid)


@given(SIDES, SIDES, st.floats(1, 100), st.sampled_from([7.0, 0.1, -3e30]), st.sampled_from([0.0, 0.5]))
def test_a_constant_image_stays_exactly_constant(
    height: int, width: int, gsd_m: float, value: float, lost: float
) -> None:
    source = source_of(height, width, lost=lost)
    source.pixels = np.full((1, height, width), value, np.float32)
    pixels, valid = Resampled(source, gsd_m).read(resampled_grid(source.grid, gsd_m).window)
    assert (pixels[0][valid] == np.float32(value)).all()


def test_what_is_lost_may_hold_any_number() -> None:
    source = source_of(6, 6)
    source.pixels = np.ones((1, 6, 6))
    source.pixels[0, 0, 0], source.pixels[0, 0, 1], source.pixels[0, 1, 0] = np.nan, np.inf, -1.8e308
    source.valid[0, :2] = source.valid[1, 0] = False
    pixels, valid = Resampled(source, 20.0).read(Window(0, 0, 3, 3))
    assert valid.all()
    assert (pixels == 1).all()


@given(SIDES, SIDES, st.floats(2, 70), st.integers(0, 99), st.integers(1, 9))
def test_every_valid_pixel_gets_the_answer_of_the_pixel_that_holds_its_centre(
    height: int, width: int, gsd_m: float, seed: int, step: int
) -> None:
    source = source_of(height, width, seed=seed, lost=0.4)
    resampled = Resampled(source, gsd_m)
    _, shown_valid = resampled.read(resampled.grid.window)
    labels = np.random.default_rng(seed).integers(0, 200, shown_valid.shape).astype(np.uint8)
    labels = np.where(shown_valid, labels, np.uint8(255))
    parts = list(resampled.restore(iter(rows_of(labels, shown_valid, step)), 255))
    assert [part.row for part in parts] == [0, *np.cumsum([len(part.labels) for part in parts])[:-1]]
    restored = np.concatenate([part.labels for part in parts])
    np.testing.assert_array_equal(np.concatenate([part.valid for part in parts]), source.valid)
    probabilities = np.concatenate([part.probabilities for part in parts if part.probabilities is not None], axis=1)
    confidence = np.concatenate([part.confidence for part in parts])
    into_view = ~resampled.grid.transform @ source.grid.transform
    for row, col in np.ndindex(height, width):
        x, y = into_view @ (col + 0.5, row + 0.5)
        # A centre on an edge between two pixels belongs to the later one; 1e-9 px undoes rounding.
        wanted = labels[int(y + 1e-9), int(x + 1e-9)] if source.valid[row, col] else 255
        assert restored[row, col] == wanted
    expected = np.where(source.valid, restored / np.float32(256), 0)
    np.testing.assert_array_equal(confidence, expected)
    np.testing.assert_array_equal(probabilities, np.stack([expected] * 2))


def test_restored_pieces_are_no_larger_than_the_rows_that_came() -> None:
    source = source_of(400, 30)
    resampled = Resampled(source, 100.0)
    shape = (resampled.grid.height, resampled.grid.width)
    rows = rows_of(np.ones(shape, np.uint8), np.ones(shape, bool), 20)
    for part in resampled.restore(iter(rows), 255):
        assert part.labels.size <= max(20 * shape[1], 30)


def test_validity_is_remembered_from_reading_and_read_again_only_where_it_is_not() -> None:
    source = source_of(60, 30, lost=0.5)
    resampled = Resampled(source, 20.0)
    resampled.read(Window(0, 0, 15, 15))
    source.windows.clear()
    rows = rows_of(np.ones((30, 15), np.uint8), np.ones((30, 15), bool), 15)
    parts = list(resampled.restore(iter(rows), 255))
    np.testing.assert_array_equal(np.concatenate([part.valid for part in parts]), source.valid)
    assert [row for window in source.windows for row in range(window.row, window.row_stop)] == list(range(30, 60))


def test_a_full_memory_reads_again_and_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geoseg_cli.scenes.resample._MEMORY_BYTES", 8)
    source = source_of(60, 30, lost=0.5)
    resampled = Resampled(source, 20.0)
    _, valid = resampled.read(resampled.grid.window)
    rows = rows_of(np.ones((30, 15), np.uint8), valid, 7)
    parts = list(resampled.restore(iter(rows), 255))
    np.testing.assert_array_equal(np.concatenate([part.valid for part in parts]), source.valid)


@given(SIDES, SIDES, st.floats(0.3, 300), st.booleans())
def test_the_grid_that_is_shown_covers_the_same_ground(
    height: int, width: int, gsd_m: float, is_geographic: bool
) -> None:
    turned = Affine.translation(7.0, 45.0) @ Affine.rotation(25) @ Affine.scale(1e-4, -3e-4)
    grid = Grid(CRS.from_epsg(4326), turned, height, width) if is_geographic else utm_grid(height, width)
    shown = resampled_grid(grid, gsd_m)
    for row, col in ((0, 0), (0, 1), (1, 0), (1, 1)):
        corner = grid.transform @ (col * grid.width, row * grid.height)
        assert shown.transform @ (col * shown.width, row * shown.height) == pytest.approx(corner, rel=1e-12)
    steps, wanted = grid.gsd_m(), (grid.height, grid.width)
    assert steps is not None
    for size, step, made in zip(wanted, steps, (shown.height, shown.width), strict=True):
        assert made == 1 or abs(size * step / made - gsd_m) <= gsd_m / made


def test_pixels_of_unequal_sides_become_square() -> None:
    grid = Grid(CRS.from_epsg(4326), Affine(2e-4, 0, 10.0, 0, -1e-4, 60.02), 400, 400)
    steps = resampled_grid(grid, 10.0).gsd_m()
    assert steps == pytest.approx((10.0, 10.0), rel=5e-3)


@pytest.mark.parametrize(
    ("step_m", "wish", "expected"),
    [
        (10.0, "auto", None),
        (12.4, "auto", None),
        (8.1, "auto", None),
        (12.6, "auto", 10.0),
        (3.0, "auto", 10.0),
        (40.0, "auto", 10.0),
        (3.0, "native", None),
        (1.0, "native", None),
        (1.0, 10.0, 10.0),
        (10.0, 20.0, 20.0),
    ],
)
def test_the_size_that_is_chosen(step_m: float, wish: Any, expected: float | None) -> None:
    assert choose_gsd(utm_grid(50, 50, step_m), 10.0, wish) == expected


@pytest.mark.parametrize("step_m", [2.4, 41.0])
def test_pixels_more_than_four_times_off_are_refused_with_the_option_that_insists(step_m: float) -> None:
    with pytest.raises(GridError) as caught:
        choose_gsd(utm_grid(50, 50, step_m), 10.0, "auto", "scene.tif")
    assert "scene.tif" in caught.value.message
    assert "--gsd 10" in caught.value.hint


def test_pixels_far_off_a_range_are_told_with_the_range_that_they_are_measured_from() -> None:
    grid, learned = utm_grid(50, 50, 900), (10.0, 30.0)
    with pytest.raises(GridError, match=r"30 times off the 10 to 30 m of the model"):
        choose_gsd(grid, 10.0, "auto", gsd_range_m=learned)
    with pytest.raises(GridError, match=r"the model needs 10 to 30 m"):
        check_resolution(grid, 10.0, gsd_range_m=learned)
    (warning,) = check_resolution(utm_grid(50, 50, 50), 10.0, gsd_range_m=learned)
    assert "was trained on 10 to 30 m" in warning


@pytest.mark.parametrize("wish", [0.0, -1.0, float("nan"), float("inf")])
def test_what_is_no_size_is_refused(wish: float) -> None:
    with pytest.raises(UsageError):
        choose_gsd(utm_grid(5, 5), 10.0, wish)


def test_a_grid_without_a_crs_stays_as_it_is_and_cannot_be_resampled() -> None:
    grid = Grid(None, Affine.identity(), 5, 5)
    assert choose_gsd(grid, 10.0, "auto") is None
    with pytest.raises(GridError, match="no CRS"):
        resampled_grid(grid, 10.0)


def test_larger_pixels_than_the_models_are_told_and_closing_reaches_the_files() -> None:
    source = source_of(10, 10, step_m=30.0)
    resampled = Resampled(source, 10.0)
    assert any("smaller pixels than it has" in text for text in resampled.warnings)
    assert Resampled(source_of(10, 10, step_m=3.0), 10.0).warnings == ()
    resampled.close()
    assert source.is_closed


@given(SIDES, SIDES, st.floats(2, 60), st.data())
def test_windows_of_the_view_share_out_the_stored_pixels(
    height: int, width: int, gsd_m: float, data: st.DataObject
) -> None:
    resampled = Resampled(source_of(height, width), gsd_m)
    cut = data.draw(st.integers(0, resampled.grid.height))
    upper = resampled.stored_window(Window(0, 0, cut, resampled.grid.width))
    lower = resampled.stored_window(Window(cut, 0, resampled.grid.height - cut, resampled.grid.width))
    assert (upper.row, upper.row_stop, lower.row_stop) == (0, lower.row, height)
    assert (upper.col, upper.col_stop) == (0, width)
    pixel = Window(data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1)), 1, 1)
    tiles = [upper_or_lower for upper_or_lower in (upper, lower) if upper_or_lower.touches(pixel)]
    assert len(tiles) == 1
    seen = AreaOfView(pixel, resampled)
    assert seen.touches(Window(0, 0, cut, resampled.grid.width)) == upper.touches(pixel)


def write_scene(path: Path, labels: npt.NDArray[np.int_], valid: npt.NDArray[np.bool_], step_m: float) -> None:
    pixels = np.where(valid, labels * int(STEP * 10_000), 65_535).astype(np.uint16)
    transform = Affine(step_m, 0, 499_980, 0, -step_m, 4_900_020)
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        dtype="uint16",
        count=1,
        height=labels.shape[0],
        width=labels.shape[1],
        crs="EPSG:32631",
        transform=transform,
        nodata=65_535,
    ) as file:
        file.write(pixels, 1)
        file.set_band_description(1, "red")
        file.scales = (1e-4,)


@pytest.mark.parametrize(("step_m", "block"), [(5.0, 2), (30.0, 1), (3.3333, 3)])
def test_a_map_of_a_resampled_scene_lies_on_the_scenes_own_pixels(tmp_path: Path, step_m: float, block: int) -> None:
    rng = np.random.default_rng(3)
    # Blocks that the model's pixels cover whole, or whose centres they share: the answer is the scene itself.
    labels = rng.integers(0, 4, (60 // block, 48 // block)).repeat(block, axis=0).repeat(block, axis=1)
    valid = rng.random(labels.shape) > 0.3
    write_scene(tmp_path / "scene.tif", labels, valid, step_m)
    options = PredictOptions(tile_px=32, overlap_px=8, confidence=tmp_path / "c.tif", probabilities=tmp_path / "p.tif")
    report = predict_scene(tmp_path / "scene.tif", tmp_path / "map.tif", fake_bundle(), IdentityEngine(4), options)
    with rasterio.open(tmp_path / "scene.tif") as scene, rasterio.open(tmp_path / "map.tif") as made:
        assert (made.transform, made.crs, made.shape) == (scene.transform, scene.crs, scene.shape)
        np.testing.assert_array_equal(made.read(1), np.where(valid, labels, 255))
    with rasterio.open(tmp_path / "c.tif") as file:
        np.testing.assert_array_equal(file.read(1) != 255, valid)
    with rasterio.open(tmp_path / "p.tif") as file:
        np.testing.assert_array_equal(file.read(1) != 255, valid)
    assert report.decisions["resampled_gsd_m"] == pytest.approx([10.0, 10.0], rel=1e-3)
    assert report.valid_pixels == valid.sum()


@pytest.mark.parametrize(("gsd", "expected"), [("native", 3.0), (6.0, 6.0), ("auto", 10.0)])
def test_the_network_sees_the_pixel_size_that_was_asked_for(tmp_path: Path, gsd: Any, expected: float) -> None:
    labels = np.zeros((60, 90), int)
    write_scene(tmp_path / "scene.tif", labels, np.ones(labels.shape, bool), 3.0)
    engine = IdentityEngine(4)
    report = predict_scene(
        tmp_path / "scene.tif", tmp_path / "map.tif", fake_bundle(), engine, PredictOptions(gsd=gsd, tile_px=64)
    )
    shown = report.decisions["resampled_gsd_m"] or report.decisions["gsd_m"]
    assert shown == pytest.approx([expected] * 2)
    assert report.tiles_run == (2 if gsd == "native" else 1)


def test_bounds_cut_a_resampled_scene_at_its_own_pixels(tmp_path: Path) -> None:
    labels = np.full((120, 120), 2)
    write_scene(tmp_path / "scene.tif", labels, np.ones(labels.shape, bool), 3.0)
    with rasterio.open(tmp_path / "scene.tif") as scene:
        left, top = scene.transform @ (31, 47)
    bounds = (left, top - 11 * 3, left + 7 * 3, top)
    engine = IdentityEngine(4)
    report = predict_scene(
        tmp_path / "scene.tif",
        tmp_path / "map.tif",
        fake_bundle(),
        engine,
        PredictOptions(bounds=bounds, tile_px=16, overlap_px=0),
    )
    inside = np.zeros(labels.shape, bool)
    inside[47:58, 31:38] = True
    with rasterio.open(tmp_path / "map.tif") as made:
        np.testing.assert_array_equal(made.read(1), np.where(inside, 2, 255))
    # The 11 x 7 pixels are 14.1 to 17.4 by 9.3 to 11.4 on the view, whose 3 x 3 tiles start at 0, 16 and 20.
    assert report.tiles_run == 2


@pytest.mark.parametrize("gsd_m", [20.0, 37.0, 90.0])
def test_gdal_averages_alike(gsd_m: float) -> None:
    from rasterio.warp import Resampling, reproject

    source = source_of(150, 170, seed=8)
    resampled = Resampled(source, gsd_m)
    pixels, _ = resampled.read(resampled.grid.window)
    expected = np.zeros(pixels.shape, np.float32)
    reproject(
        source.pixels.astype(np.float32),
        expected,
        src_transform=source.grid.transform,
        src_crs=UTM,
        dst_transform=resampled.grid.transform,
        dst_crs=UTM,
        resampling=Resampling.average,
    )
    np.testing.assert_allclose(pixels, expected, rtol=1e-3)


def test_a_real_scene_of_6_m_pixels_gets_a_map_on_them(tmp_path: Path, real_data: Path) -> None:
    (path,) = (real_data / "awkward" / "web_mercator").glob("*.tif")
    options = PredictOptions(scene=SceneOptions(("B04", "B03", "B02", "B08"), "dn"), tile_px=128, overlap_px=32)
    engine = ConstantEngine([0.0, 1.0, 0.0, 0.0])
    report = predict_scene(path, tmp_path / "map.tif", fake_bundle(), engine, options)
    assert report.decisions["resampled_gsd_m"] == pytest.approx([10.0, 10.0], rel=2e-3)
    with rasterio.open(path) as scene, rasterio.open(tmp_path / "map.tif") as made:
        valid = (scene.read([1, 4]) != scene.nodata).all(axis=0)
        assert (made.transform, made.crs, made.shape) == (scene.transform, scene.crs, scene.shape)
        np.testing.assert_array_equal(made.read(1), np.where(valid, 1, 255))


@pytest.mark.parametrize(
    ("step_m", "shown_m"), [(10, None), (30, None), (37, None), (38, 10.0), (8, None), (7.9, 10.0), (120, 10.0)]
)
def test_a_model_of_several_pixel_sizes_sees_those_between_as_they_are(step_m: float, shown_m: float | None) -> None:
    assert choose_gsd(utm_grid(50, 50, step_m), 10.0, "auto", gsd_range_m=(10.0, 30.0)) == shown_m


@given(
    rows=st.integers(2, 9), cols=st.integers(2, 9), size_m=st.sampled_from([5.0, 20.0, 30.0]), seed=st.integers(0, 9)
)
def test_a_number_that_one_band_lacks_takes_no_part_in_its_average(
    rows: int, cols: int, size_m: float, seed: int
) -> None:
    source = source_of(rows, cols, seed=seed)
    source.pixels = source.pixels.astype(np.float32)
    whole = Resampled(source, size_m)
    lost = np.random.default_rng(seed).random((rows, cols)) < 0.4
    source.pixels[0][lost] = np.nan
    pixels, valid = whole.read(whole.grid.window)
    only = source_of(rows, cols, seed=seed)
    only.pixels, only.valid = only.pixels.astype(np.float32), ~lost
    alone = Resampled(only, size_m)
    right, has_any = alone.read(alone.grid.window)
    assert valid.all()
    assert not np.isnan(pixels[1]).any()
    np.testing.assert_array_equal(pixels[0][has_any], right[0][has_any])


@pytest.mark.parametrize("wish", [1e-320, 1e-7, 2.4, 41.0, 1e300])
def test_a_wished_size_far_off_the_model_s_is_refused_before_anything_is_planned(wish: float) -> None:
    with pytest.raises(UsageError, match="more than 4 times off"):
        choose_gsd(utm_grid(5, 5), 10.0, wish)
    assert choose_gsd(utm_grid(5, 5), 10.0, 41.0, gsd_range_m=(10.0, 30.0)) == 41.0
