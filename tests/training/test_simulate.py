"""Simulated scenes: truth agrees with its own definition, and pictures with physics."""

from __future__ import annotations

import os
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from geoseg_cli.errors import UsageError
from geoseg_cli.training.clouds import THICK_OPTICAL_DEPTH, THIN_OPTICAL_DEPTH, CloudRegime
from geoseg_cli.training.pictures import picture_sheet
from geoseg_cli.training.recipes import RECIPE_WEIGHTS, RECIPES
from geoseg_cli.training.simulate import REGIME_WEIGHTS, SimulatedScene, SimulatorOptions, simulate_scene
from geoseg_cli.training.spectra import S2_BANDS, SpectralLibrary

SPECTRA = (
    Path(os.environ.get("GEOSEG_REAL_DATA", Path(__file__).parents[3] / "shared" / "data")) / "training" / "spectra"
)
pytestmark = pytest.mark.skipif(not SPECTRA.is_dir(), reason="spectra not found: set GEOSEG_REAL_DATA")

LAND = {10, 30, 40, 50, 60, 70, 80, 255}
BLUE, RED, NIR = S2_BANDS.index("B02"), S2_BANDS.index("B04"), S2_BANDS.index("B08")
CIRRUS, SWIR = S2_BANDS.index("B10"), S2_BANDS.index("B11")


@pytest.fixture(scope="module")
def library() -> SpectralLibrary:
    return SpectralLibrary.load(SPECTRA)


def draw(library: SpectralLibrary, seed: int = 0, **options: object) -> SimulatedScene:
    settings_ = {"height_px": 64, "width_px": 64, **options}
    return simulate_scene(library, SimulatorOptions(**settings_), seed)  # type: ignore[arg-type]


def assert_same(first: SimulatedScene, second: SimulatedScene) -> None:
    for name in ("reflectance", "valid", "land_cover", "clouds", "optical_depth"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


def medians(library: SpectralLibrary, label: int, count: int = 12, **options: object) -> NDArray[np.float64]:
    """Median spectrum over clear scenes of the pixels with one land-cover id."""
    found = []
    for seed in range(count):
        scene = draw(library, seed, clouds="clear", **options)
        where = scene.land_cover == label
        if where.any():
            found.append(np.median(scene.reflectance[:, where], axis=1))
    assert found, f"no scene with {label}"
    return np.asarray(np.median(found, axis=0))


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**40), level=st.sampled_from(["L1C", "L2A"]), edge=st.booleans())
def test_the_same_seed_gives_the_same_scene(library: SpectralLibrary, seed: int, level: str, edge: bool) -> None:
    options = {"height_px": 32, "width_px": 48, "level": level, "nodata_edge": edge}
    assert_same(draw(library, seed, **options), draw(library, seed, **options))


def test_other_seeds_give_other_scenes(library: SpectralLibrary) -> None:
    pictures = {draw(library, seed).reflectance.tobytes() for seed in range(8)}
    assert len(pictures) == 8


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    height=st.integers(8, 40).map(lambda half: 2 * half),
    width=st.integers(8, 40).map(lambda half: 2 * half),
    gsd_m=st.sampled_from([10.0, 20.0, 30.0]),
    level=st.sampled_from(["L1C", "L2A"]),
)
def test_shapes_types_and_ranges_hold(
    library: SpectralLibrary, seed: int, height: int, width: int, gsd_m: float, level: str
) -> None:
    scene = draw(library, seed, height_px=height, width_px=width, gsd_m=gsd_m, level=level)
    assert scene.reflectance.shape == (13, height, width)
    assert scene.reflectance.dtype == np.float32
    assert np.isfinite(scene.reflectance).all()
    assert scene.reflectance.min() > -0.3
    # What a uint16 product can hold; correcting cloud tops for too much water vapour goes beyond 3 in B09.
    assert scene.reflectance.max() < 6.5535
    assert scene.valid.shape == scene.land_cover.shape == scene.clouds.shape == (height, width)
    assert scene.land_cover.dtype == scene.clouds.dtype == np.uint8
    assert set(np.unique(scene.land_cover)) <= LAND
    assert set(np.unique(scene.clouds)) <= {0, 1, 2, 3}
    assert scene.optical_depth.dtype == np.float32
    assert scene.optical_depth.min() >= 0


@pytest.mark.parametrize("landscape", RECIPES)
def test_every_landscape_can_be_drawn(library: SpectralLibrary, landscape: str) -> None:
    scene = draw(library, 5, landscape=landscape, clouds="clear")
    assert set(np.unique(scene.land_cover)) <= LAND
    assert not scene.clouds.any()
    assert not scene.optical_depth.any()


