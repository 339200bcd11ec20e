"""Random fields and integer hashes that layouts and clouds are drawn from.

Axis letters: H rows, W columns. Lengths are in pixels of the array that is asked for unless a name says metres.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int32] | NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class FieldOptions:
    """How a fractal field looks.

    Attributes:
        exponent: fall of the power spectrum with wavenumber; 0 is white, 5/3 + 1 turbulence-like, 4 very smooth.
        outer_px: wavelength above which the spectrum is flat, pixels.
        stretch: how many times longer features are along `angle_rad` than across; 1 is isotropic.
        angle_rad: direction of the long axis, from the column axis towards the row axis.
    """

    exponent: float = 3.0
    outer_px: float = 128.0
    stretch: float = 1.0
    angle_rad: float = 0.0


@lru_cache(maxsize=16)
def _wavenumbers(height: int, width: int) -> tuple[FloatArray, FloatArray]:
    """Cycles per pixel along rows (H, 1) and columns (1, W // 2 + 1), float32."""
    rows = np.fft.fftfreq(height).astype(np.float32)[:, None]
    columns = np.fft.rfftfreq(width).astype(np.float32)[None, :]
    return rows, columns


def fractal_field(rng: np.random.Generator, shape: tuple[int, int], options: FieldOptions) -> FloatArray:
    """Draw a periodic Gaussian random field with a power-law spectrum.

    Spectral synthesis (Voss 1988, in Peitgen and Saupe, The Science of Fractal Images): white noise in the Fourier
    domain times the square root of the wanted spectrum.

    Returns:
        (H, W) float32, mean 0, standard deviation about 1.
    """
    height, width = shape
    rows, columns = _wavenumbers(height, width)
    cos, sin = np.float32(np.cos(options.angle_rad)), np.float32(np.sin(options.angle_rad))
    along = columns * cos + rows * sin
    across = rows * cos - columns * sin
    amplitude = (along * np.float32(options.stretch)) ** 2 + across**2
    amplitude += np.float32(options.outer_px**-2)
    # exp(log) of float32 is several times faster than a power.
    np.log(amplitude, out=amplitude)
    amplitude *= np.float32(-options.exponent / 4)
    np.exp(amplitude, out=amplitude)
    # Uniform numbers do: each sample sums so many waves that it becomes Gaussian.
    white = rng.random((height, width // 2 + 1, 2), dtype=np.float32)
    white -= np.float32(0.5)
    spectrum = white.view(np.complex64)[..., 0]
    spectrum *= amplitude
    spectrum[0, 0] = 0
    field = np.fft.irfft2(spectrum, s=shape).astype(np.float32, copy=False)
    field *= np.float32(1 / max(float(field[::2, ::2].std()), 1e-12))
    return field


def quantile(field: FloatArray, fraction: float) -> float:
    """Value below which `fraction` (0..1) of an (H, W) field lies, from a thinned copy: exact ranks are not needed."""
    return float(np.quantile(field[::4, ::4], min(max(fraction, 0.0), 1.0)))


def hash_integers(first: IntArray, second: IntArray, salt: int) -> NDArray[np.uint32]:
    """Mix two integer arrays of one shape into well-spread uint32 values of that shape (murmur-like finaliser)."""
    mixed = first.astype(np.uint32) * np.uint32(0x85EBCA6B)
    mixed ^= second.astype(np.uint32) * np.uint32(0xC2B2AE35)
    mixed += np.uint32(salt & 0xFFFFFFFF)
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        mixed ^= mixed >> np.uint32(shift)
        mixed *= np.uint32(factor)
    mixed ^= mixed >> np.uint32(16)
    return mixed


def unit_interval(hashed: NDArray[np.uint32]) -> FloatArray:
    """Turn uint32 hashes into float32 of the same shape in 0..1."""
    return hashed.astype(np.float32) * np.float32(2.0**-32)


def block_mean(image: FloatArray, factor: int) -> FloatArray:
    """Average an (H, W) float32 image over factor x factor blocks; H and W must be multiples of `factor`."""
    height, width = image.shape
    assert (height % factor, width % factor) == (0, 0), "blocks must fit"
    columns = image[:, 0::factor].copy()
    for offset in range(1, factor):
        columns += image[:, offset::factor]
    total = columns[0::factor].copy()
    for offset in range(1, factor):
        total += columns[offset::factor]
    return total * np.float32(1.0 / factor**2)
