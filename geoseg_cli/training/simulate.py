"""Labelled multispectral scenes from measured spectra and simple physics.

    landscape -> ground reflectance -> sun, slopes, cloud shadow -> air and cloud layers -> sensor -> SimulatedScene

One scene is one number: the same seed, options and library give the same arrays, and the same seed shows the same
landscape, air and clouds to every sensor. Axis letters: B bands in the order of the sensor's products, H rows, W
columns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final, Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

from geoseg_cli.errors import UsageError
from geoseg_cli.training.atmosphere import Atmosphere
from geoseg_cli.training.clouds import (
    CloudLayer,
    CloudOptions,
    CloudRegime,
    beam_transmission,
    label_clouds,
    make_clouds,
    parallax_px,
    shadow_shift,
)
from geoseg_cli.training.fields import FloatArray
from geoseg_cli.training.imagers import Imager, ImagerName, imager_named
from geoseg_cli.training.materials import UNKNOWN, Climate, Season
from geoseg_cli.training.recipes import RECIPE_WEIGHTS, RECIPES
from geoseg_cli.training.sensor import Sensor, scan_gaps, swath_edge
from geoseg_cli.training.spectra import SpectralLibrary
from geoseg_cli.training.surfaces import Ground, GroundOptions, make_ground

Level = Literal["L1C", "L2A"]
GroundMaker = Callable[[GroundOptions, np.random.Generator], Ground]

# About the classes of CloudSEN12: half of the pixels clear, a quarter thick, a tenth thin, a tenth shadow.
REGIME_WEIGHTS: Final[dict[str, float]] = {
    "clear": 0.25, "cumulus": 0.17, "broken": 0.16, "altocumulus": 0.06, "stratus": 0.04, "holes": 0.06,
    "cirrus": 0.09, "contrails": 0.02, "haze": 0.06, "multilayer": 0.09,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class SimulatorOptions:
    """What to simulate. None and "random" leave the choice to the seed.

    Attributes:
        height_px, width_px: size, at least 16; even numbers.
        gsd_m: pixel size; bands that are coarser than this are averaged to their native pixels.
        sensor: the instrument that looks at it.
        level: "L1C" top of atmosphere, or "L2A" corrected to the surface with an imperfect guess of the air.
        clouds: a regime, "random", or "clear".
        landscape: a key of RECIPES, or "random".
        season: northern season, or "random".
        nodata_edge: cut the scene by the edge of the swath, or by the gaps between the scans of Landsat 7.
        sun_zenith_deg: 0..80. sun_azimuth_deg: clockwise from north. cloud_height_m: of the lowest layer.
    """

    height_px: int = 256
    width_px: int = 256
    gsd_m: float = 10.0
    level: Level = "L1C"
    clouds: CloudRegime | Literal["random"] = "random"
    landscape: str = "random"
    season: Season | Literal["random"] = "random"
    nodata_edge: bool = False
    sun_zenith_deg: float | None = None
    sun_azimuth_deg: float | None = None
    cloud_height_m: float | None = None
    sensor: ImagerName = "sentinel-2"

    def __post_init__(self) -> None:
        imager_named(self.sensor)
        if min(self.height_px, self.width_px) < 16 or self.height_px % 2 or self.width_px % 2:
            raise UsageError(
                f"cannot simulate {self.height_px} x {self.width_px} px", "Ask for even sizes of at least 16 px."
            )
        if not 1 <= self.gsd_m <= 120:
            raise UsageError(f"cannot simulate pixels of {self.gsd_m} m", "Ask for 1 to 120 m.")
        if self.landscape != "random" and self.landscape not in RECIPES:
            raise UsageError(f"unknown landscape {self.landscape!r}", f"Choose from {', '.join(RECIPES)}.")
        if self.clouds != "random" and self.clouds not in get_args(CloudRegime):
            raise UsageError(f"unknown clouds {self.clouds!r}", f"Choose from {', '.join(get_args(CloudRegime))}.")
        if self.sun_zenith_deg is not None and not 0 <= self.sun_zenith_deg <= 80:
            raise UsageError(f"sun zenith of {self.sun_zenith_deg} degrees", "Ask for 0 to 80 degrees.")
        if self.cloud_height_m is not None and not 0 <= self.cloud_height_m <= 20_000:
            raise UsageError(f"clouds at {self.cloud_height_m} m", "Ask for 0 to 20000 m.")


@dataclass(frozen=True, slots=True)
class SimulatedScene:
    """A scene and what is true about it.

    Attributes:
        bands: common names of each of the B bands, all that the band may stand for.
        reflectance: (B, H, W) float32, about -0.02..1.6; 0 where not valid; the cirrus band is 0 in L2A.
        valid: (H, W) bool.
        land_cover: (H, W) uint8, WorldCover ids 10 30 40 50 60 70 80 of the ground, also below cloud; 255 unknown.
        clouds: (H, W) uint8, 0 clear, 1 thick, 2 thin, 3 shadow, 255 not valid.
        optical_depth: (H, W) float32, vertical optical depth of all cloud layers.
    """

    bands: tuple[tuple[str, ...], ...]
    reflectance: FloatArray
    valid: NDArray[np.bool_]
    land_cover: NDArray[np.uint8]
    clouds: NDArray[np.uint8]
    optical_depth: FloatArray


@dataclass(frozen=True, slots=True)
class Sun:
    """Where the sun stands: zenith angle, and azimuth clockwise from north."""

    zenith_rad: float
    azimuth_rad: float


def simulate_scene(
    library: SpectralLibrary, options: SimulatorOptions, seed: int, ground_of: GroundMaker | None = None
) -> SimulatedScene:
    """Draw one scene.

    Args:
        library: measured spectra.
        options: what is fixed; the seed decides the rest.
        seed: any non-negative integer.
        ground_of: what lies below the air and the clouds; a landscape of the library if not given.
    """
    rng = np.random.default_rng(seed)
    # What one part draws does not change the others: sensors with more bands draw more noise.
    ground_rng, cloud_rng, sensor_rng, edge_rng = rng.spawn(4)
    imager = imager_named(options.sensor)
    shape = (options.height_px, options.width_px)
    recipe_name = _choose(rng, options.landscape, RECIPE_WEIGHTS)
    regime = cast(CloudRegime, _choose(rng, options.clouds, REGIME_WEIGHTS))
    recipe = RECIPES[recipe_name]
    season = _choose_season(rng, options, recipe.snow)
    climate = Climate(season, float(rng.uniform(*recipe.dryness)))
    sun = _choose_sun(rng, options, season)
    air = choose_air(rng, climate, recipe.relief[0], sun)
    valid = _swath(edge_rng, imager, options) if options.nodata_edge else np.ones(shape, bool)
    land = GroundOptions(shape, options.gsd_m, climate, recipe, imager.channels)
    ground = make_ground(library, land, ground_rng) if ground_of is None else ground_of(land, ground_rng)
    field = CloudOptions(shape, options.gsd_m, sun.azimuth_rad, options.cloud_height_m)
    layers = make_clouds(regime, field, cloud_rng)
    beam_depth = _beam_depth(layers, sun, shape, options.gsd_m)
    image = _Light(imager, air, sun, options.gsd_m).shine(ground, layers, beam_depth)
    _record(image, imager, options, sun, sensor_rng)
    if options.level == "L2A":
        _correct(image, imager, _misjudge(rng, air))
    depth = np.zeros(shape, np.float32)
    for layer in layers:
        depth += layer.depth
    return SimulatedScene(
        bands=imager.bands,
        reflectance=image * valid,
        valid=valid,
        land_cover=np.where(valid, ground.land_cover, np.uint8(UNKNOWN)),
        clouds=label_clouds(depth, beam_depth, valid),
        optical_depth=depth,
    )


def _swath(rng: np.random.Generator, imager: Imager, options: SimulatorOptions) -> NDArray[np.bool_]:
    """Valid pixels (H, W) of a scene at the edge of the swath."""
    shape = (options.height_px, options.width_px)
    edge = swath_edge(rng, shape)
    if not imager.has_scan_gaps or rng.random() < 0.2:
        return edge
    gaps = scan_gaps(rng, shape, options.gsd_m)
    return gaps & edge if rng.random() < 0.4 else gaps


def _choose(rng: np.random.Generator, wanted: str, weights: Mapping[str, float]) -> str:
    """`wanted`, or a key of `weights` by chance."""
    names = list(weights)
    drawn = names[int(rng.choice(len(names), p=np.array(list(weights.values())) / sum(weights.values())))]
    return drawn if wanted == "random" else wanted


def _choose_season(rng: np.random.Generator, options: SimulatorOptions, snow: float) -> Season:
    seasons: tuple[Season, ...] = get_args(Season)
    weights = [0.3, 0.4, 0.2, 0.1] if snow < 1 else [0.2, 0.0, 0.2, 0.6]
    drawn = seasons[int(rng.choice(4, p=weights))]
    return drawn if options.season == "random" else options.season


def _choose_sun(rng: np.random.Generator, options: SimulatorOptions, season: Season) -> Sun:
    """Sentinel-2 passes at 10:30: the sun stands in the south-east, or in the north-east south of the tropics."""
    low, high = {"summer": (20, 45), "spring": (28, 58), "autumn": (35, 62), "winter": (48, 72)}[season]
    zenith = rng.uniform(low, high)
    azimuth = rng.uniform(110, 175) if rng.random() < 0.75 else rng.uniform(20, 75)
    zenith = zenith if options.sun_zenith_deg is None else options.sun_zenith_deg
    azimuth = azimuth if options.sun_azimuth_deg is None else options.sun_azimuth_deg
    return Sun(float(np.radians(zenith)), float(np.radians(azimuth)))


def choose_air(rng: np.random.Generator, climate: Climate, relief: float, sun: Sun) -> Atmosphere:
    """Draw the air over a landscape of this relief (rise over run)."""
    vapour = {"summer": 2.2, "spring": 1.3, "autumn": 1.5, "winter": 0.6}[climate.season]
    # One scene in ten lies on a plateau, as the large salt flats and steppes do.
    is_high = relief > 0.1 or rng.random() < 0.1
    return Atmosphere(
        sun_zenith_rad=sun.zenith_rad,
        # Median 0.08; about one scene in 50 lies in smoke, smog or dust of more than 0.5.
        aerosol_depth=float(np.clip(rng.lognormal(np.log(0.08), 0.9), 0.02, 1.2)),
        angstrom=float(rng.uniform(0.2, 1.0) if climate.dryness > 0.7 else rng.uniform(0.9, 1.7)),
        vapour_cm=float(vapour * rng.lognormal(0, 0.4)),
        ground_m=float(rng.uniform(500, 4500) if is_high else rng.uniform(0, 600)),
    )


def _beam_depth(layers: Sequence[CloudLayer], sun: Sun, shape: tuple[int, int], gsd_m: float) -> FloatArray:
    """Cloud that the sunbeam met on its way to the ground, (H, W) float32 slant optical depth."""
    total = np.zeros(shape, np.float32)
    for layer in layers:
        shift = shadow_shift(layer.height_m, sun.zenith_rad, sun.azimuth_rad, gsd_m)
        total += layer.beam_depth(shift, sun.zenith_rad)
    return total


def _incidence(slope: FloatArray, sun: Sun) -> FloatArray:
    """Sunlight on sloping ground over that on flat ground, (H, W) float32 0..2.5."""
    east, south = slope
    towards = east * np.float32(np.sin(sun.azimuth_rad)) - south * np.float32(np.cos(sun.azimuth_rad))
    # The normal of the ground is (-east, -south, 1): rising towards the sun turns away from it.
    cosine = (np.cos(sun.zenith_rad) - towards * np.float32(np.sin(sun.zenith_rad))) / np.sqrt(1 + east**2 + south**2)
    return np.asarray(np.clip(cosine / np.float32(np.cos(sun.zenith_rad)), 0, 2.5), np.float32)


@dataclass(frozen=True, slots=True)
class _Light:
    """The way of the light in one scene."""

    imager: Imager
    air: Atmosphere
    sun: Sun
    gsd_m: float

    def shine(self, ground: Ground, layers: Sequence[CloudLayer], beam_depth: FloatArray) -> FloatArray:
        """Top-of-atmosphere reflectance (B, H, W): sun and sky on the ground, then air and cloud layers from below."""
        direct = _incidence(ground.slope, self.sun)
        if layers:
            direct *= beam_transmission(beam_depth)
        # In shadow a cloud also hides part of the sky, but its sides and base send light down.
        covered = 1 - beam_transmission(beam_depth) if layers else np.float32(0)
        bounds = [0.0, *(layer.height_m for layer in layers), np.inf]
        slabs = [self.air.layer(bottom, top) for bottom, top in pairwise(bounds)]
        sky, albedo = self.air.sky_share(), self.air.spherical_albedo()
        image = ground.reflectance
        for band, channel in enumerate(self.imager.channels):
            diffuse = sky[channel] + covered * np.float32(0.06) * (1 - sky[channel])
            signal = image[band] * ((1 - sky[channel]) * direct + diffuse)
            signal = slabs[0].transmission[channel] * signal / (1 - albedo[channel] * signal) + slabs[0].path[channel]
            for layer, slab in zip(layers, slabs[1:], strict=True):
                reflected, passed = self._seen(layer, band).reflectance(channel, self.sun.zenith_rad)
                signal = reflected + _under_cloud(passed, reflected, signal)
                signal = slab.transmission[channel] * signal + slab.path[channel]
            image[band] = signal
        return image

    def _seen(self, layer: CloudLayer, band: int) -> CloudLayer:
        """A layer where one band sees it."""
        shift = parallax_px(layer.height_m, self.imager.parallax_rad[band], self.gsd_m)
        if shift == 0:
            return layer
        return replace(layer, depth=np.roll(layer.depth, shift, 0), relief=np.roll(layer.relief, shift, 0))


def _under_cloud(passed: FloatArray, reflected: FloatArray, signal: FloatArray) -> FloatArray:
    """What comes up through a cloud, with light going back and forth between it and bright ground (H, W)."""
    return np.asarray(passed * signal / (1 - np.minimum(reflected, 0.9) * np.minimum(signal, 0.9)))


def _misjudge(rng: np.random.Generator, air: Atmosphere) -> Atmosphere:
    """The air as an atmospheric correction estimates it: aerosol depth is known to about 0.05 + 0.15 depth.

    That is what retrievals over land promise (Levy et al. 2013); vapour is known to about 8 %.
    """
    error = rng.normal(0, 0.03 + 0.12 * air.aerosol_depth)
    return replace(
        air,
        aerosol_depth=max(air.aerosol_depth + float(error), 0.01),
        vapour_cm=air.vapour_cm * float(rng.lognormal(0, 0.08)),
    )


def _correct(image: FloatArray, imager: Imager, air: Atmosphere) -> None:
    """Turn top-of-atmosphere into surface reflectance, in place; products of the surface have no cirrus band."""
    for band, channel in enumerate(imager.channels):
        if "cirrus" in imager.bands[band]:
            image[band] = 0
        else:
            image[band] = air.to_surface(image[band : band + 1], (channel,))[0]


def _record(image: FloatArray, imager: Imager, options: SimulatorOptions, sun: Sun, rng: np.random.Generator) -> None:
    """Pass each band through its detectors, in place."""
    wobble = rng.uniform(0.0, imager.wobble_px) if rng.random() < 0.3 else 0.05
    is_smooth = bool(rng.random() < 0.5)
    noise = float(10 ** rng.uniform(*imager.noise_log10))
    # With the pixel's own square this leaves 0.1 to 0.35 of the contrast of the finest detail; the mission asks for
    # 0.15 to 0.3 (Sentinel-2 user handbook, modulation transfer at Nyquist).
    blur = float(rng.uniform(0.11, 0.21))
    # One scene in eight is badly calibrated.
    stripes = replace(
        imager.stripes, deviation=imager.stripes.deviation * float(rng.choice([0.5, 1.0, 4.0], p=[0.5, 0.375, 0.125]))
    )
    full_scale = imager.draw_full_scale(rng, sun.zenith_rad)
    for band, native_m in enumerate(imager.gsd_m):
        factor = max(round(native_m / options.gsd_m), 1)
        row, column = rng.uniform(-wobble, wobble, 2) / factor
        sensor = Sensor(
            factor, (float(row), float(column)), blur, noise * 0.7, noise**2 * 3, is_smooth, float(full_scale[band]),
            imager.bits, stripes,
        )  # fmt: skip
        image[band] = sensor.observe(image[band], rng)