@pytest.mark.parametrize("regime", [name for name in get_args(CloudRegime) if name != "clear"])
def test_every_cloud_regime_can_be_drawn(library: SpectralLibrary, regime: str) -> None:
    deepest = max(float(draw(library, seed, clouds=regime).optical_depth.max()) for seed in range(4))
    assert deepest > THIN_OPTICAL_DEPTH


def test_the_choices_are_complete() -> None:
    assert set(REGIME_WEIGHTS) == set(get_args(CloudRegime))
    assert set(RECIPE_WEIGHTS) == set(RECIPES)


@pytest.mark.parametrize("regime", ["cumulus", "broken", "cirrus", "haze", "multilayer"])
def test_cloud_labels_follow_optical_depth(library: SpectralLibrary, regime: str) -> None:
    for seed in range(3):
        scene = draw(library, seed, clouds=regime)
        np.testing.assert_array_equal(scene.clouds == 1, scene.optical_depth >= THICK_OPTICAL_DEPTH)
        thin = (scene.optical_depth >= THIN_OPTICAL_DEPTH) & (scene.optical_depth < THICK_OPTICAL_DEPTH)
        np.testing.assert_array_equal(scene.clouds == 2, thin)


@pytest.mark.parametrize(
    ("azimuth_deg", "toward"),
    [(90.0, (0, -1)), (180.0, (-1, 0)), (270.0, (0, 1)), (0.0, (1, 0)), (135.0, (-(0.5**0.5), -(0.5**0.5)))],
)
def test_shadows_lie_away_from_the_sun_at_height_times_tangent(
    library: SpectralLibrary, azimuth_deg: float, toward: tuple[float, float]
) -> None:
    scene = draw(
        library, 11, height_px=128, width_px=128, clouds="cumulus", sun_zenith_deg=45.0,
        sun_azimuth_deg=azimuth_deg, cloud_height_m=400.0, landscape="grassland",
    )  # fmt: skip
    cloud = (scene.clouds == 1).astype(float)
    shadow = (scene.clouds == 3).astype(float)
    assert cloud.sum() > 20
    assert shadow.sum() > 20
    match = np.fft.ifft2(np.fft.fft2(shadow) * np.conj(np.fft.fft2(cloud))).real
    row, column = np.unravel_index(match.argmax(), match.shape)
    found = np.array([(row + 64) % 128 - 64, (column + 64) % 128 - 64])
    np.testing.assert_allclose(found, 40 * np.array(toward), atol=2.5)


def test_shadows_get_longer_with_height(library: SpectralLibrary) -> None:
    low, high = (
        draw(library, 11, clouds="cumulus", sun_zenith_deg=30.0, cloud_height_m=height) for height in (0.0, 300.0)
    )
    np.testing.assert_array_equal(low.optical_depth, high.optical_depth)
    # A cloud on the ground hides its own shadow but for the slanting beam at its fringe.
    assert (low.clouds == 3).sum() < 0.2 * (high.clouds == 3).sum()


def test_shadow_is_darker_than_the_same_ground_in_the_sun(library: SpectralLibrary) -> None:
    options = {"landscape": "grassland", "sun_zenith_deg": 40.0, "cloud_height_m": 300.0, "sun_azimuth_deg": 150.0}
    ratios = []
    for seed in range(10):
        scene = draw(library, seed, clouds="cumulus", **options)
        shadow, clear = scene.clouds == 3, scene.clouds == 0
        if shadow.sum() > 50 and clear.sum() > 50:
            ratios.append(
                [scene.reflectance[band][shadow].mean() / scene.reflectance[band][clear].mean() for band in (BLUE, NIR)]
            )
    blue, nir = np.median(ratios, axis=0)
    assert nir < 0.6
    assert nir < blue < 1.0, "sky light fills blue shadows"


def test_thick_cloud_is_brighter_than_land_in_blue(library: SpectralLibrary) -> None:
    for landscape in ("forest", "farmland", "town", "water"):
        for seed in range(4):
            scene = draw(library, seed, clouds="broken", landscape=landscape)
            clear, thick = scene.clouds == 0, scene.optical_depth > 8
            if clear.sum() > 30 and thick.sum() > 30:
                assert scene.reflectance[BLUE][thick].mean() > 1.5 * scene.reflectance[BLUE][clear].mean()


