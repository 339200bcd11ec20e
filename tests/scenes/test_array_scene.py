"""Arrays as scenes: the same numbers, grid and decisions as the file they came from, read window by window."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import xarray as xr
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from xarray.backends import BackendArray
from xarray.core import indexing

from geoseg_cli import predict
from geoseg_cli.bundle import InputSpec
from geoseg_cli.engines.fake_engine import IdentityEngine
from geoseg_cli.errors import BandError, GridError, InputError, RadiometryError, StorageError, UsageError
from geoseg_cli.grid import Window
from geoseg_cli.scenes import Scene, SceneOptions, open_scene
from geoseg_cli.scenes.array_scene import open_array
from tests.conftest import TEN_METRES, MakeScene
from tests.fakes.bundles import fake_bundle
from tests.test_predict import random_scene

rioxarray = pytest.importorskip("rioxarray")

UTM = "EPSG:32631"
BANDS = ("B02", "B03", "B04")
SPEC = InputSpec(("red", "green", "blue"), (), (0.1, 0.2, 0.3), (1.0,) * 3)
DN = SceneOptions(radiometry="dn")


def numbers(height: int = 6, width: int = 8, dtype: str = "uint16") -> np.ndarray[Any, Any]:
    """(3, H, W) of which no two pixels are equal; none is 0."""
    return (np.arange(3 * height * width).reshape(3, height, width) + 1000).astype(dtype)


def make_array(
    pixels: np.ndarray[Any, Any] | None = None,
    transform: Affine = TEN_METRES,
    names: tuple[str, ...] | None = BANDS,
    crs: str | None = UTM,
    **attrs: Any,
) -> Any:
    """An array as somebody makes it by hand: coordinates of pixel centres, no stored transform."""
    pixels = numbers() if pixels is None else pixels
    _, height, width = pixels.shape
    coords: dict[str, Any] = {
        "y": transform.f + transform.e * (np.arange(height) + 0.5),
        "x": transform.c + transform.a * (np.arange(width) + 0.5),
    }
    if names is not None:
        coords["band"] = list(names)
    array = xr.DataArray(pixels, dims=("band", "y", "x"), coords=coords, attrs=attrs)
    return array.rio.write_crs(crs) if crs else array


def whole(scene: Scene) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Reflectance and validity of all pixels."""
    patch = scene.read(scene.grid.window)
    return scene.to_reflectance(patch.pixels), patch.valid


@pytest.mark.parametrize("dims", list(permutations(("band", "y", "x"))))
def test_dimensions_may_come_in_any_order(dims: tuple[str, ...]) -> None:
    scene = open_array(make_array().transpose(*dims), SPEC, DN)
    np.testing.assert_array_equal(scene.read(scene.grid.window).pixels, numbers()[::-1])
    assert (scene.grid.crs, scene.grid.transform) == (CRS.from_string(UTM), TEN_METRES)


@pytest.mark.parametrize("x_step", [10.0, -10.0])
@pytest.mark.parametrize("y_step", [10.0, -10.0])
def test_the_grid_follows_ascending_and_descending_coordinates(x_step: float, y_step: float) -> None:
    transform = Affine(x_step, 0.0, 600_000.0, 0.0, y_step, 5_700_000.0)
    assert open_array(make_array(transform=transform), SPEC, DN).grid.transform == transform


def test_south_up_arrays_are_warned_of() -> None:
    scene = open_array(make_array(transform=Affine(10.0, 0.0, 0.0, 0.0, 10.0, 0.0)), SPEC, DN)
    assert any("south-up" in warning for warning in scene.warnings)


@pytest.mark.parametrize("keywords", [{}, {"masked": True}, {"mask_and_scale": True}])
def test_an_array_of_rioxarray_equals_the_file(make_scene: MakeScene, keywords: dict[str, bool]) -> None:
    pixels = numbers()
    pixels[1, 2, 3] = 0
    path = make_scene(pixels, bands=BANDS, tags=[(1e-4, -0.1)] * 3, nodata=0)
    with open_scene(path, SPEC) as file, rioxarray.open_rasterio(path, **keywords) as opened:
        scene = open_array(opened, SPEC)
        assert scene.grid == file.grid
        (ours, our_valid), (theirs, their_valid) = whole(scene), whole(file)
        np.testing.assert_array_equal(our_valid, their_valid)
        np.testing.assert_allclose(ours[:, our_valid], theirs[:, our_valid], atol=1e-6)
        assert scene.radiometry.rung == ("float" if "mask_and_scale" in keywords else "tags")


