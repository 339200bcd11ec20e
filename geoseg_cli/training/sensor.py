"""What one band of an instrument does to a picture: optics, detector spacing, stripes, noise, digital numbers.

Axis letters: H rows, W columns, in pixels of the scene.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geoseg_cli.training.fields import FloatArray, block_mean


@dataclass(frozen=True, slots=True)
class Stripes:
    """Differences of response between detectors that calibration left.

    Attributes:
        axis: 1 where every column has a detector (pushbroom), 0 where a mirror sweeps some rows at a time.
        deviation: standard deviation of relative response.
        detectors: rows in a sweep of the mirror.
    """

    axis: int
    deviation: float
    detectors: int = 0

    def response(self, shape: tuple[int, int], rng: np.random.Generator) -> FloatArray:
        """Relative response around 1: (1, W) for stripes along the track, (H, 1) across it."""
        if self.axis == 1:
            return 1 + np.float32(self.deviation) * rng.standard_normal((1, shape[1]), dtype=np.float32)
        row = np.arange(shape[0]) + int(rng.integers(2 * self.detectors))
        # The mirror sees a little differently on its way back.
        sweep = (row // self.detectors % 2 - 0.5) * self.deviation
        detector = rng.standard_normal(self.detectors)[row % self.detectors] * self.deviation
        return np.asarray(1 + sweep + detector, np.float32)[:, None]


@dataclass(frozen=True, slots=True)
class Sensor:
    """One band's way from radiance to pixels.

    Attributes:
        factor: native pixel over scene pixel, 1, 2 or 6 at 10 m.
        shift_px: misregistration (rows, columns) in native pixels, below 0.5.
        blur: share of a pixel's signal that comes from each neighbour along an axis.
        noise_floor: deviation of reflectance over black ground.
        noise_gain: growth of the noise's variance with reflectance (photon noise).
        is_smooth: coarse bands are interpolated instead of repeated.
        full_scale: reflectance at which the detectors saturate.
        bits: of their numbers, which divide 0..full_scale evenly.
        stripes: differences between detectors.
    """

    factor: int
    shift_px: tuple[float, float]
    blur: float
    noise_floor: float
    noise_gain: float
    is_smooth: bool
    full_scale: float = np.inf
    bits: int = 12
    stripes: Stripes | None = None

    def observe(self, image: FloatArray, rng: np.random.Generator) -> FloatArray:
        """Turn at-sensor reflectance (H, W) into the recorded one on the same grid, float32."""
        height, width = image.shape
        native = _coarsen(image, self.factor)
        native = _filter(native, self.blur, self.shift_px)
        if self.stripes is not None:
            native *= self.stripes.response(native.shape, rng)
        deviation = np.sqrt(np.maximum(native, 0) * np.float32(self.noise_gain) + np.float32(self.noise_floor**2))
        native += deviation * rng.standard_normal(native.shape, dtype=np.float32)
        self._quantise(native)
        return _refine(native, self.factor, self.is_smooth)[:height, :width]

    def _quantise(self, image: FloatArray) -> None:
        """Round (h, w) to the detectors' numbers and cut off what is brighter than the largest, in place."""
        if np.isinf(self.full_scale):
            return
        step = np.float32(self.full_scale / (2**self.bits - 1))
        image /= step
        np.rint(image, out=image)
        np.minimum(image, np.float32(2**self.bits - 1), out=image)
        image *= step


def _coarsen(image: FloatArray, factor: int) -> FloatArray:
    """Average (H, W) over blocks, repeating the last rows and columns where the blocks do not fit."""
    if factor == 1:
        return image
    height, width = image.shape
    bottom, right = -height % factor, -width % factor
    padded = np.pad(image, ((0, bottom), (0, right)), mode="edge") if bottom or right else image
    return block_mean(padded, factor)


def _filter(image: FloatArray, blur: float, shift_px: tuple[float, float]) -> FloatArray:
    """Blur by three taps along each axis and shift by a part of a pixel; edges repeat."""
    padded = np.pad(image, 1, mode="edge")
    down, right = (np.float32(value) for value in shift_px)
    middle, side = np.float32(1 - 2 * blur), np.float32(blur)
    columns = padded[:, 1:-1] * middle + padded[:, :-2] * (side + right / 2) + padded[:, 2:] * (side - right / 2)
    return np.asarray(
        columns[1:-1] * middle + columns[:-2] * (side + down / 2) + columns[2:] * (side - down / 2), np.float32
    )


def _refine(image: FloatArray, factor: int, is_smooth: bool) -> FloatArray:
    """Bring (h, w) back to the scene's grid by repetition or linear interpolation."""
    if factor == 1:
        return image
    if not is_smooth:
        return np.repeat(np.repeat(image, factor, axis=0), factor, axis=1)
    return _interpolate_rows(_interpolate_rows(image, factor).T, factor).T


def _interpolate_rows(image: FloatArray, factor: int) -> FloatArray:
    """Linear interpolation along the first axis by a whole factor, pixel centres kept."""
    count = image.shape[0]
    position = (np.arange(count * factor) + 0.5) / factor - 0.5
    lower = np.clip(np.floor(position).astype(np.intp), 0, max(count - 2, 0))
    upper = np.minimum(lower + 1, count - 1)
    weight = np.clip(position - lower, 0, 1).astype(np.float32)[:, None]
    return np.asarray(image[lower] * (1 - weight) + image[upper] * weight, np.float32)


def swath_edge(rng: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Valid pixels (H, W) of a scene that the edge of the swath cuts: a straight, slightly slanted border."""
    height, width = shape
    lean = rng.uniform(0.05, 0.45) * rng.choice([-1, 1])
    rows = np.arange(height)[:, None] - height / 2
    columns = np.arange(width)[None, :] - width * rng.uniform(0.1, 0.9)
    inside = columns + rows * lean > 0
    return np.asarray(inside if rng.random() < 0.5 else ~inside)


def scan_gaps(rng: np.random.Generator, shape: tuple[int, int], gsd_m: float) -> NDArray[np.bool_]:
    """Valid pixels (H, W) of Landsat 7 since its scan line corrector failed in 2003.

    Every two sweeps of the mirror, 960 m, leave a gap that grows from nothing in the middle of the swath to 14 pixels
    of 30 m at its edges; the lines lean by about 9 degrees against the grid (USGS, SLC-off products).
    """
    period_px, widest_px = 960 / gsd_m, rng.uniform(0.1, 1.0) * 420 / gsd_m
    rows = np.arange(shape[0])[:, None] + rng.uniform(0, period_px)
    columns = np.arange(shape[1])[None, :]
    position = (rows + columns * np.tan(rng.uniform(0.1, 0.2))) % period_px
    # Half the swath is 92 km wide: within a scene the gaps widen little.
    width = widest_px + (columns - shape[1] / 2) * float(rng.choice([-1, 1])) * 420 / 92_000
    return np.asarray(position >= width)
