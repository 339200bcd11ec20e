"""Cloud fields of optical depth, their light and shadow, and the labels that follow from optical depth.

Axis letters: H rows, W columns. Fields are periodic: what leaves one edge of the
scene casts its shadow from the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from geoseg_cli.training.fields import FieldOptions, FloatArray, fractal_field, quantile
from geoseg_cli.training.spectra import spread_smooth

CloudRegime = Literal[
    "clear", "cumulus", "broken", "altocumulus", "stratus", "holes", "cirrus", "contrails", "haze", "multilayer"
]
CLEAR, THICK, THIN, SHADOW, NODATA = 0, 1, 2, 3, 255

# Labels are defined by vertical optical depth. At 0.3 a cloud adds about 0.03 of reflectance, what an eye sees over
# dark ground; at 3 less than half of the light keeps its direction and details of the ground are lost.
THIN_OPTICAL_DEPTH: Final = 0.3
THICK_OPTICAL_DEPTH: Final = 3.0
# Shadow: less than this share of the sunbeam passes the cloud; about what is darker than slopes and fields vary.
SHADOW_TRANSMISSION: Final = 0.7

# Asymmetry of cloud droplets, and the share of depth that still bends the beam when the forward peak, g^2 of it,
# counts as unscattered (delta-Eddington, Joseph et al. 1976).
ASYMMETRY: Final = 0.85
BEAM_SHARE: Final = 1 - ASYMMETRY**2

# Reflectance of endlessly thick cloud per channel. Droplets of 10 um absorb little at 1.6 um and more at 2.2 um; ice of
# 30 um absorbs more at both (Nakajima and King 1990; Pilewskie and Twomey 1987).
_WATER_CLOUD: Final = spread_smooth([1.0] * 9 + [0.97, 0.85, 0.70, 0.50])
_ICE_CLOUD: Final = spread_smooth([1.0] * 9 + [0.95, 0.75, 0.38, 0.28])


@dataclass(frozen=True, slots=True)
class CloudLayer:
    """One sheet of cloud.

    Attributes:
        depth: (H, W) float32, vertical optical depth >= 0.
        relief: (H, W) float32 around 1, brightness by the slope of the cloud top towards the sun.
        height_m: base above ground.
        is_ice: crystals instead of droplets.
    """

    depth: FloatArray
    relief: FloatArray
    height_m: float
    is_ice: bool

    def reflectance(self, channel: int, sun_zenith_rad: float) -> tuple[FloatArray, FloatArray]:
        """Reflectance of the cloud alone in one channel of `spectra.CHANNELS` and its two-way diffuse transmission.

        Two-stream solution for scattering without loss, x / (1 + x) with x = (1 - g) depth / 2 (Bohren 1987), where
        the slanting first pass of the sun counts by its path; absorption limits thick cloud to `_WATER_CLOUD` or
        `_ICE_CLOUD`.

        Returns:
            Two (H, W) float32 arrays, 0..1.4 and 0..1.
        """
        limit = np.float32((_ICE_CLOUD if self.is_ice else _WATER_CLOUD)[channel])
        slant = np.float32(0.5 * (1 + 1 / max(np.cos(sun_zenith_rad), 0.2)))
        strength = self.depth * (np.float32((1 - ASYMMETRY) / 2) * slant)
        reflected = strength / (1 + strength / limit)
        # Absorption takes from the light that gets through as well, in proportion to what scattering keeps inside.
        passed = (1 / (1 + strength)) ** 2 * np.exp(strength * (limit - 1) * np.float32(0.5))
        return reflected * self.relief, passed

    def beam_depth(self, shift: tuple[int, int], sun_zenith_rad: float) -> FloatArray:
        """Optical depth that the sunbeam met on its way to each ground pixel, (H, W) float32.

        Args:
            shift: rows and columns from a cloud pixel to its shadow.
            sun_zenith_rad: sun zenith angle.
        """
        return np.roll(self.depth, shift, axis=(0, 1)) / np.float32(np.cos(sun_zenith_rad))


def shadow_shift(height_m: float, sun_zenith_rad: float, sun_azimuth_rad: float, gsd_m: float) -> tuple[int, int]:
    """Rows and columns from a cloud seen from the zenith to its shadow.

    The shadow lies away from the sun by height * tan(zenith). Azimuth is clockwise from north; rows grow southward.
    """
    distance_px = height_m * np.tan(sun_zenith_rad) / gsd_m
    return round(float(distance_px * np.cos(sun_azimuth_rad))), round(float(-distance_px * np.sin(sun_azimuth_rad)))


def parallax_px(height_m: float, parallax_rad: float, gsd_m: float) -> int:
    """Rows by which a band that looks forward by `parallax_rad` sees a cloud at `height_m` displaced."""
    return round(parallax_rad * height_m / gsd_m)


def beam_transmission(beam_depth: FloatArray) -> FloatArray:
    """Share of the sunbeam that passes cloud of a slant optical depth, forward peak included: float32 0..1."""
    return np.asarray(np.exp(-beam_depth * np.float32(BEAM_SHARE)))


def label_clouds(depth: FloatArray, beam_depth: FloatArray, valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Labels from vertical and sunward optical depth, all (H, W): thick and thin win over shadow."""
    labels = np.where(beam_transmission(beam_depth) < SHADOW_TRANSMISSION, SHADOW, CLEAR)
    labels = np.where(depth >= THIN_OPTICAL_DEPTH, THIN, labels)
    labels = np.where(depth >= THICK_OPTICAL_DEPTH, THICK, labels)
    return np.where(valid, labels, NODATA).astype(np.uint8)