def test_a_scale_that_was_applied_is_not_applied_again(make_scene: MakeScene) -> None:
    path = make_scene(numbers(), bands=BANDS, tags=[(1e-4, -0.1)] * 3)
    with rioxarray.open_rasterio(path, mask_and_scale=True) as opened:
        scene = open_array(opened, SPEC)
    assert scene.radiometry.scale == (1.0,) * 3
    assert "was applied" in scene.radiometry.reason


def test_each_band_may_have_its_own_scale(make_scene: MakeScene) -> None:
    tags = [(1e-4, -0.1), (2e-4, -0.2), (3e-4, 0.05)]
    path = make_scene(numbers(), bands=BANDS, tags=tags)
    with pytest.warns(UserWarning, match="differ across bands"):
        opened = rioxarray.open_rasterio(path)
    with opened:
        reflectance, _ = whole(open_array(opened, SPEC))
    expected = np.stack([plane * s + o for plane, (s, o) in zip(numbers(), tags, strict=True)])[::-1]
    np.testing.assert_allclose(reflectance, expected, atol=1e-7)


def test_scaled_numbers_beyond_reflectance_are_refused() -> None:
    array = make_array(numbers().astype("float32"))
    array.encoding = {"scale_factor": 1e-4, "dtype": "uint16"}
    with pytest.raises(RadiometryError, match="no reflectance"):
        open_array(array, SPEC)


def test_floats_that_kept_a_scale_through_arithmetic_are_refused() -> None:
    array = make_array(scale_factor=1e-4, add_offset=-0.1)
    computed = array.copy(data=array.to_numpy() * np.float32(1e-4))
    computed.encoding = {}
    with pytest.raises(RadiometryError, match="cannot be told whether") as refusal:
        open_array(computed, SPEC)
    assert "radiometry" in refusal.value.hint


def test_the_user_decides_where_it_cannot_be_told() -> None:
    array = make_array(numbers().astype("float32") * 1e-4, scale_factor=1e-4)
    scene = open_array(array, SPEC, SceneOptions(radiometry="reflectance"))
    assert scene.radiometry.scale == (1.0,) * 3


def test_whole_numbers_whose_encoding_says_they_were_scaled_are_refused() -> None:
    array = make_array()
    array.encoding = {"scale_factor": 1e-4}
    with pytest.raises(RadiometryError, match="uint16"):
        open_array(array, SPEC)


def test_a_scale_in_attributes_and_encoding_is_refused() -> None:
    array = make_array(numbers().astype("float32"), scale_factor=1e-4)
    array.encoding = {"scale_factor": 1e-4, "dtype": "uint16"}
    with pytest.raises(RadiometryError, match="both"):
        open_array(array, SPEC)


def test_a_scale_that_is_no_number_is_refused() -> None:
    with pytest.raises(RadiometryError, match="scale or offset"):
        open_array(make_array(scale_factor="a tenth"), SPEC)


def test_whole_numbers_that_nothing_explains_are_refused() -> None:
    with pytest.raises(RadiometryError, match="nothing says what its uint16 numbers mean"):
        open_array(make_array(), SPEC)


def test_the_working_directory_does_not_say_what_numbers_mean(tmp_path: Path, monkeypatch: Any) -> None:
    folder = tmp_path / "S2A_MSIL2A_20220601T105631_N0400_R094_T31UFS_20220601T170000.SAFE"
    folder.mkdir()
    monkeypatch.chdir(folder)
    with pytest.raises(RadiometryError):
        open_array(make_array(), SPEC)


def test_small_floats_without_a_scale_are_reflectance() -> None:
    pixels = numbers().astype("float32") * 1e-4
    reflectance, _ = whole(open_array(make_array(pixels), SPEC))
    np.testing.assert_array_equal(reflectance, pixels[::-1])


