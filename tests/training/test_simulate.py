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
from geoseg_cli.training.imagers import IMAGERS, ImagerName
from geoseg_cli.training.materials import Climate
from geoseg_cli.training.pictures import picture_sheet
from geoseg_cli.training.recipes import BRIGHT_LANDSCAPES, RECIPE_WEIGHTS, RECIPES, Recipe
from geoseg_cli.training.simulate import (
    REGIME_WEIGHTS,
    SimulatedScene,
    SimulatorOptions,
    Sun,
    choose_air,
    simulate_scene,
)
from geoseg_cli.training.spectra import S2_BANDS, SpectralLibrary
from geoseg_cli.training.surfaces import GroundOptions, make_ground

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
    assert set(BRIGHT_LANDSCAPES) < set(RECIPES)


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
    # Relative to the contrast of the band: some grounds differ more in one band than in another.
    jumps = np.abs(np.diff(scene.reflectance, axis=2)).mean(axis=(1, 2)) / scene.reflectance.std(axis=(1, 2))
    assert jumps[SWIR] < 0.8 * jumps[RED]
    assert jumps[S2_BANDS.index("B01")] < 0.5 * jumps[BLUE]


@pytest.mark.parametrize(
    "wrong",
    [
        {"height_px": 15}, {"width_px": 33}, {"gsd_m": 0.0}, {"landscape": "moon"}, {"clouds": "rain"},
        {"sun_zenith_deg": 95.0}, {"cloud_height_m": -1.0}, {"sensor": "modis"},
    ],
)  # fmt: skip
def test_impossible_wishes_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        SimulatorOptions(**wrong)  # type: ignore[arg-type]


@settings(max_examples=14, deadline=None)
@given(seed=st.integers(0, 2**31), sensor=st.sampled_from(list(IMAGERS)), level=st.sampled_from(["L1C", "L2A"]))
def test_every_sensor_gives_its_bands(library: SpectralLibrary, seed: int, sensor: ImagerName, level: str) -> None:
    scene = draw(library, seed, sensor=sensor, level=level, height_px=32, width_px=40, gsd_m=30.0)
    assert scene.bands == IMAGERS[sensor].bands
    assert scene.reflectance.shape == (len(scene.bands), 32, 40)
    assert np.isfinite(scene.reflectance).all()
    assert -0.3 < scene.reflectance.min() <= scene.reflectance.max() < 6.5535


@pytest.mark.parametrize("landscape", ["farmland", "town", "coast", "mosaic", "bright_desert"])
def test_the_same_seed_shows_the_same_ground_to_every_sensor(library: SpectralLibrary, landscape: str) -> None:
    def red_ground(sensor: ImagerName) -> NDArray[np.float32]:
        imager = IMAGERS[sensor]
        red = imager.channels[imager.bands.index(("red",))]
        options = GroundOptions((64, 64), 30.0, Climate("summer", 0.3), RECIPES[landscape], (red,))
        return make_ground(library, options, np.random.default_rng(21)).reflectance.ravel()

    first = red_ground("sentinel-2")
    for sensor in IMAGERS:
        assert np.corrcoef(first, red_ground(sensor))[0, 1] > 0.99


@pytest.mark.parametrize("sensor", IMAGERS)
def test_noise_and_detectors_leave_the_landscape_alone(library: SpectralLibrary, sensor: str) -> None:
    for seed in (1, 4):
        options = {"landscape": "mosaic", "gsd_m": 30.0, "season": "summer", "clouds": "clear"}
        first, other = (draw(library, seed, sensor=name, **options) for name in ("sentinel-2", sensor))
        np.testing.assert_array_equal(first.land_cover, other.land_cover)
        red = [scene.reflectance[scene.bands.index(("red",))].ravel() for scene in (first, other)]
        assert np.corrcoef(*red)[0, 1] > 0.96


@pytest.mark.parametrize("sensor", ["landsat-8", "landsat-5", "planetscope"])
def test_clouds_and_shadows_lie_in_the_same_places_for_every_sensor(library: SpectralLibrary, sensor: str) -> None:
    first, other = (draw(library, 6, clouds="cumulus", sensor=name) for name in ("sentinel-2", sensor))
    np.testing.assert_array_equal(first.clouds, other.clouds)
    np.testing.assert_array_equal(first.optical_depth, other.optical_depth)