@dataclass(frozen=True, slots=True)
class CloudOptions:
    """What a cloud field needs to know of the scene.

    Attributes:
        shape: (H, W).
        gsd_m: pixel size.
        sun_azimuth_rad: clockwise from north.
        height_m: height of the (lowest) layer, or None to draw it.
    """

    shape: tuple[int, int]
    gsd_m: float
    sun_azimuth_rad: float
    height_m: float | None = None

    def draw_height(self, rng: np.random.Generator, bounds: tuple[float, float]) -> float:
        """The height that is asked for, or one within bounds."""
        drawn = float(rng.uniform(*bounds))
        return drawn if self.height_m is None else self.height_m


@dataclass(frozen=True, slots=True)
class _Cells:
    """Heaps of cloud: share of the scene, size of the largest, typical optical depth, range of heights."""

    cover: float
    cell_m: float
    peak: float
    height_m: tuple[float, float]


def make_clouds(regime: CloudRegime, options: CloudOptions, rng: np.random.Generator) -> list[CloudLayer]:
    """Draw the cloud layers of a scene, lowest first; none for "clear"."""
    if regime == "clear":
        return []
    if regime == "multilayer":
        low = _LAYERS[str(rng.choice(["cumulus", "broken", "holes"]))](options, rng)
        layers = [low, _cirrus(CloudOptions(options.shape, options.gsd_m, options.sun_azimuth_rad), rng)]
        return sorted(layers, key=lambda layer: layer.height_m)
    return [_LAYERS[regime](options, rng)]


def _field(options: CloudOptions, rng: np.random.Generator, exponent: float, outer_m: float) -> FloatArray:
    return fractal_field(rng, options.shape, FieldOptions(exponent, max(outer_m / options.gsd_m, 4.0)))


def _relief(options: CloudOptions, field: FloatArray, depth: FloatArray, strength: float) -> FloatArray:
    """Bright sides towards the sun and dull ones away: 1 + strength * slope of the field, where cloud is thick."""
    away = np.float32(np.cos(options.sun_azimuth_rad)), np.float32(-np.sin(options.sun_azimuth_rad))
    rows = np.roll(field, -1, axis=0) - np.roll(field, 1, axis=0)
    columns = np.roll(field, -1, axis=1) - np.roll(field, 1, axis=1)
    # Going away from the sun, a rising top faces it.
    slope = rows * away[0] + columns * away[1]
    scale = np.float32(max(float(slope.std()), 1e-6))
    solid = depth / (depth + np.float32(4))
    return 1 + np.float32(strength) * solid * np.tanh(slope / scale)


def _cellular(options: CloudOptions, rng: np.random.Generator, cells: _Cells) -> CloudLayer:
    """Heaps of cloud over a share of the scene: what stands above a level of a fractal field is cloud.

    The spectral exponent of 2-D cloud fields lies near 3 (slope -5/3 along a line; Cahalan and Snider 1989).
    """
    field = _field(options, rng, float(rng.uniform(3.0, 4.2)), cells.cell_m)
    field += np.float32(rng.uniform(0.0, 0.12)) * _field(options, rng, 2.4, cells.cell_m / 4)
    excess = np.maximum(field - np.float32(quantile(field, 1 - cells.cover)), 0)
    # Edges of convective cloud are sharp, those of dissolving cloud wide.
    soft = np.float32(10 ** rng.uniform(-1.5, 0.1))
    body = excess**1.5 / (excess + soft)
    body *= np.exp(np.float32(rng.uniform(0.1, 0.45)) * _field(options, rng, 2.6, cells.cell_m / 3))
    depth = body * np.float32(cells.peak)
    height = options.draw_height(rng, cells.height_m)
    return CloudLayer(depth, _relief(options, field, depth, rng.uniform(0.05, 0.25)), height, False)


def _cumulus(options: CloudOptions, rng: np.random.Generator) -> CloudLayer:
    peak = float(rng.lognormal(np.log(20), 0.6))
    return _cellular(options, rng, _Cells(rng.uniform(0.03, 0.35), rng.uniform(300, 2500), peak, (500, 2500)))


