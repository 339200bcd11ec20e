"""What is read from a GeoTIFF is what was written, and validity is what was said."""

from __future__ import annotations

import math
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio._env import get_gdal_config
from rasterio.crs import CRS
from rasterio.transform import Affine

from geoseg_cli.bundle import InputSpec
from geoseg_cli.errors import GridError, InputMissingError, RadiometryError, StorageError, UsageError
from geoseg_cli.grid import Grid, Window
from geoseg_cli.scenes import SceneOptions, block_cache, check_resolution, open_scene
from geoseg_cli.scenes.raster_file import read_bands, valid_in_all, valid_numbers
from geoseg_cli.scenes.single_file import find
from geoseg_cli.scenes.stack import open_stack
from tests.conftest import TEN_METRES, MakeScene, write_scene

NAMES = ("B02", "B03", "B04", "B08", "B11", "B12")
SIX = InputSpec(("blue", "green", "red", "nir", "swir16", "swir22"), ("swir16", "swir22"), (0.0,) * 6, (1.0,) * 6)
RED = InputSpec(("red",), (), (0.0,), (1.0,))
DN = SceneOptions(radiometry="dn")

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


def noise(count: int, height: int, width: int, dtype: str = "uint16", seed: int = 0) -> npt.NDArray[Any]:
    return np.random.default_rng(seed).integers(1, 10_000, (count, height, width)).astype(dtype)


@st.composite
def windows(draw: st.DrawFn, height: int, width: int) -> Window:
    row, col = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
    return Window(row, col, draw(st.integers(1, height - row)), draw(st.integers(1, width - col)))


STORED: dict[str, dict[str, Any]] = {
    "tiles": {"tiled": True, "blockxsize": 16, "blockysize": 32, "compress": "deflate", "predictor": 2},
    "strips": {"compress": "lzw"},
    "pixel-interleaved": {"interleave": "pixel", "tiled": True, "blockxsize": 16, "blockysize": 16},
    "bigtiff": {"bigtiff": "yes", "compress": "zstd"},
    "uncompressed": {"blockysize": 7},
    "big-endian": {"endianness": "big"},
}


@pytest.mark.parametrize("stored", STORED)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.data(),
    dtype=st.sampled_from(["uint16", "int16", "int32", "float32", "float64"]),
    order=st.permutations(NAMES),
    nodata=st.sampled_from([None, 0, 7, -9999, math.nan]),
    cores=st.sampled_from([1, 2, 5]),
)
def test_any_window_is_what_was_written(
    tmp_path: Path, stored: str, data: st.DataObject, dtype: str, order: list[str], nodata: float | None, cores: int
) -> None:
    written = noise(6, 41, 57, dtype)
    written[np.random.default_rng(1).random(written.shape) < 0.02] = 7
    fits = (
        nodata is None or np.dtype(dtype).kind == "f" or (not math.isnan(nodata) and (dtype != "uint16" or nodata >= 0))
    )
    shuffled = np.stack([written[NAMES.index(name)] for name in order])
    path = write_scene(tmp_path / "scene.tif", shuffled, order, nodata=nodata if fits else None, **STORED[stored])
    window = data.draw(windows(41, 57))
    usable = mock.patch("geoseg_cli.scenes.raster_file.usable_cores", return_value=cores)
    with usable, open_scene(path, SIX, SceneOptions(radiometry="dn")) as scene:
        patch = scene.read(window)
    right = written[:, window.row : window.row + window.height, window.col : window.col + window.width]
    missing = np.zeros(right.shape[1:], bool)
    for plane in right:
        missing |= plane == (math.inf if nodata is None or not fits else nodata)
    assert patch.pixels.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(patch.pixels, right)
    np.testing.assert_array_equal(patch.valid, ~missing)