def test_high_ice_shows_in_the_cirrus_band_and_low_cloud_does_not(library: SpectralLibrary) -> None:
    high = draw(library, 3, clouds="stratus", cloud_height_m=10000.0, landscape="farmland")
    low = draw(library, 3, clouds="stratus", cloud_height_m=500.0, landscape="farmland")
    clear = draw(library, 3, clouds="clear", landscape="farmland")
    assert high.reflectance[CIRRUS].mean() > 0.1
    assert abs(low.reflectance[CIRRUS].mean()) < 0.02
    assert abs(clear.reflectance[CIRRUS].mean()) < 0.005


def test_snow_is_dark_in_swir_where_cloud_is_bright(library: SpectralLibrary) -> None:
    snow = medians(library, 70, landscape="winter")
    cloud = [draw(library, seed, clouds="stratus", landscape="winter", cloud_height_m=800.0) for seed in range(8)]
    thick = np.concatenate([scene.reflectance[:, scene.optical_depth > 10] for scene in cloud], axis=1)
    cloudy = np.median(thick, axis=1)
    assert snow[RED] > 0.35
    assert cloudy[RED] > 0.35
    assert snow[SWIR] / snow[RED] < 0.35
    assert cloudy[SWIR] / cloudy[RED] > 0.45


def test_plants_are_green_and_bare_ground_is_not(library: SpectralLibrary) -> None:
    forest = medians(library, 10, landscape="forest", season="summer", level="L2A")
    bare = medians(library, 60, landscape="desert", level="L2A")
    ndvi_forest, ndvi_bare = ((x[NIR] - x[RED]) / (x[NIR] + x[RED]) for x in (forest, bare))
    assert ndvi_forest > 0.7
    assert ndvi_bare < 0.3
    assert 0.15 < forest[NIR] < 0.4
    assert 0.01 < forest[RED] < 0.06


def test_water_is_dark_in_near_infrared(library: SpectralLibrary) -> None:
    water = medians(library, 80, landscape="water", level="L2A")
    assert water[NIR] < 0.08
    assert water[SWIR] < 0.05


def test_surface_level_takes_the_air_away(library: SpectralLibrary) -> None:
    options = {"clouds": "clear", "landscape": "forest", "season": "summer"}
    top, surface = (draw(library, 2, level=level, **options) for level in ("L1C", "L2A"))
    np.testing.assert_array_equal(top.land_cover, surface.land_cover)
    lift = np.median(top.reflectance - surface.reflectance, axis=(1, 2))
    assert lift[0] > lift[BLUE] > lift[RED] > -0.01, "air adds most to the shortest waves"
    assert not surface.reflectance[CIRRUS].any(), "surface products have no B10"


def test_the_swath_edge_is_invalid_zero_and_255(library: SpectralLibrary) -> None:
    scene = draw(library, 8, nodata_edge=True)
    assert 0 < scene.valid.mean() < 1
    assert (scene.land_cover[~scene.valid] == 255).all()
    assert (scene.clouds[~scene.valid] == 255).all()
    assert (scene.clouds[scene.valid] != 255).all()
    assert not scene.reflectance[:, ~scene.valid].any()


def test_coarse_bands_are_constant_over_their_native_pixels_or_smooth(library: SpectralLibrary) -> None:
    scene = draw(library, 1, height_px=60, width_px=60, clouds="clear", landscape="town")
    jumps = np.abs(np.diff(scene.reflectance, axis=2)).mean(axis=(1, 2))
    assert jumps[SWIR] < 0.8 * jumps[RED]
    assert jumps[S2_BANDS.index("B01")] < 0.5 * jumps[BLUE]


@pytest.mark.parametrize(
    "wrong",
    [
        {"height_px": 15}, {"width_px": 33}, {"gsd_m": 0.0}, {"landscape": "moon"}, {"clouds": "rain"},
        {"sun_zenith_deg": 95.0}, {"cloud_height_m": -1.0},
    ],
)  # fmt: skip
def test_impossible_wishes_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        SimulatorOptions(**wrong)  # type: ignore[arg-type]


def test_a_sheet_shows_picture_and_labels_of_every_scene(library: SpectralLibrary) -> None:
    scenes = [draw(library, seed) for seed in range(3)]
    sheet = picture_sheet(scenes, columns=2)
    assert sheet.shape == (2 * 64, 2 * 3 * 64, 3)
    assert sheet.dtype == np.uint8
    assert not sheet[64:, 192:].any(), "the fourth place is empty"
    assert not (sheet == (255, 0, 255)).all(axis=2).any(), "every label has a colour"
