"""The instruments that the simulator knows: their bands, detectors and what these do to a picture.

Axis letters: B bands of an instrument in the order of its products.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from geoseg_cli.errors import UsageError
from geoseg_cli.training.fields import FloatArray
from geoseg_cli.training.sensor import Stripes
from geoseg_cli.training.spectra import S2_BANDS, channels_of

ImagerName = Literal["sentinel-2", "landsat-8", "landsat-7", "landsat-5", "hls-l30", "hls-s30", "planetscope"]


@dataclass(frozen=True, slots=True)
class Imager:
    """A satellite instrument, or a product made of it.

    Attributes:
        bands: common names of each of its B bands, all that the band may stand for.
        channels: column of each band in a spectrum.
        gsd_m: native pixel of each band.
        parallax_rad: how far each band looks ahead along the track, relative to red. What floats is displaced by so
            many metres per metre of height.
        full_scale: settings of the gain, each with the reflectance per band that fills the scale under a sun at zenith.
        bits: of the numbers that the detectors are read out with.
        noise_log10: range of the logarithm of the deviation of reflectance over ground of reflectance 0.17.
        stripes: how the responses of its detectors differ.
        wobble_px: range of the misregistration of a band in a badly registered scene, native pixels, below 0.5.
        has_scan_gaps: whether most of its scenes have the gaps of `sensor.scan_gaps`.
    """

    bands: tuple[tuple[str, ...], ...]
    channels: tuple[int, ...]
    gsd_m: tuple[float, ...]
    parallax_rad: tuple[float, ...]
    full_scale: tuple[tuple[float, ...], ...]
    bits: int
    noise_log10: tuple[float, float]
    stripes: Stripes
    wobble_px: float
    has_scan_gaps: bool = False

    def has(self, common: Sequence[str]) -> bool:
        """Whether it has a band for each of these common names."""
        return set(common) <= {name for names in self.bands for name in names}

    def draw_full_scale(self, rng: np.random.Generator, sun_zenith_rad: float) -> FloatArray:
        """Reflectance (B,) at which each band saturates in one scene: lower sun needs more reflectance."""
        setting = self.full_scale[int(rng.integers(len(self.full_scale)))]
        return np.asarray(np.array(setting) / np.cos(sun_zenith_rad), np.float32)


def _full_scale(radiance: tuple[float, ...], irradiance: tuple[float, ...]) -> tuple[float, ...]:
    """Largest radiance, W/(m2 sr um), over that of a white surface under the sun's irradiance, W/(m2 um)."""
    return tuple(float(np.pi * top / sun) for top, sun in zip(radiance, irradiance, strict=True))


_MSI_NAMES: Final = (
    ("coastal",), ("blue",), ("green",), ("red",), ("rededge071", "rededge", "rededge1"), ("rededge075", "rededge2"),
    ("rededge078", "rededge3"), ("nir",), ("nir08",), ("nir09",), ("cirrus",), ("swir16", "swir1"), ("swir22", "swir2"),
)  # fmt: skip
_TM_NAMES: Final = (("blue",), ("green",), ("red",), ("nir08", "nir"), ("swir16", "swir1"), ("swir22", "swir2"))
_OLI_NAMES: Final = (("coastal",), *_TM_NAMES, ("cirrus",))
_OLI_BANDS: Final = ("B1", "B2", "B3", "B4", "B5", "B6", "B7", "B9")
_TM_BANDS: Final = ("B1", "B2", "B3", "B4", "B5", "B7")

# Order of the detector rows over 0.022 rad: B02 B08 B03 B10 B04 B05 B11 B06 B07 B8A B12 B01 B09 (Sentinel-2 user
# handbook).
_MSI_PARALLAX: Final = (
    0.0130, -0.0070, -0.0035, 0.0, 0.0020, 0.0060, 0.0080, -0.0053, 0.0095, 0.0150, -0.0018, 0.0040, 0.0110,
)  # fmt: skip
# Rough: the bands of a detector module of the OLI lie about 1 mm apart behind 0.886 m of focal length, in the order
# cirrus, SWIR, green, red, NIR, coastal, blue.
_OLI_PARALLAX: Final = (0.0022, 0.0033, -0.0011, 0.0, 0.0011, -0.0022, -0.0033, -0.0044)