def test_a_scene_says_where_it_lies_and_what_was_decided(make_scene: MakeScene) -> None:
    path = make_scene(noise(5, 20, 30), bands=("SCL", "B04", "B03", "B02", "B08"), nodata=0)
    with open_scene(path, SIX, DN) as scene:
        assert scene.path == path
        assert scene.grid == Grid(CRS.from_epsg(32631), TEN_METRES, 20, 30)
        assert scene.present == (True, True, True, True, False, False)
        assert scene.nodata_reason == "nodata tag 0"
        assert scene.radiometry.rung == "option"
        assert scene.warnings == ()
        assert scene.identities[path].size_bytes == path.stat().st_size
        assert scene.bands.file_names == ("", "B04", "B03", "B02", "B08")
        assert scene.bands.numbers == (4, 3, 2, 5, None, None)


def test_reflectance_follows_the_tags_of_each_band(make_scene: MakeScene) -> None:
    dn = noise(6, 8, 9)
    tags = [(1e-4, -0.1), (1e-4, 0.0), (2e-4, 0.0), (1e-4, 0.0), (2.75e-5, -0.2), (1e-4, 0.0)]
    with open_scene(make_scene(dn, bands=NAMES, tags=tags), SIX) as scene:
        assert scene.radiometry.rung == "tags"
        found = scene.to_reflectance(scene.read(scene.grid.window).pixels)
    scale, offset = (np.array(part)[:, None, None] for part in zip(*tags, strict=True))
    np.testing.assert_allclose(found, dn * scale + offset, atol=1e-6)


def test_the_users_band_names_pick_the_bands(make_scene: MakeScene) -> None:
    dn = noise(3, 4, 4)
    with open_scene(make_scene(dn), RED, SceneOptions(("-", "blue", "red"), "dn")) as scene:
        np.testing.assert_array_equal(scene.read(scene.grid.window).pixels, dn[2:])


@pytest.mark.parametrize(
    ("tag", "option", "reason", "missing"),
    [
        (5, "auto", "nodata tag 5", [5]),
        (None, "auto", "no nodata tag", []),
        (5, None, "--nodata none", []),
        (5, 6.0, "--nodata 6", [6]),
    ],
)
def test_the_option_replaces_the_nodata_tag(
    make_scene: MakeScene, tag: int | None, option: Any, reason: str, missing: list[int]
) -> None:
    dn = np.arange(16, dtype="uint16").reshape(1, 4, 4)
    path = make_scene(dn, bands=["red"], nodata=tag)
    with open_scene(path, RED, SceneOptions(radiometry="dn", nodata=option)) as scene:
        assert scene.nodata_reason.startswith(reason)
        np.testing.assert_array_equal(scene.read(scene.grid.window).valid, ~np.isin(dn[0], missing))


@pytest.mark.parametrize("option", [math.nan, 6.5, -1.0, 70_000.0])
def test_a_nodata_option_that_no_pixel_can_be_is_refused(make_scene: MakeScene, option: float) -> None:
    """Otherwise it would only turn the file's own nodata into data."""
    path = make_scene(np.arange(16, dtype="uint16").reshape(1, 4, 4), bands=["red"], nodata=5)
    with pytest.raises(UsageError, match="uint16"):
        open_scene(path, RED, SceneOptions(radiometry="dn", nodata=option))


def test_nan_and_infinity_are_never_valid(make_scene: MakeScene) -> None:
    reflectance = np.full((2, 3, 3), 0.2, "float32")
    reflectance[0, 0, 0], reflectance[1, 1, 1], reflectance[1, 2, 2] = math.nan, math.inf, -9999
    path = make_scene(reflectance, bands=["red", "nir"], nodata=-9999)
    spec = InputSpec(("red", "nir"), (), (0.0, 0.0), (1.0, 1.0))
    with open_scene(path, spec) as scene:
        np.testing.assert_array_equal(scene.read(scene.grid.window).valid, ~np.eye(3, dtype=bool))


def test_a_band_that_is_not_used_takes_no_pixel_away(make_scene: MakeScene) -> None:
    dn = noise(2, 3, 3)
    dn[1] = 0
    with open_scene(make_scene(dn, bands=["red", "B11"], nodata=0), RED, DN) as scene:
        assert scene.read(scene.grid.window).valid.all()


