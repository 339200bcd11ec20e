"""A scene for the eye: on the ground of a map, stretched, transparent where it means nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from rasterio.crs import CRS

from geoseg_cli.errors import BandError, GridError
from geoseg_cli.grid import Grid, Window
from geoseg_cli.scenes import SceneOptions, open_scene
from geoseg_cli.scenes.radiometry import Radiometry
from geoseg_cli.scenes.true_colour import EYE, GAMMA, STRETCH_PERCENT, stretched, true_colour
from tests.conftest import write_scene
from tests.scenes.product_fixtures import SIDE, make_landsat, write_band

UTM = Affine(10, 0, 499_980, 0, -10, 4_800_000)
AS_STORED = Radiometry((1.0,) * 3, (0.0,) * 3, "option", "as they are")
CRS_UTM = CRS.from_epsg(32631)


def ground(height: int, width: int, transform: Affine = UTM) -> Grid:
    return Grid(CRS_UTM, transform, height, width)


def rgb_scene(path: Path, height: int, width: int, **more: object) -> np.ndarray:
    """Three bands whose numbers tell their row and column; 0 is nodata in a corner."""
    rows, cols = np.mgrid[:height, :width]
    numbers = np.stack([1000 + 10 * rows + cols, 2000 + cols, 3000 + rows]).astype(np.uint16)
    numbers[:, :3, :5] = 0
    write_scene(path, numbers, bands=("B04", "B03", "B02"), nodata=0, crs=CRS_UTM, **{"transform": UTM, **more})
    return numbers


def by_hand(planes: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """(3,H,W) numbers -> (H,W,3)."""
    low, high = (np.percentile(planes[:, valid], share) for share in STRETCH_PERCENT)
    share = np.clip((planes - low) / (high - low), 0, 1) ** (1 / GAMMA)
    return np.moveaxis(np.where(valid, np.round(255 * share), 0), 0, -1)


def test_a_small_scene_is_shown_pixel_by_pixel(tmp_path):
    numbers = rgb_scene(tmp_path / "s.tif", 30, 40)
    seen = true_colour(tmp_path / "s.tif", ground(30, 40), 30, 40)
    valid = numbers[0] > 0
    assert seen.size_bytes == (tmp_path / "s.tif").stat().st_size
    np.testing.assert_array_equal(seen.rgba[..., 3], np.where(valid, 255, 0))
    np.testing.assert_allclose(seen.rgba[..., :3], by_hand(numbers.astype(float), valid), atol=1)


def test_a_scale_and_an_offset_that_all_bands_share_make_no_difference(tmp_path):
    numbers = rgb_scene(tmp_path / "a.tif", 20, 30)
    write_scene(
        tmp_path / "b.tif",
        numbers,
        bands=("red", "green", "blue"),
        nodata=0,
        crs=CRS_UTM,
        transform=UTM,
        tags=((1e-4, -0.1),) * 3,
    )
    plain, scaled = (true_colour(tmp_path / name, ground(20, 30), 20, 30).rgba for name in ("a.tif", "b.tif"))
    np.testing.assert_allclose(plain.astype(int), scaled, atol=1)


def test_bands_of_different_scales_are_compared_as_reflectance(tmp_path):
    numbers = rgb_scene(tmp_path / "a.tif", 20, 30)
    numbers[0, numbers[0] > 0] *= 2
    tags = ((0.5e-4, 0), (1e-4, 0), (1e-4, 0))
    write_scene(tmp_path / "b.tif", numbers, bands=("red", "green", "blue"), nodata=0, tags=tags, transform=UTM)
    plain, scaled = (true_colour(tmp_path / name, ground(20, 30), 20, 30).rgba for name in ("a.tif", "b.tif"))
    np.testing.assert_allclose(plain.astype(int), scaled, atol=1)


def test_the_ground_of_a_cropped_map_is_cut_out_of_the_scene(tmp_path):
    numbers = rgb_scene(tmp_path / "s.tif", 60, 80)
    part = ground(20, 30, UTM @ Affine.translation(40, 25))
    seen = true_colour(tmp_path / "s.tif", part, 20, 30).rgba
    cut = numbers[:, 25:45, 40:70].astype(float)
    np.testing.assert_allclose(seen[..., :3], by_hand(cut, np.ones((20, 30), bool)), atol=1)


@pytest.mark.parametrize(
    "elsewhere",
    [
        ground(30, 40, UTM @ Affine.translation(20, 0)),
        ground(30, 40, UTM @ Affine.translation(-5, 0)),
        ground(30, 40, UTM @ Affine.rotation(3)),
        ground(30, 40, Affine(10, 0, 499_980, 0, 10, 4_799_700)),
        Grid(CRS.from_epsg(32632), UTM, 30, 40),
    ],
    ids=["right", "left", "turned", "south-up", "another zone"],
)
def test_a_map_that_lies_elsewhere_is_refused(tmp_path, elsewhere):
    rgb_scene(tmp_path / "s.tif", 30, 40)
    with pytest.raises(GridError, match="does not lie on the scene"):
        true_colour(tmp_path / "s.tif", elsewhere, 30, 40)


def test_a_scene_without_blue_is_refused(tmp_path):
    write_scene(tmp_path / "s.tif", np.ones((2, 5, 5), np.uint16), bands=("B04", "B03"))
    with pytest.raises(BandError, match="blue"):
        true_colour(tmp_path / "s.tif", ground(5, 5), 5, 5)


def test_bands_that_the_user_names_are_shown(tmp_path):
    numbers = rgb_scene(tmp_path / "s.tif", 20, 30)
    options = SceneOptions(bands=("blue", "green", "red"))
    seen = true_colour(tmp_path / "s.tif", ground(20, 30), 20, 30, options).rgba
    np.testing.assert_allclose(seen[..., :3], by_hand(numbers[::-1].astype(float), numbers[0] > 0), atol=1)


def test_bands_of_several_pixel_sizes_are_shown_on_one_ground(tmp_path):
    rows, cols = np.mgrid[:40, :60]
    fine = (1000 + 10 * rows + cols).astype(np.uint16)
    coarse = fine[::2, ::2]
    for name, plane, step in (("B04", fine, 10), ("B03", fine, 10), ("B02", coarse, 20)):
        transform = Affine(step, 0, 499_980, 0, -step, 4_800_000)
        write_band(tmp_path / "scene" / f"{name}.tif", plane, crs=CRS_UTM, transform=transform)
    seen = true_colour(tmp_path / "scene", ground(40, 60), 20, 30).rgba
    assert (seen[..., 3] == 255).all()
    # A slope in all bands stays one: grey to within the half pixel by which the coarse band may be off.
    assert np.abs(seen[..., 0].astype(int) - seen[..., 2]).mean() < 6


def test_what_quality_band_and_mask_call_lost_is_lost_in_a_small_reading_too(tmp_path):
    landsat = make_landsat(tmp_path / "landsat").folder
    (quality,) = landsat.glob("*_QA_PIXEL.TIF")
    fill = np.random.default_rng(2).integers(0, 2, (SIDE, SIDE), np.uint16)
    write_band(quality, fill)
    mask = np.random.default_rng(0).random((30, 40)) > 0.5
    numbers = np.random.default_rng(1).integers(1, 9999, (3, 30, 40), np.uint16)
    masked = write_scene(tmp_path / "m.tif", numbers, bands=("red", "green", "blue"), mask=mask)
    for path in (landsat, masked):
        with open_scene(path, EYE, SceneOptions(radiometry="reflectance"), 30.0) as scene:
            window = scene.grid.window
            pixels, valid = scene.source.read_small(window, window.height, window.width)
            patch = scene.read(window)
        assert 0 < valid.sum() < valid.size
        np.testing.assert_array_equal(valid, patch.valid)
        np.testing.assert_array_equal(pixels, patch.pixels)


@settings(deadline=None, max_examples=30)
@given(st.integers(8, 90), st.integers(8, 90), st.data())
def test_a_small_reading_holds_numbers_of_the_place_and_their_validity(tmp_path_factory, height, width, data):
    folder = tmp_path_factory.mktemp("small")
    rows, cols = np.mgrid[:height, :width]
    numbers = np.repeat((1 + rows * width + cols).astype(np.uint16)[None], 3, axis=0)
    write_scene(folder / "s.tif", numbers, bands=("red", "green", "blue"))
    small = data.draw(st.integers(1, height)), data.draw(st.integers(1, width))
    with open_scene(folder / "s.tif", EYE, SceneOptions(radiometry="reflectance")) as scene:
        pixels, valid = scene.source.read_small(Window(0, 0, height, width), *small)
    assert pixels.shape == (3, *small)
    assert valid.all()
    row, col = np.divmod(pixels[0].astype(int) - 1, width)
    wanted_row = (np.arange(small[0]) + 0.5) * height / small[0]
    wanted_col = (np.arange(small[1]) + 0.5) * width / small[1]
    assert np.abs(row + 0.5 - wanted_row[:, None]).max() <= max(1, height / small[0])
    assert np.abs(col + 0.5 - wanted_col[None]).max() <= max(1, width / small[1])


@settings(deadline=None)
@given(
    hnp.arrays(np.uint16, (3, 12, 8), elements=st.integers(0, 5000)),
    hnp.arrays(np.bool_, (12, 8)),
    st.sampled_from([1, 2, 4]),
)
def test_only_valid_numbers_are_averaged_and_stretched(numbers, valid, finer):
    rgba = stretched(AS_STORED, numbers, valid, finer)
    means = np.full((3, 12 // finer, 8 // finer), np.nan)
    for row in range(12 // finer):
        for col in range(8 // finer):
            block = np.s_[row * finer : (row + 1) * finer, col * finer : (col + 1) * finer]
            if valid[block].any():
                means[:, row, col] = [plane[block][valid[block]].mean() for plane in numbers]
    known = np.isfinite(means[0])
    np.testing.assert_array_equal(rgba[..., 3], np.where(known, 255, 0))
    if known.any() and np.ptp(np.percentile(means[:, known], STRETCH_PERCENT)) > 0:
        np.testing.assert_allclose(rgba[..., :3], by_hand(np.where(known, means, 0), known), atol=1)
    assert not rgba[~known].any()


def test_a_scene_without_a_valid_pixel_is_transparent():
    assert not stretched(AS_STORED, np.ones((3, 4, 4), np.uint16), np.zeros((4, 4), bool)).any()
