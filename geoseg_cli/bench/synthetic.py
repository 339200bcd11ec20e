"""A scene of any size that is no place: size, type, entropy and layout of a Sentinel-2 tile.

Fractal fields say which share of a pixel each of four surfaces covers (water, forest, meadow, bare soil); a pixel is
the mixture of their reflectances, times a fractal brightness, plus the noise of a sensor. It is made and written by
rows of blocks, so memory is O(width), apart from the fields themselves at an eighth of the resolution.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import rasterio
from affine import Affine

from geoseg_cli.grid import Window

FloatArray = npt.NDArray[np.float32]

BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")
SURFACES: dict[str, tuple[float, ...]] = {
    "water": (0.055, 0.050, 0.045, 0.030, 0.026, 0.022, 0.021, 0.019, 0.018, 0.014, 0.001, 0.009, 0.007),
    "forest": (0.025, 0.027, 0.045, 0.028, 0.075, 0.190, 0.235, 0.250, 0.270, 0.260, 0.002, 0.130, 0.060),
    "meadow": (0.035, 0.042, 0.080, 0.055, 0.125, 0.290, 0.350, 0.370, 0.390, 0.380, 0.002, 0.230, 0.120),
    "soil": (0.080, 0.095, 0.130, 0.170, 0.195, 0.215, 0.235, 0.250, 0.270, 0.280, 0.003, 0.340, 0.290),
}
"""Rounded reflectance of each band; plausible orders of magnitude, no measurement."""

SCALE, OFFSET = 1e-4, -0.1
NOISE_DN = 18.0
"""Standard deviation of the sensor's noise in digital numbers; it decides how far the scene compresses."""

BLOCK_PX = 512
_CONTRAST = 14.0
_BRIGHTNESS = 0.5
_COARSE = 8
_BYTES = 2


def file_bytes(height_px: int, width_px: int) -> int:
    """Upper bound of the file's size."""
    return height_px * width_px * len(BANDS) * _BYTES


def write_synthetic(path: Path, height_px: int, width_px: int, seed: int = 0) -> None:
    """Write a scene of 13 uint16 bands with names, scale and offset: tiled, deflate, predictor 2.

    Args:
        path: Where to write.
        height_px, width_px: Rows and columns.
        seed: Decides the content.
    """
    rng = np.random.default_rng(seed)
    side = max(height_px, width_px)
    covers, brightness = [_fractal(side, rng) for _ in SURFACES], _fractal(side, rng)
    spectra = np.array(list(SURFACES.values()), np.float32)
    profile = {
        "driver": "GTiff", "dtype": "uint16", "count": len(BANDS), "height": height_px, "width": width_px,
        "crs": "EPSG:32632", "transform": Affine(10, 0, 600_000, 0, -10, 5_300_040), "nodata": 0, "tiled": True,
        "blockxsize": BLOCK_PX, "blockysize": BLOCK_PX, "compress": "deflate", "zlevel": 1, "predictor": 2,
        "interleave": "band", "bigtiff": "if_safer", "num_threads": "all_cpus",
    }  # fmt: skip
    with rasterio.open(path, "w", **profile) as file:
        file.descriptions = BANDS
        file.scales, file.offsets = (SCALE,) * len(BANDS), (OFFSET,) * len(BANDS)
        for row in range(0, height_px, BLOCK_PX):
            window = Window(row, 0, min(BLOCK_PX, height_px - row), width_px)
            shares = _shares([_enlarged(field, window, side) for field in covers])
            light = 1 + _BRIGHTNESS * (_enlarged(brightness, window, side) - 0.5)
            for band in range(len(BANDS)):
                reflectance = sum(share * value for share, value in zip(shares, spectra[:, band], strict=True)) * light
                number = (reflectance - OFFSET) / SCALE
                number += NOISE_DN * rng.standard_normal(number.shape, np.float32)
                file.write(np.clip(np.rint(number), 1, 65_535).astype(np.uint16), band + 1, window=window.to_rasterio())


def _fractal(side_px: int, rng: np.random.Generator) -> FloatArray:
    """(S, S) float32 in 0..1, power spectrum ~ 1/f^3, at an eighth of the resolution."""
    side = max(16, side_px // _COARSE)
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None])
    frequency[0, 0] = np.inf
    spectrum = np.fft.rfft2(rng.normal(size=(side, side))) / frequency**1.5
    field = np.fft.irfft2(spectrum, (side, side))
    return np.asarray((field - field.min()) / np.ptp(field), np.float32)


def _shares(fields: list[FloatArray]) -> list[FloatArray]:
    """What each surface covers: a softmax of the fields, so steep that most pixels are nearly pure."""
    weights = [np.exp(np.float32(_CONTRAST) * field) for field in fields]
    total = sum(weights)
    return [np.asarray(weight / total) for weight in weights]


def _enlarged(field: FloatArray, window: Window, side_px: int) -> FloatArray:
    """Linear interpolation of a coarse field, which covers ``side_px`` pixels, onto a window of the scene."""
    scale = (field.shape[0] - 1) / side_px
    y, x = (np.arange(part.start, part.stop) * scale for part in (window.rows, window.cols))
    y0, x0 = y.astype(int), x.astype(int)
    fy, fx = (y - y0).astype(np.float32)[:, None], (x - x0).astype(np.float32)[None]
    across = field[:, x0] * (1 - fx) + field[:, x0 + 1] * fx
    return np.asarray(across[y0] * (1 - fy) + across[y0 + 1] * fy)