def test_mask_band_and_nodata_both_take_pixels_away(make_scene: MakeScene) -> None:
    dn = noise(1, 4, 4)
    dn[0, 0, 0] = 0
    mask = np.ones((4, 4), bool)
    mask[3] = False
    with open_scene(make_scene(dn, bands=["red"], nodata=0, mask=mask), RED, DN) as scene:
        assert scene.nodata_reason == "nodata tag 0, and the mask band"
        np.testing.assert_array_equal(scene.read(Window(0, 0, 4, 2)).valid, (mask & (dn[0] != 0))[:, :2])


def test_an_alpha_band_takes_pixels_away_unless_it_is_a_band_in_disguise(make_scene: MakeScene) -> None:
    dn = noise(4, 4, 4)
    dn[3, :2] = 0
    path = make_scene(dn, bands=["red", "green", "blue", "nir"], photometric="RGB", alpha="yes")
    with open_scene(path, RED, DN) as scene:
        assert scene.nodata_reason.endswith("and the alpha band")
        np.testing.assert_array_equal(scene.read(scene.grid.window).valid, dn[3] > 0)
    spec = InputSpec(("red", "nir"), (), (0.0, 0.0), (1.0, 1.0))
    with open_scene(path, spec, DN) as scene:
        assert scene.read(scene.grid.window).valid.all()


def test_bands_of_different_types_are_read_as_float32(tmp_path: Path) -> None:
    write_scene(tmp_path / "a.tif", noise(1, 5, 6))
    write_scene(tmp_path / "b.tif", noise(1, 5, 6, "float64") / 7)
    source = (
        '<VRTRasterBand dataType="{}" band="{}"><SimpleSource><SourceFilename relativeToVRT="1">{}</SourceFilename>'
    )
    bands = [("UInt16", 1, "a.tif"), ("Float64", 2, "b.tif")]
    body = "".join(source.format(*band) + "</SimpleSource></VRTRasterBand>" for band in bands)
    (tmp_path / "ab.vrt").write_text(f'<VRTDataset rasterXSize="6" rasterYSize="5">{body}</VRTDataset>')
    with rasterio.open(tmp_path / "ab.vrt") as dataset:
        found = read_bands(dataset, (2, 1), Window(1, 2, 3, 4))
    assert found.dtype == np.float32
    right = np.stack([noise(1, 5, 6, "float64")[0] / 7, noise(1, 5, 6)[0]])[:, 1:4, 2:6]
    np.testing.assert_array_equal(found, right.astype("float32"))


def test_each_band_has_its_own_nodata() -> None:
    pixels = np.array([[[0, 1, 2]], [[0, 1, 2]]], dtype="int16")
    assert valid_numbers(pixels, (0, 2)).tolist() == [[[False, True, True]], [[True, True, False]]]
    assert valid_numbers(pixels, (None, -40_000)).all()


@pytest.mark.parametrize("dtype", ["uint16", "int16", "float32"])
@pytest.mark.parametrize("keeps_saturated", [True, False])
@given(nodata=st.lists(st.sampled_from([None, 0, 3, -9999, math.nan]), min_size=3, max_size=3), seed=st.integers(0, 99))
def test_a_pixel_is_valid_where_each_of_its_numbers_is(
    dtype: str, keeps_saturated: bool, nodata: list[float | None], seed: int
) -> None:
    choice = [0, 3, 5, np.inf, np.nan] if dtype == "float32" else [0, 3, 5, np.iinfo(dtype).max]
    pixels = np.random.default_rng(seed).choice(choice, (3, 4, 5)).astype(dtype)
    expected = [
        [
            all(
                np.isfinite(number)
                and number != value
                and (keeps_saturated or dtype == "float32" or number != np.iinfo(dtype).max)
                for number, value in zip(pixels[:, row, col].tolist(), nodata, strict=True)
            )
            for col in range(5)
        ]
        for row in range(4)
    ]
    assert valid_in_all(pixels, nodata, keeps_saturated).tolist() == expected
    assert valid_numbers(pixels, nodata, keeps_saturated).all(axis=0).tolist() == expected


