"""Make a large synthetic scene: fractal fields mixed per band plus sensor noise, tiled, deflate, predictor 2.

Not a place and not for accuracy: it has the size, type, entropy and layout of a Sentinel-2 tile.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import rasterio
from affine import Affine

S2_BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")
NOISE_DN = 18.0
"""Standard deviation of the sensor noise; with it deflate reaches the ratio of real scenes, about 1.7."""


def write_synthetic(path: Path, height_px: int, width_px: int, seed: int = 0) -> Path:
    """Write a scene of 13 uint16 bands, row band by row band.

    Args:
        path: Where to write.
        height_px, width_px: Rows and columns.
        seed: Decides the content.
    """
    rng = np.random.default_rng(seed)
    fields = [_fractal(max(height_px, width_px), rng) for _ in range(3)]
    mixing = rng.uniform(0.1, 1.0, (len(S2_BANDS), 3))
    with rasterio.open(
        path, "w", driver="GTiff", dtype="uint16", count=len(S2_BANDS), height=height_px, width=width_px,
        crs="EPSG:32632", transform=Affine(10, 0, 600_000, 0, -10, 5_300_040), nodata=0, tiled=True,
        blockxsize=512, blockysize=512, compress="deflate", zlevel=1, predictor=2, interleave="band", bigtiff="yes",
    ) as file:  # fmt: skip
        file.scales, file.offsets = (1e-4,) * len(S2_BANDS), (-0.1,) * len(S2_BANDS)
        for index, name in enumerate(S2_BANDS, start=1):
            file.set_band_description(index, name)
        for row in range(0, height_px, 512):
            rows = slice(row, min(row + 512, height_px))
            window = rasterio.windows.Window(0, row, width_px, rows.stop - row)
            parts = [_enlarged(field, rows, height_px, width_px) for field in fields]
            for band, weights in enumerate(mixing, start=1):
                value = 1100 + 2500 * sum(w * p for w, p in zip(weights, parts, strict=True))
                value += rng.normal(0, NOISE_DN, value.shape).astype(np.float32)
                file.write(np.clip(value, 1, 65_535).astype(np.uint16), band, window=window)
    return path


def _fractal(side_px: int, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """(S, S) float32 in 0..1, power spectrum ~ 1/f^3, at an eighth of the resolution."""
    side = max(16, side_px // 8)
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None])
    frequency[0, 0] = np.inf
    spectrum = np.fft.rfft2(rng.normal(size=(side, side))) / frequency**1.5
    field = np.fft.irfft2(spectrum, (side, side))
    field = (field - field.min()) / np.ptp(field)
    return field.astype(np.float32)


def _enlarged(field: npt.NDArray[np.float32], rows: slice, height_px: int, width_px: int) -> npt.NDArray[np.float32]:
    """Linear interpolation of a coarse field onto some rows of the scene."""
    scale = (field.shape[0] - 1) / max(height_px, width_px)
    y = np.arange(rows.start, rows.stop) * scale
    x = np.arange(width_px) * scale
    y0, x0 = y.astype(int), x.astype(int)
    fy, fx = (y - y0).astype(np.float32)[:, None], (x - x0).astype(np.float32)[None]
    top = field[y0][:, x0] * (1 - fx) + field[y0][:, x0 + 1] * fx
    bottom = field[y0 + 1][:, x0] * (1 - fx) + field[y0 + 1][:, x0 + 1] * fx
    blended: npt.NDArray[np.float32] = top * (1 - fy) + bottom * fy
    return blended


if __name__ == "__main__":
    write_synthetic(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