def test_bands_are_named_by_long_name_where_the_coordinate_has_numbers(make_scene: MakeScene) -> None:
    path = make_scene(numbers(), bands=("B04", "B02", "B03"))
    with rioxarray.open_rasterio(path) as opened:
        assert opened.coords["band"].dtype.kind == "i"
        pixels = open_array(opened, SPEC, DN).read(Window(0, 0, 6, 8)).pixels
    np.testing.assert_array_equal(pixels, numbers()[[0, 2, 1]])


def test_names_that_no_sensor_knows_give_way_to_long_name() -> None:
    array = make_array(names=("band_1", "band_2", "band_3"), long_name=("B02", "B03", "B04"))
    np.testing.assert_array_equal(open_array(array, SPEC, DN).read(Window(0, 0, 6, 8)).pixels, numbers()[::-1])


def test_bands_without_names_are_refused_and_can_be_named() -> None:
    array = make_array(names=None)
    with pytest.raises(BandError, match="no band has a name"):
        open_array(array, SPEC, DN)
    named = open_array(array, SPEC, SceneOptions(bands=BANDS, radiometry="dn"))
    np.testing.assert_array_equal(named.read(Window(0, 0, 6, 8)).pixels, numbers()[::-1])


def test_an_array_of_two_dimensions_is_one_band() -> None:
    spec = InputSpec(("red",), (), (0.1,), (1.0,))
    scene = open_array(make_array().sel(band="B04"), spec, DN)
    np.testing.assert_array_equal(scene.read(scene.grid.window).pixels, numbers()[2:])


def test_a_dataset_of_variables_becomes_bands() -> None:
    dataset = xr.Dataset({name: make_array().sel(band=name, drop=True) for name in BANDS})
    scene = open_array(dataset.to_dataarray("variable"), SPEC, DN)
    np.testing.assert_array_equal(scene.read(scene.grid.window).pixels, numbers()[::-1])


def test_four_dimensions_are_refused() -> None:
    with pytest.raises(InputError, match="time"):
        open_array(make_array().expand_dims("time"), SPEC, DN)


def test_times_are_no_bands() -> None:
    times = make_array(names=None).assign_coords(band=np.arange(3).astype("datetime64[D]"))
    with pytest.raises(InputError, match="is time, not bands"):
        open_array(times, SPEC, DN)


def test_dimensions_without_x_and_y_are_refused() -> None:
    with pytest.raises(InputError, match="x and y") as refusal:
        open_array(make_array().rename(x="easting", y="northing"), SPEC, DN)
    assert "set_spatial_dims" in refusal.value.hint