def test_many_threads_read_the_same_as_one(make_scene: MakeScene) -> None:
    dn = noise(6, 64, 64)
    path = make_scene(dn, bands=NAMES, tiled=True, blockxsize=16, blockysize=16, compress="deflate")
    rng = np.random.default_rng(5)
    asked = [Window(int(r), int(c), 20, 20) for r, c in rng.integers(0, 44, (200, 2))]
    with open_scene(path, SIX, DN) as scene, ThreadPoolExecutor(8) as pool:
        found = list(pool.map(scene.read, asked))
    for window, patch in zip(asked, found, strict=True):
        np.testing.assert_array_equal(patch.pixels, dn[:, window.rows, window.cols])


@pytest.mark.parametrize("cores", [1, 2, 5])
@pytest.mark.parametrize("block", [0, 7, 15])
def test_a_damaged_block_is_an_error_however_many_are_decoded_beside_it(
    make_scene: MakeScene, monkeypatch: pytest.MonkeyPatch, block: int, cores: int
) -> None:
    path = make_scene(noise(1, 64, 64), bands=("B04",), tiled=True, blockxsize=16, blockysize=16, compress="deflate")
    with rasterio.open(path) as file:
        row, col = divmod(block, 4)
        offset = int(file.get_tag_item(f"BLOCK_OFFSET_{col}_{row}", "TIFF", bidx=1))
    damaged = bytearray(path.read_bytes())
    damaged[offset : offset + 40] = bytes(40)
    path.write_bytes(damaged)
    monkeypatch.setattr("geoseg_cli.scenes.raster_file.usable_cores", lambda: cores)
    with pytest.raises(StorageError, match="damaged"), open_scene(path, RED, DN) as scene:
        scene.read(Window(0, 0, 64, 64))