def test_eight_bit_sensors_give_few_values_and_saturate(library: SpectralLibrary) -> None:
    tm, msi = (
        draw(library, 9, clouds="broken", sensor=name, gsd_m=30.0, sun_zenith_deg=30.0)
        for name in ("landsat-5", "sentinel-2")
    )
    blue = [scene.reflectance[scene.bands.index(("blue",))] for scene in (tm, msi)]
    # The Thematic Mapper ends at pi * 193 / 1983 under a sun at zenith (Chander et al. 2009).
    assert blue[0].max() == pytest.approx(np.pi * 193 / 1983 / np.cos(np.radians(30)), rel=1e-5)
    assert len(np.unique(blue[0])) <= 256
    assert blue[1].max() > 1.2 * blue[0].max()
    assert len(np.unique(blue[1])) > 500


def test_landsat_7_has_gaps_between_its_scans(library: SpectralLibrary) -> None:
    options = {"nodata_edge": True, "gsd_m": 30.0, "height_px": 128, "width_px": 32}
    gaps = [draw(library, seed, sensor="landsat-7", **options).valid for seed in range(8)]
    changes = [np.abs(np.diff(valid[:, 16].astype(int))).sum() for valid in gaps]
    assert np.median(changes) >= 6, "128 rows of 30 m hold four pairs of sweeps"
    edge = draw(library, 3, sensor="landsat-5", **options).valid
    assert np.abs(np.diff(edge[:, 16].astype(int))).sum() <= 1


@pytest.mark.parametrize("landscape", ["bright_desert", "salt_flat", "snow_plain"])
def test_bright_ground_is_as_bright_as_cloud_and_still_clear(library: SpectralLibrary, landscape: str) -> None:
    scenes = [draw(library, seed, landscape=landscape, clouds="clear", level="L2A") for seed in range(10)]
    red = np.array([np.quantile(scene.reflectance[RED], [0.5, 0.9]) for scene in scenes])
    assert np.quantile(red[:, 0], 0.75) > 0.35
    assert np.quantile(red[:, 1], 0.75) > 0.45
    assert not any(scene.clouds.any() for scene in scenes)
    wanted = 70 if landscape == "snow_plain" else 60
    assert np.median([(scene.land_cover == wanted).mean() for scene in scenes]) > 0.5


def test_greenhouses_are_bright_and_built(library: SpectralLibrary) -> None:
    scenes = [draw(library, seed, landscape="greenhouses", clouds="clear", level="L2A") for seed in range(8)]
    brightest = [scene.land_cover[scene.reflectance[BLUE] > 0.35] for scene in scenes]
    assert np.mean(np.concatenate(brightest) == 50) > 0.6


def test_wind_writes_long_lines_into_snow(library: SpectralLibrary) -> None:
    def lines(wind: float, seed: int) -> float:
        """How much of the fine spectrum lies in one direction: 0 in all alike, 1 in one alone."""
        options = GroundOptions(
            (64, 64), 30.0, Climate("winter", 0.1), Recipe(base=("snow",), wind=wind, roads=0.0), (RED,)
        )
        picture = make_ground(library, options, np.random.default_rng(seed)).reflectance[0]
        power = np.abs(np.fft.fft2(picture - picture.mean())) ** 2
        rows, columns = np.fft.fftfreq(64)[:, None], np.fft.fftfreq(64)[None, :]
        power[np.hypot(rows, columns) < 0.04] = 0
        return float(abs((power * np.exp(2j * np.arctan2(rows, columns))).sum()) / power.sum())

    calm, windy = (np.median([lines(wind, seed) for seed in range(10)]) for wind in (0.0, 1.0))
    assert windy > 2 * calm


def test_the_air_ranges_from_clear_to_smoke(library: SpectralLibrary) -> None:
    depths = []
    for seed in range(400):
        rng = np.random.default_rng(seed)
        depths.append(choose_air(rng, Climate("summer", 0.3), 0.0, Sun(0.5, 2.0)).aerosol_depth)
    assert np.median(depths) == pytest.approx(0.08, rel=0.25)
    assert 0.005 < np.mean(np.array(depths) > 0.5) < 0.06
    assert max(depths) <= 1.2


def test_a_sheet_shows_picture_and_labels_of_every_scene(library: SpectralLibrary) -> None:
    scenes = [draw(library, seed) for seed in range(3)]
    sheet = picture_sheet(scenes, columns=2)
    assert sheet.shape == (2 * 64, 2 * 3 * 64, 3)
    assert sheet.dtype == np.uint8
    assert not sheet[64:, 192:].any(), "the fourth place is empty"
    assert not (sheet == (255, 0, 255)).all(axis=2).any(), "every label has a colour"