@pytest.mark.parametrize(("dtype", "words"), [("complex64", "radar"), ("uint8", "8-bit"), ("bool", "bool")])
def test_numbers_that_are_no_reflectance_are_refused(dtype: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        open_array(make_array(numbers().astype(dtype)), SPEC, DN)


@given(
    st.integers(2, 400),
    st.floats(1e-4, 1e3),
    st.floats(-1e7, 1e7),
    st.sampled_from([1, -1]),
)
@settings(max_examples=60)
def test_any_regular_coordinates_give_back_their_transform(size: int, step: float, origin: float, sign: int) -> None:
    if abs(origin) > 1e9 * step:
        origin = step
    transform = Affine(step, 0.0, origin, 0.0, sign * step, origin)
    grid = open_array(make_array(np.ones((3, size, 4), "float32") / 8, transform), SPEC).grid
    np.testing.assert_allclose(grid.transform[:6], transform[:6], atol=1e-3 * step)


@given(st.integers(0, 19), st.floats(0.06, 0.9))
@settings(max_examples=30)
def test_coordinates_that_are_not_regular_are_refused(place: int, off_px: float) -> None:
    array = make_array(np.ones((3, 20, 20), "float32") / 8)
    xs = array.coords["x"].to_numpy().copy()
    # Moving an end moves the line that the others are compared with.
    xs[place] += 10 * off_px * (3 if place in (0, 19) else 1.2)
    with pytest.raises(GridError, match="evenly spaced"):
        open_array(array.assign_coords(x=xs), SPEC)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_coordinates_that_are_no_numbers_are_refused(value: float) -> None:
    array = make_array()
    xs = array.coords["x"].to_numpy().copy()
    xs[3] = value
    with pytest.raises(GridError):
        open_array(array.assign_coords(x=xs), SPEC, DN)


def test_repeated_coordinates_are_refused() -> None:
    array = make_array()
    with pytest.raises(GridError):
        open_array(array.assign_coords(x=np.full(8, 5.0)), SPEC, DN)


def test_float32_coordinates_of_a_utm_zone_are_regular() -> None:
    array = make_array(numbers(300, 8))
    array = array.assign_coords(y=array.coords["y"].astype("float32"), x=array.coords["x"].astype("float32"))
    grid = open_array(array, SPEC, DN).grid
    np.testing.assert_allclose(grid.transform[:6], TEN_METRES[:6], atol=0.5)


def test_a_cut_array_lies_where_its_pixels_lay(make_scene: MakeScene) -> None:
    odd = Affine(1 / 3, 0.0, 0.1, 0.0, -1 / 3, 50.1)
    path = make_scene(numbers(), bands=BANDS, transform=odd, crs="EPSG:4326")
    with rioxarray.open_rasterio(path) as opened:
        # The transform stored beside the CRS is still that of the whole.
        cut = opened.isel(x=slice(3, 7), y=slice(2, 6))
        scene = open_array(cut, SPEC, DN)
    expected = odd @ Affine.translation(3, 2)
    np.testing.assert_allclose(scene.grid.transform[:6], expected[:6], rtol=1e-14)
    assert (scene.grid.transform.a, scene.grid.transform.e) == (odd.a, odd.e)
    np.testing.assert_array_equal(scene.read(scene.grid.window).pixels, numbers()[::-1, 2:6, 3:7])


def test_every_second_pixel_is_twice_as_large(make_scene: MakeScene) -> None:
    with rioxarray.open_rasterio(make_scene(numbers(), bands=BANDS)) as opened:
        grid = open_array(opened.isel(x=slice(None, None, 2), y=slice(None, None, 2)), SPEC, DN).grid
    assert grid.transform == Affine(20.0, 0.0, 599_995.0, 0.0, -20.0, 5_700_005.0)


def test_a_rotated_array_keeps_its_transform_also_when_cut(make_scene: MakeScene) -> None:
    turned = TEN_METRES @ Affine.rotation(30)
    path = make_scene(numbers(), bands=BANDS, transform=turned)
    with rioxarray.open_rasterio(path) as opened:
        assert open_array(opened, SPEC, DN).grid.transform == turned
        cut = open_array(opened.isel(x=slice(2, None), y=slice(1, None)), SPEC, DN).grid.transform
    np.testing.assert_allclose(cut[:6], (turned @ Affine.translation(2, 1))[:6], rtol=1e-12)


def test_an_array_without_coordinates_takes_the_stored_transform_and_warns(make_scene: MakeScene) -> None:
    with rioxarray.open_rasterio(make_scene(numbers(), bands=BANDS), parse_coordinates=False) as opened:
        scene = open_array(opened, SPEC, DN)
    assert scene.grid.transform == TEN_METRES
    assert any("never cut" in warning for warning in scene.warnings)


def test_an_array_with_neither_coordinates_nor_transform_is_refused() -> None:
    with pytest.raises(GridError, match="no map grid"):
        open_array(make_array().drop_vars(["x", "y"]), SPEC, DN)


def test_ground_control_points_are_no_grid(make_scene: MakeScene) -> None:
    points = [GroundControlPoint(0, 0, 1, 2), GroundControlPoint(0, 8, 3, 4), GroundControlPoint(6, 0, 5, 6)]
    path = make_scene(numbers(), bands=BANDS, transform=Affine.identity(), crs=None)
    with rasterio.open(path, "r+") as file:
        file.gcps = (points, CRS.from_epsg(4326))
    with (
        rioxarray.open_rasterio(path) as opened,
        pytest.raises(GridError, match="ground control points"),
    ):
        open_array(opened, SPEC, DN)


def test_one_pixel_needs_a_transform() -> None:
    cut = make_array().isel(x=[0])
    with pytest.raises(GridError, match="one pixel along x"):
        open_array(cut, SPEC, DN)
    grid = open_array(cut.rio.write_transform(TEN_METRES), SPEC, DN).grid
    assert grid.transform == TEN_METRES


def test_an_array_without_a_crs_is_read_with_a_warning() -> None:
    scene = open_array(make_array(crs=None), SPEC, DN)
    assert scene.grid.crs is None
    assert any("no CRS" in warning for warning in scene.warnings)


def test_degrees_are_understood_by_their_names() -> None:
    degrees = make_array(transform=Affine(1e-4, 0.0, 4.0, 0.0, -1e-4, 51.0), crs="EPSG:4326")
    grid = open_array(degrees.rename(x="longitude", y="latitude"), SPEC, DN).grid
    assert grid.is_geographic
    np.testing.assert_allclose(grid.transform[:6], (1e-4, 0, 4, 0, -1e-4, 51), rtol=1e-9)


def set_nodata(array: xr.DataArray, key: str, value: float) -> Any:
    return array.rio.set_nodata(value) if key == "accessor" else array.assign_attrs({key: value})


@pytest.mark.parametrize("key", ["_FillValue", "missing_value", "nodata", "accessor"])
def test_the_nodata_number_means_nothing_in_any_band(key: str) -> None:
    pixels = numbers()
    pixels[0, 1, 1] = pixels[2, 4, 4] = 7
    expected = np.ones((6, 8), bool)
    expected[1, 1] = expected[4, 4] = False
    scene = open_array(set_nodata(make_array(pixels), key, 7), SPEC, DN)
    np.testing.assert_array_equal(scene.read(scene.grid.window).valid, expected)
    assert "7" in scene.nodata_reason


def test_nodata_can_be_named_or_denied_by_the_user() -> None:
    array = make_array(_FillValue=1000)
    named = open_array(array, SPEC, SceneOptions(radiometry="dn", nodata=1001))
    denied = open_array(array, SPEC, SceneOptions(radiometry="dn", nodata=None))
    assert np.argwhere(~named.read(named.grid.window).valid).tolist() == [[0, 1]]
    assert denied.read(denied.grid.window).valid.all()


def test_nodata_that_no_number_can_be_is_refused() -> None:
    with pytest.raises(UsageError, match="uint16"):
        open_array(make_array(), SPEC, SceneOptions(radiometry="dn", nodata=-9999))


def test_nodata_of_the_array_that_no_number_can_be_is_told() -> None:
    scene = open_array(make_array(_FillValue=-9999), SPEC, DN)
    assert scene.read(scene.grid.window).valid.all()
    assert "which no uint16 can be" in scene.nodata_reason


def test_where_any_band_is_enough_missing_numbers_are_the_average_of_training() -> None:
    pixels = numbers()
    pixels[0, 0, 0] = 7
    pixels[:, 5, 5] = 7
    scene = open_array(make_array(pixels, _FillValue=7), SPEC, SceneOptions(radiometry="dn", valid="any"))
    reflectance, valid = whole(scene)
    assert np.argwhere(~valid).tolist() == [[5, 5]]
    assert reflectance[2, 0, 0] == pytest.approx(0.3)
    assert reflectance[0, 0, 0] == pytest.approx(pixels[2, 0, 0] * 1e-4)


def test_saturated_numbers_are_lost_where_asked_for() -> None:
    pixels = numbers()
    pixels[0, 2, 2] = 65535
    options = SceneOptions(radiometry="dn", saturated=False)
    scene = open_array(make_array(pixels), SPEC, options)
    assert np.argwhere(~scene.read(scene.grid.window).valid).tolist() == [[2, 2]]


def test_an_array_without_a_crs_is_refused_where_one_is_required() -> None:
    options = SceneOptions(radiometry="dn", require_crs=True)
    open_scene(make_array(), SPEC, options=options).close()
    with pytest.raises(GridError, match="has no CRS"):
        open_scene(make_array(crs=None), SPEC, options)


def test_an_array_larger_than_allowed_is_refused() -> None:
    with pytest.raises(InputError, match=r"px; up to 10 pixels are accepted"):
        open_array(make_array(), SPEC, SceneOptions(radiometry="dn", max_pixels=10))


class Counting(BackendArray):
    """An array that is not read yet, and remembers what is asked of it."""

    def __init__(self, pixels: np.ndarray[Any, Any], broken_from_row: int | None = None) -> None:
        self.pixels, self.shape, self.dtype = pixels, pixels.shape, pixels.dtype
        self.broken_from_row = broken_from_row
        self.asked: list[tuple[int, int, int]] = []

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

    def _read(self, key: tuple[Any, ...]) -> np.ndarray[Any, Any]:
        rows = key[1]
        if self.broken_from_row is not None and rows.stop > self.broken_from_row:
            raise OSError("a chunk is missing")
        found: np.ndarray[Any, Any] = self.pixels[:, rows, key[2]][key[0]]
        self.asked.append((rows.start, rows.stop, found.size))
        return found


def lazy(counting: Counting, chunk: int | None = None) -> xr.DataArray:
    """The counting array as xarray's backends give one."""
    array = make_array(counting.pixels).copy(data=np.empty(counting.shape, counting.dtype))
    made = xr.DataArray(indexing.LazilyIndexedArray(counting), dims=array.dims, coords=array.coords, attrs=array.attrs)
    if chunk:
        made.encoding["preferred_chunks"] = {"y": chunk, "x": counting.shape[2], "band": 1}
    return made


def test_only_the_window_is_read() -> None:
    counting = Counting(numbers(64, 64))
    scene = open_array(lazy(counting), SPEC, DN)
    counting.asked.clear()
    pixels = scene.read(Window(10, 20, 5, 7)).pixels
    np.testing.assert_array_equal(pixels, numbers(64, 64)[::-1, 10:15, 20:27])
    assert counting.asked == [(10, 15, 3 * 5 * 7)]


@pytest.mark.parametrize("chunk", [1, 7, 16, 64, 100])
def test_strips_read_every_row_once_whatever_the_chunks(chunk: int) -> None:
    counting = Counting(numbers(90, 12))
    scene = open_array(lazy(counting, chunk), SPEC, DN)
    scene.source.close()
    counting.asked.clear()
    strips = [scene.read(Window(row, 0, min(11, 90 - row), 12)).pixels for row in range(0, 90, 11)]
    np.testing.assert_array_equal(np.concatenate(strips, axis=1), numbers(90, 12)[::-1])
    read = [row for start, stop, _ in counting.asked for row in range(start, stop)]
    assert read == list(range(90))


@given(data=st.data())
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_window_is_the_same_whatever_was_read_before(data: Any) -> None:
    pixels = numbers(40, 10)
    scene = open_array(lazy(Counting(pixels), data.draw(st.integers(1, 50))), SPEC, DN)
    for _ in range(data.draw(st.integers(1, 6))):
        row, col = data.draw(st.integers(0, 39)), data.draw(st.sampled_from([0, 0, 3]))
        window = Window(row, col, data.draw(st.integers(1, 40 - row)), 10 - col)
        np.testing.assert_array_equal(scene.read(window).pixels, pixels[::-1][:, window.rows, window.cols])


def test_many_threads_read_the_right_windows() -> None:
    pixels = numbers(200, 16)
    scene = open_array(lazy(Counting(pixels), 32), SPEC, DN)
    windows = [Window(row, col, 9, 16 - col) for row in range(0, 190, 3) for col in (0, 0, 5)]
    with ThreadPoolExecutor(8) as pool:
        for window, patch in zip(windows, pool.map(scene.read, windows), strict=True):
            np.testing.assert_array_equal(patch.pixels, pixels[::-1][:, window.rows, window.cols])


def test_a_chunk_that_cannot_be_read_is_named() -> None:
    counting = Counting(numbers(64, 64))
    scene = open_array(lazy(counting), SPEC, DN)
    counting.broken_from_row = 32
    with pytest.raises(StorageError, match=r"rows 30 to 39, columns 0 to 63 \(a chunk is missing\)"):
        scene.read(Window(30, 0, 10, 64))


def test_a_file_that_changes_below_an_array_is_noticed(make_scene: MakeScene) -> None:
    path = make_scene(numbers(), bands=BANDS)
    with rioxarray.open_rasterio(path) as opened:
        scene = open_array(opened, SPEC, DN)
        scene.refuse_change()
        path.write_bytes(path.read_bytes() + b"more")
        with pytest.raises(StorageError, match="changed"):
            scene.refuse_change()


def test_closing_the_scene_leaves_the_array_open(make_scene: MakeScene) -> None:
    with rioxarray.open_rasterio(make_scene(numbers(), bands=BANDS)) as opened:
        with open_array(opened, SPEC, DN) as scene:
            scene.read(Window(0, 0, 2, 2))
        np.testing.assert_array_equal(opened.to_numpy(), numbers())


def test_secrets_in_an_address_are_not_shown() -> None:
    array = make_array()
    array.encoding["source"] = "https://host/scene.tif?sig=SECRET"
    scene = open_array(array, SPEC, DN)
    assert "SECRET" not in str(scene.path)


def dask_zarr(folder: Path) -> Any:
    pytest.importorskip("zarr")
    dataset = make_array(numbers(70, 30)).chunk(y=16, x=30).to_dataset("band")
    dataset.to_zarr(folder / "cube.zarr", consolidated=False)
    opened = xr.open_zarr(folder / "cube.zarr", consolidated=False, decode_coords="all")
    return opened[list(BANDS)].to_dataarray("band")


def dask_netcdf(folder: Path) -> Any:
    pytest.importorskip("h5netcdf")
    dataset = make_array(numbers(70, 30)).to_dataset("band")
    dataset.to_netcdf(folder / "cube.nc", engine="h5netcdf")
    opened = xr.open_dataset(folder / "cube.nc", engine="h5netcdf", chunks={}, decode_coords="all")
    return opened[list(BANDS)].to_dataarray("band")


@pytest.mark.parametrize("make", [dask_zarr, dask_netcdf])
def test_stores_of_chunks_give_the_grid_and_the_numbers(tmp_path: Path, make: Callable[[Path], xr.DataArray]) -> None:
    pytest.importorskip("dask")
    scene = open_array(make(tmp_path), SPEC, DN)
    assert (scene.grid.crs, scene.grid.transform) == (CRS.from_string(UTM), TEN_METRES)
    strips = [scene.read(Window(row, 0, 10, 30)).pixels for row in range(0, 70, 10)]
    np.testing.assert_array_equal(np.concatenate(strips, axis=1), numbers(70, 30)[::-1])


def test_dask_computes_each_chunk_once_in_a_pass_over_strips() -> None:
    dask_array = pytest.importorskip("dask.array")
    computed: list[Any] = []

    def plane(block_info: Any) -> Any:
        place = block_info[None]["array-location"]
        computed.append(tuple(place))
        return numbers(96, 20)[tuple(slice(*limits) for limits in place)]

    chunks = ((3,), (32, 32, 32), (20,))
    array = make_array(numbers(96, 20)).copy(data=dask_array.map_blocks(plane, chunks=chunks, dtype="uint16"))
    scene = open_array(array, SPEC, DN)
    scene.source.close()
    computed.clear()
    for row in range(0, 96, 8):
        pixels = scene.read(Window(row, 0, 8, 20)).pixels
        np.testing.assert_array_equal(pixels, numbers(96, 20)[::-1, row : row + 8])
    assert len(computed) == 3


@pytest.mark.parametrize("is_north_up", [True, False])
def test_the_map_of_an_array_is_the_map_of_its_file(tmp_path: Path, is_north_up: bool) -> None:
    transform = Affine(10.0, 0.0, 600_000.0, 0.0, -10.0 if is_north_up else 10.0, 5_700_000.0)
    path = tmp_path / "scene.tif"
    random_scene(path, 90, 70, transform=transform)
    maps = [tmp_path / "of_file.tif", tmp_path / "of_array.tif"]
    options = predict.PredictOptions(tile_px=32, overlap_px=8)
    predict.predict_scene(path, maps[0], fake_bundle(), IdentityEngine(4), options)
    with rioxarray.open_rasterio(path) as array:
        predict.predict_scene(array, maps[1], fake_bundle(), IdentityEngine(4), options)
    with rasterio.open(maps[0]) as of_file, rasterio.open(maps[1]) as of_array:
        np.testing.assert_array_equal(of_array.read(), of_file.read())
        assert (of_array.crs, of_array.transform) == (of_file.crs, of_file.transform)