def test_a_process_that_is_forked_after_blocks_were_decoded_reads_too(make_scene: MakeScene) -> None:
    """Threads do not follow into it: one that waited for them would wait for ever."""
    dn = noise(1, 64, 64)
    path = make_scene(dn, bands=("B04",), tiled=True, blockxsize=16, blockysize=16, compress="deflate")

    def reads_right() -> bool:
        with open_scene(path, RED, DN) as scene:
            return bool((scene.read(scene.grid.window).pixels == dn).all())

    assert reads_right()
    child = os.fork()
    if child == 0:
        signal.alarm(30)
        os._exit(0 if reads_right() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_the_cache_size_counts_the_blocks_that_rows_touch(make_scene: MakeScene) -> None:
    layout = {"tiled": True, "blockxsize": 32, "blockysize": 16}
    path = make_scene(noise(6, 100, 70), bands=NAMES, interleave="band", **layout)
    with open_scene(path, RED, DN) as scene:
        assert (scene.block_shape.height, scene.block_shape.width) == (16, 32)
        assert scene.size_in_cache() == 16 * 96 * 2
        assert scene.size_in_cache(17) == 2 * 16 * 96 * 2
        assert scene.size_in_cache(10_000) == 7 * 16 * 96 * 2
    path = make_scene(noise(6, 100, 70), bands=NAMES, interleave="pixel", **layout)
    with open_scene(path, RED, DN) as scene:
        assert scene.size_in_cache() == 16 * 96 * 2 * 6


def test_the_cache_is_limited_while_reading_and_given_back_after(make_scene: MakeScene) -> None:
    path = make_scene(noise(6, 40, 40), bands=NAMES)
    before = get_gdal_config("GDAL_CACHEMAX")
    with open_scene(path, SIX, DN) as scene, block_cache(64 << 20):
        assert get_gdal_config("GDAL_CACHEMAX") == 64 << 20
        scene.read(scene.grid.window)
        assert get_gdal_config("GDAL_CACHEMAX") == 64 << 20
        thread = threading.Thread(target=scene.read, args=(scene.grid.window,))
        thread.start()
        thread.join()
        assert get_gdal_config("GDAL_CACHEMAX") == 64 << 20
    assert get_gdal_config("GDAL_CACHEMAX") == before


def test_samples_come_from_all_over_the_scene_and_are_valid(tmp_path: Path) -> None:
    dn = np.zeros((1, 900, 700), "uint16")
    dn[0, 890:, 690:] = 3
    dn[0, :5, :5] = 4
    stack = open_stack(find(write_scene(tmp_path / "s.tif", dn, nodata=0)), (1,), 10)
    assert set(np.unique(stack.sample())) == {3, 4}
    stack.close()


def test_a_scene_that_is_nearly_all_nodata_is_searched_more_closely(tmp_path: Path) -> None:
    dn = np.zeros((1, 2000, 2000), "uint16")
    dn[0, 400:420, 400:420] = 5
    path = write_scene(tmp_path / "s.tif", dn, nodata=0, tiled=True, compress="deflate")
    stack = open_stack(find(path), (1,), 10)
    assert set(np.unique(stack.sample())) == {5}
    stack.close()


def test_a_scene_that_changed_is_noticed(make_scene: MakeScene) -> None:
    path = make_scene(noise(1, 4, 4), bands=["red"])
    with open_scene(path, RED, DN) as scene:
        scene.refuse_change()
        os.utime(path, ns=(0, 0))
        with pytest.raises(StorageError, match="changed"):
            scene.refuse_change()
        path.unlink()
        with pytest.raises(InputMissingError):
            scene.refuse_change()


def test_a_closed_scene_holds_no_file(make_scene: MakeScene) -> None:
    path = make_scene(noise(1, 4, 4), bands=["red"])
    with open_scene(path, RED, DN):
        assert _is_open(path)
    assert not _is_open(path)
    with pytest.raises(RadiometryError):
        open_scene(path, RED)
    assert not _is_open(path)


def _is_open(path: Path) -> bool:
    folder = Path("/proc/self/fd")
    if not folder.is_dir():
        pytest.skip("no /proc: open files cannot be counted")
    return any(os.path.realpath(link) == str(path) for link in folder.iterdir())


def metric(height_m: float, width_m: float) -> Grid:
    return Grid(CRS.from_epsg(32631), Affine(width_m, 0, 5e5, 0, -height_m, 5e6), 10, 10)


@pytest.mark.parametrize("gsd_m", [10.0, 12.4, 8.1])
def test_pixels_of_about_the_right_size_pass_silently(gsd_m: float) -> None:
    assert check_resolution(metric(gsd_m, gsd_m), 10.0) == ()


@pytest.mark.parametrize("gsd_m", [12.6, 7.9, 39.0, 2.6])
def test_pixels_of_another_size_raise_one_warning(gsd_m: float) -> None:
    (text,) = check_resolution(metric(gsd_m, gsd_m), 10.0)
    assert f"{gsd_m:g}" in text
    assert "10 m" in text


@pytest.mark.parametrize("gsd_m", [41.0, 2.4])
def test_pixels_of_a_far_size_are_refused_with_the_cure(gsd_m: float) -> None:
    with pytest.raises(GridError, match="10 m") as caught:
        check_resolution(metric(gsd_m, gsd_m), 10.0)
    assert "--gsd 10" in caught.value.hint


def test_pixels_that_are_not_square_raise_a_warning() -> None:
    (text,) = check_resolution(metric(10.0, 11.0), 10.0)
    assert "not square" in text
    assert "10 x 11 m (height x width)" in text


def test_degrees_are_compared_in_metres_at_their_latitude() -> None:
    step = 10 / 111_320
    grid = Grid(CRS.from_epsg(4326), Affine(step * 2, 0, 5.0, 0, -step, 60.0 + 5 * step), 10, 10)
    assert check_resolution(grid, 10.0) == ()


def test_without_a_crs_there_is_no_size_to_compare() -> None:
    assert check_resolution(Grid(None, Affine.identity(), 10, 10), 10.0) == ()
