"""Air that a sample did not have: the same ground at another level of a product, or on another day.

Axes: P bands, T side of a sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Final

import numpy as np

from geoseg_cli.training.atmosphere import Atmosphere
from geoseg_cli.training.chips import BoolArray, FloatArray
from geoseg_cli.training.imagers import IMAGERS

UNLIT: Final = ("cirrus", "nir09")
"""Bands in which vapour hides the ground."""
_TRIES: Final = 12
_DARKEST: Final = 1.0
"""Percentile of a band's pixels that must stay above zero: shadow and water bound the air that may be taken away."""


def draw_air(rng: np.random.Generator) -> Atmosphere:
    """Clear to hazy air over low ground, from 25 to 60 degrees of solar zenith distance."""
    return Atmosphere(
        sun_zenith_rad=float(np.radians(rng.uniform(25, 60))),
        aerosol_depth=float(np.clip(rng.lognormal(np.log(0.1), 0.7), 0.02, 0.6)),
        angstrom=float(rng.uniform(0.9, 1.7)),
        vapour_cm=float(rng.uniform(0.5, 3.0)),
        ground_m=float(rng.uniform(0, 600)),
    )


def removable_air(reflectance: FloatArray, bands: Sequence[str], rng: np.random.Generator) -> Atmosphere | None:
    """Air below which the darkest pixels of an image still reflect something, or None where no draw is such air.

    Args:
        reflectance: (P, ...) float32 at the top of the atmosphere, of valid pixels alone.
        bands: Common names of the P bands, all of Sentinel-2.
        rng: Of all chance.
    """
    darkest = np.percentile(reflectance.reshape(len(bands), -1), _DARKEST, axis=1).astype(np.float32)[:, None, None]
    lit = np.array([band not in UNLIT for band in bands])
    for _ in range(_TRIES):
        air = draw_air(rng)
        if (air.to_surface(darkest, channels_of_bands(tuple(bands)))[lit] > 0).all():
            return air
    return None


def other_air(reflectance: FloatArray, valid: BoolArray, bands: Sequence[str], rng: np.random.Generator) -> FloatArray:
    """A square with air taken away, where it can have had any, or with air laid over it; each half of the times.

    Args:
        reflectance: (P, T, T) float32; a band that is 0 everywhere is absent and stays so.
        valid: (T, T) bool.
        bands: Common names of the P bands, all of Sentinel-2; those in which vapour hides the ground stay as they are.
        rng: Of all chance.

    Returns:
        (P, T, T) float32.
    """
    seen = [place for place, band in enumerate(bands) if band not in UNLIT and reflectance[place].any()]
    if not valid.any() or not seen:
        return reflectance
    names = tuple(bands[place] for place in seen)
    result = reflectance.copy()
    air = removable_air(reflectance[seen][:, valid], names, rng) if rng.random() < 0.5 else None
    if air is not None:
        result[seen] = air.to_surface(reflectance[seen], channels_of_bands(names))
    else:
        result[seen] = draw_air(rng).to_top(reflectance[seen], channels_of_bands(names))
    return result


@cache
def channels_of_bands(bands: tuple[str, ...]) -> tuple[int, ...]:
    """Channel of each of Sentinel-2's bands in the spectra, by their first common names."""
    imager = IMAGERS["sentinel-2"]
    channel = {names[0]: number for names, number in zip(imager.bands, imager.channels, strict=True)}
    return tuple(channel[band] for band in bands)
