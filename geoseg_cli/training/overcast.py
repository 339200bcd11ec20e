"""Simulated clouds and their shadows over a sample of real or simulated ground.

Only what floats is added: the sample brings its own air. Axes: P bands, T side of a sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, get_args

import numpy as np

from geoseg_cli.training.chips import BoolArray, FloatArray, band_names
from geoseg_cli.training.clouds import (
    THICK_OPTICAL_DEPTH,
    CloudLayer,
    CloudOptions,
    CloudRegime,
    beam_transmission,
    make_clouds,
    shadow_shift,
)

REGIMES: Final[tuple[CloudRegime, ...]] = tuple(name for name in get_args(CloudRegime) if name != "clear")
_SKYLIGHT: Final = 0.15
"""Share of the light that reaches ground in full shadow; the sky gives 0.05 to 0.3, more in the blue."""


def cloud_over(
    reflectance: FloatArray, bands: Sequence[str], gsd_m: float, rng: np.random.Generator
) -> tuple[FloatArray, BoolArray]:
    """Lay clouds of a random kind over a square and their shadow onto it.

    Args:
        reflectance: (P, T, T) float32.
        bands: Common names of the P bands, all of Sentinel-2.
        gsd_m: Pixel size.
        rng: Of all chance.

    Returns:
        Reflectance (P, T, T) float32 as it is seen through the clouds, and (T, T) bool, True where thick cloud hides
        the ground.
    """
    sun_zenith_rad, sun_azimuth_rad = float(rng.uniform(0.35, 1.1)), float(rng.uniform(0, 2 * np.pi))
    regime = REGIMES[int(rng.integers(len(REGIMES)))]
    size = (reflectance.shape[1], reflectance.shape[2])
    layers = make_clouds(regime, CloudOptions(size, gsd_m, sun_azimuth_rad), rng)
    depth = np.sum([layer.depth for layer in layers], axis=0)
    shaded = reflectance * _light_below(layers, sun_zenith_rad, sun_azimuth_rad, gsd_m)
    order = band_names("sentinel-2")
    seen = np.stack([
        _through(plane, layers, order.index(band), sun_zenith_rad) for plane, band in zip(shaded, bands, strict=True)
    ])  # fmt: skip
    return seen, depth >= THICK_OPTICAL_DEPTH


def _light_below(
    layers: Sequence[CloudLayer], sun_zenith_rad: float, sun_azimuth_rad: float, gsd_m: float
) -> FloatArray:
    """Share of the light that reaches the ground, (T, T) float32."""
    shifts = [shadow_shift(layer.height_m, sun_zenith_rad, sun_azimuth_rad, gsd_m) for layer in layers]
    beams = [layer.beam_depth(shift, sun_zenith_rad) for layer, shift in zip(layers, shifts, strict=True)]
    passed = beam_transmission(np.sum(beams, axis=0, dtype=np.float32))
    return np.asarray(passed + np.float32(_SKYLIGHT) * (1 - passed), np.float32)


def _through(plane: FloatArray, layers: Sequence[CloudLayer], band: int, sun_zenith_rad: float) -> FloatArray:
    """One band (T, T) seen through the layers, the lowest first."""
    for layer in layers:
        reflected, passed = layer.reflectance(band, sun_zenith_rad)
        # Light goes back and forth between a cloud and bright ground.
        plane = reflected + passed * plane / (1 - np.minimum(reflected, 0.9) * np.clip(plane, 0, 0.9))
    return plane.astype(np.float32)