# Largest radiances and solar irradiances of the mission requirements and the product metadata of Sentinel-2A.
_MSI_SCALE: Final = _full_scale(
    (588, 615.5, 559, 484, 449.5, 413, 387, 308, 308, 233, 45, 70, 24.5),
    (1884.7, 1959.7, 1823.2, 1512.1, 1424.6, 1287.6, 1162.1, 1041.6, 955.3, 812.9, 367.2, 245.6, 85.25),
)
# Landsat products of the OLI are scaled to end at 1.2107 (REFLECTANCE_MAXIMUM_BAND_n of their metadata).
_OLI_SCALE: Final = (1.2107,) * 8
# Post-calibration dynamic ranges and irradiances: Chander, Markham and Helder 2009, tables 3 to 5.
_TM_SCALE: Final = _full_scale((193, 365, 264, 221, 30.2, 16.5), (1983, 1796, 1536, 1031, 220.0, 83.44))
# The ETM+ sees land at high gain, but near infrared at low gain where the sun stands high, and desert and ice at low
# gain in all bands (Landsat 7 data users handbook).
_ETM_SUN: Final = (1997, 1812, 1533, 1039, 230.8, 84.90)
_ETM_SCALES: Final = (
    _full_scale((191.6, 196.5, 152.9, 241.1, 31.06, 10.80), _ETM_SUN),
    _full_scale((191.6, 196.5, 152.9, 157.4, 31.06, 10.80), _ETM_SUN),
    _full_scale((293.7, 300.9, 234.4, 241.1, 47.57, 16.54), _ETM_SUN),
)

# A pushbroom has a detector for every column; the mirror of the TM and ETM+ sweeps 16 rows at a time, to and fro.
# Residual differences of response are of the order of 0.2 % and of half a number, which in eight bits shows.
_PUSHBROOM: Final = Stripes(axis=1, deviation=0.0015)
_WHISKBROOM: Final = Stripes(axis=0, deviation=0.003, detectors=16)

_MSI: Final = Imager(
    bands=_MSI_NAMES, channels=channels_of("msi", S2_BANDS),
    gsd_m=(60, 10, 10, 10, 20, 20, 20, 10, 20, 60, 60, 20, 20), parallax_rad=_MSI_PARALLAX, full_scale=(_MSI_SCALE,),
    bits=12, noise_log10=(-3.3, -2.6), stripes=_PUSHBROOM, wobble_px=0.3,
)  # fmt: skip
_OLI: Final = Imager(
    bands=_OLI_NAMES, channels=channels_of("oli", _OLI_BANDS), gsd_m=(30,) * 8, parallax_rad=_OLI_PARALLAX,
    full_scale=(_OLI_SCALE,), bits=12, noise_log10=(-3.5, -2.9), stripes=_PUSHBROOM, wobble_px=0.2,
)  # fmt: skip

IMAGERS: Final[dict[ImagerName, Imager]] = {
    "sentinel-2": _MSI,
    "landsat-8": _OLI,
    "landsat-7": Imager(
        bands=_TM_NAMES, channels=channels_of("etm", _TM_BANDS), gsd_m=(30,) * 6, parallax_rad=(0.0,) * 6,
        full_scale=_ETM_SCALES, bits=8, noise_log10=(-3.0, -2.5), stripes=_WHISKBROOM,
        wobble_px=0.3, has_scan_gaps=True,
    ),
    "landsat-5": Imager(
        bands=_TM_NAMES, channels=channels_of("tm", _TM_BANDS), gsd_m=(30,) * 6, parallax_rad=(0.0,) * 6,
        full_scale=(_TM_SCALE,), bits=8, noise_log10=(-2.9, -2.4), stripes=_WHISKBROOM, wobble_px=0.3,
    ),
    "hls-l30": _OLI,
    # HLS brings Sentinel-2 to the grid of Landsat.
    "hls-s30": Imager(
        bands=_MSI_NAMES, channels=_MSI.channels, gsd_m=tuple(max(gsd_m, 30.0) for gsd_m in _MSI.gsd_m),
        parallax_rad=_MSI_PARALLAX, full_scale=(_MSI_SCALE,), bits=12, noise_log10=(-3.6, -3.0), stripes=_PUSHBROOM,
        wobble_px=0.15,
    ),
    # Small cameras: more noise, worse registration. Eight stripes of filters share a view of about 0.04 rad.
    "planetscope": Imager(
        bands=(("blue",), ("green",), ("red",), ("nir",)),
        channels=channels_of("dove", ("blue", "green", "red", "nir")), gsd_m=(3,) * 4,
        parallax_rad=(0.010, 0.005, 0.0, -0.010), full_scale=((1.0,) * 4,), bits=12, noise_log10=(-2.9, -2.2),
        stripes=Stripes(axis=1, deviation=0.002), wobble_px=0.4,
    ),
}  # fmt: skip


def imager_named(name: str) -> Imager:
    """Look an instrument up.

    Raises:
        UsageError: there is none of this name.
    """
    if name not in IMAGERS:
        raise UsageError(f"cannot simulate the sensor {name!r}", f"Choose from {', '.join(IMAGERS)}.")
    return IMAGERS[name]
