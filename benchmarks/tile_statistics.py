"""Figures of image tiles by which real and simulated ones are compared.

Axis letters: N tiles, B bands, H rows, W columns. Tiles are (N, B, H, W) float32 reflectance; bands are named by common
names in a tuple. Every figure is one number per tile unless it says otherwise.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]

LAGS_PX = (1, 2, 4, 8)
# A step of 0.02 from one pixel to the next is ten times the noise of the sensor.
EDGE_STEP = 0.02


def normalised_difference(tiles: FloatArray, first: int, second: int) -> FloatArray:
    """(first - second) / (first + second) of two bands, (N, H, W) in -1..1."""
    total = tiles[:, first] + tiles[:, second]
    return np.asarray((tiles[:, first] - tiles[:, second]) / np.where(np.abs(total) < 1e-4, 1e-4, total), np.float32)


def band_correlation(tiles: FloatArray) -> FloatArray:
    """Correlation of the bands over the pixels of each tile, (N, B, B); 0 for a band that does not vary."""
    flat = tiles.reshape(*tiles.shape[:2], -1)
    flat = flat - flat.mean(axis=2, keepdims=True)
    deviation = np.sqrt((flat**2).mean(axis=2))
    covariance = np.einsum("nap,nbp->nab", flat, flat) / flat.shape[2]
    return np.asarray(covariance / np.maximum(deviation[:, :, None] * deviation[:, None, :], 1e-9), np.float32)


def spectrum_slope(band: FloatArray) -> FloatArray:
    """Fall of the power spectrum of (N, H, W) images between 2 cycles per tile and 0.3 cycles per pixel, (N,).

    Fitted to the logarithms of ring means; a Hann window keeps the tile's edges out.
    """
    height, width = band.shape[1:]
    window = np.hanning(height)[:, None] * np.hanning(width)[None, :]
    power = np.abs(np.fft.fft2((band - band.mean(axis=(1, 2), keepdims=True)) * window)) ** 2
    wave = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None, :])
    rings = np.geomspace(2.0 / width, 0.3, 8)
    means = [power[:, (wave >= low) & (wave < high)].mean(axis=1) for low, high in pairwise(rings)]
    centres = np.log(np.sqrt(rings[:-1] * rings[1:]))
    slope = np.polyfit(centres, np.log(np.maximum(np.stack(means), 1e-12)), 1)[0]
    return np.asarray(-slope, np.float32)


def autocorrelation(band: FloatArray) -> FloatArray:
    """Correlation of (N, H, W) images with themselves LAGS_PX further right or down, (N, 4)."""
    centred = band - band.mean(axis=(1, 2), keepdims=True)
    variance = np.maximum((centred**2).mean(axis=(1, 2)), 1e-12)
    columns = [
        ((centred[:, :, lag:] * centred[:, :, :-lag]).mean(axis=(1, 2))
         + (centred[:, lag:] * centred[:, :-lag]).mean(axis=(1, 2))) / (2 * variance)
        for lag in LAGS_PX
    ]  # fmt: skip
    return np.asarray(np.stack(columns, axis=1), np.float32)


def edge_density(band: FloatArray, step: float = EDGE_STEP) -> FloatArray:
    """Share of the pixels of (N, H, W) images that differ by `step` or more from the right or lower neighbour."""
    right = np.abs(np.diff(band, axis=2))[:, :-1]
    down = np.abs(np.diff(band, axis=1))[:, :, :-1]
    return np.asarray((np.maximum(right, down) >= step).mean(axis=(1, 2)), np.float32)


def boundary_density(labels: npt.NDArray[np.integer]) -> float:
    """Label borders per pixel: how many pairs of neighbours in (N, H, W) labels differ, over the number of pixels."""
    differing = (labels[:, 1:] != labels[:, :-1]).sum() + (labels[:, :, 1:] != labels[:, :, :-1]).sum()
    return float(differing / labels.size)


def summary_features(tiles: FloatArray, textured: tuple[int, ...]) -> FloatArray:
    """What a judge of whole tiles sees, (N, F): means, deviations, correlations, and the texture of some bands."""
    upper = np.triu_indices(tiles.shape[1], 1)
    columns = [tiles.mean(axis=(2, 3)), tiles.std(axis=(2, 3)), band_correlation(tiles)[:, upper[0], upper[1]]]
    for band in textured:
        image = tiles[:, band]
        columns += [spectrum_slope(image)[:, None], autocorrelation(image), edge_density(image)[:, None]]
    return np.asarray(np.concatenate(columns, axis=1), np.float32)


def pixel_features(tiles: FloatArray, stride_px: int) -> FloatArray:
    """What a judge of single pixels sees, (N, H / stride, W / stride, 3 B).

    Its bands, and their means and deviations in a square of 5 x 5 px around it; edges repeat.
    """
    padded = np.pad(tiles.astype(np.float64), ((0, 0), (0, 0), (2, 2), (2, 2)), mode="edge")
    mean, square = _box(padded), _box(padded**2)
    deviation = np.sqrt(np.maximum(square - mean**2, 0))
    stacked = np.concatenate([tiles, mean, deviation], axis=1)[:, :, ::stride_px, ::stride_px]
    return np.asarray(stacked.transpose(0, 2, 3, 1), np.float32)


def _box(padded: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Mean of (..., H + 4, W + 4) over squares of 5 x 5."""
    windows = np.lib.stride_tricks.sliding_window_view(padded, (5, 5), axis=(-2, -1))
    return np.asarray(windows.mean(axis=(-2, -1)))