def _broken(options: CloudOptions, rng: np.random.Generator) -> CloudLayer:
    peak = float(rng.lognormal(np.log(25), 0.6))
    return _cellular(options, rng, _Cells(rng.uniform(0.3, 0.85), rng.uniform(800, 5000), peak, (600, 3500)))


def _altocumulus(options: CloudOptions, rng: np.random.Generator) -> CloudLayer:
    peak = float(rng.lognormal(np.log(4), 0.6))
    return _cellular(options, rng, _Cells(rng.uniform(0.2, 0.8), rng.uniform(300, 900), peak, (2500, 6000)))


def _stratus(options: CloudOptions, rng: np.random.Generator) -> CloudLayer:
    """An unbroken deck; optical depth is about log-normal (Barker et al. 1996)."""
    field = _field(options, rng, float(rng.uniform(2.6, 3.2)), float(rng.uniform(1000, 8000)))
    depth = np.exp(np.float32(rng.uniform(np.log(4), np.log(45))) + np.float32(rng.uniform(0.1, 0.6)) * field)
    height = options.draw_height(rng, (300, 4000))
    is_ice = bool(rng.random() < 0.25)
    relief = _relief(options, field, depth, rng.uniform(0.0, 0.12))
    return CloudLayer(depth, relief, height + (4000.0 if is_ice else 0.0), is_ice)


def _holes(options: CloudOptions, rng: np.random.Generator) -> CloudLayer:
    peak = float(rng.lognormal(np.log(12), 0.5))
    return _cellular(options, rng, _Cells(rng.uniform(0.75, 0.97), rng.uniform(1500, 6000), peak, (400, 3000)))


def _cirrus(options: CloudOptions, rng: np.random.Generator) -> CloudLayer:
    """Streaks and veils of ice."""
    streaks = FieldOptions(float(rng.uniform(2.6, 3.4)), float(rng.uniform(1500, 8000)) / options.gsd_m,
                           stretch=float(rng.uniform(1, 8)), angle_rad=float(rng.uniform(0, np.pi)))  # fmt: skip
    field = fractal_field(rng, options.shape, streaks)
    level = np.float32(quantile(field, rng.uniform(-0.3, 0.8)) - rng.uniform(0, 0.5))
    depth = np.maximum(field - level, 0) ** np.float32(1.3) * np.float32(10 ** rng.uniform(-1.0, 0.2))
    height = options.draw_height(rng, (6500, 12500))
    return CloudLayer(depth, np.ones(options.shape, np.float32), height, True)


def _contrails(options: CloudOptions, rng: np.random.Generator) -> CloudLayer:
    """One to three aircraft trails, some wide and worn."""
    rows = np.arange(options.shape[0], dtype=np.float32)[:, None] * np.float32(options.gsd_m)
    columns = np.arange(options.shape[1], dtype=np.float32)[None, :] * np.float32(options.gsd_m)
    wisps = np.exp(np.float32(0.5) * _field(options, rng, 3.2, 800.0))
    bend = _field(options, rng, 4.0, 3000.0) * np.float32(30)
    depth = np.zeros(options.shape, np.float32)
    for _ in range(int(rng.integers(1, 4))):
        angle = rng.uniform(0, np.pi)
        across = rows * np.float32(np.cos(angle)) - columns * np.float32(np.sin(angle)) + bend
        distance = across - across[int(rng.integers(options.shape[0])), int(rng.integers(options.shape[1]))]
        width = np.float32(rng.uniform(30, 350))
        depth += np.exp(-((distance / width) ** 2)) * wisps * np.float32(rng.uniform(0.2, 1.6))
    height = options.draw_height(rng, (8000, 12000))
    return CloudLayer(depth, np.ones(options.shape, np.float32), height, True)


def _haze(options: CloudOptions, rng: np.random.Generator) -> CloudLayer:
    """A thin veil of droplets or ice over everything, with slow changes."""
    field = _field(options, rng, 3.6, float(rng.uniform(2000, 8000)))
    depth = np.exp(np.float32(rng.uniform(np.log(0.06), np.log(1.6))) + np.float32(rng.uniform(0.1, 0.6)) * field)
    is_ice = bool(rng.random() < 0.5)
    height = options.draw_height(rng, (6500, 12000) if is_ice else (300, 2500))
    return CloudLayer(depth, np.ones(options.shape, np.float32), height, is_ice)


_LAYERS: Final = {
    "cumulus": _cumulus, "broken": _broken, "altocumulus": _altocumulus, "stratus": _stratus, "holes": _holes,
    "cirrus": _cirrus, "contrails": _contrails, "haze": _haze,
}  # fmt: skip
