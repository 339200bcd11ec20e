"""Where things lie on the ground: parcels, rivers, roads and towns as arrays of geometry, without any spectrum.

Axis letters: H rows, W columns of a canvas. All lengths are metres on the ground.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geoseg_cli.training.fields import FieldOptions, FloatArray, fractal_field, hash_integers, unit_interval


@dataclass(frozen=True, slots=True)
class Canvas:
    """A grid of sample points.

    Attributes:
        shape: (H, W).
        step_m: distance of two samples.
        x_m: (1, W) float32, eastward position.
        y_m: (H, 1) float32, southward position.
    """

    shape: tuple[int, int]
    step_m: float
    x_m: FloatArray
    y_m: FloatArray

    @classmethod
    def create(cls, rng: np.random.Generator, shape: tuple[int, int], step_m: float) -> Canvas:
        """A canvas somewhere in a 100 km square, so that hashed patterns differ from scene to scene."""
        west, north = rng.uniform(0, 1e5, 2)
        x_m = (west + np.arange(shape[1]) * step_m).astype(np.float32)[None, :]
        y_m = (north + np.arange(shape[0]) * step_m).astype(np.float32)[:, None]
        return cls(shape, step_m, x_m, y_m)

    def window(self, rows: slice, columns: slice) -> Canvas:
        """The part of the canvas in some rows and columns."""
        x_m, y_m = self.x_m[:, columns], self.y_m[rows]
        return Canvas((len(y_m), x_m.shape[1]), self.step_m, x_m, y_m)

    @property
    def extent_m(self) -> float:
        """Length of the longer side."""
        return max(self.shape) * self.step_m

    def field(self, rng: np.random.Generator, exponent: float, outer_m: float) -> FloatArray:
        """A fractal field (H, W) float32, mean 0, deviation 1, flat above the wavelength `outer_m`."""
        return fractal_field(rng, self.shape, FieldOptions(exponent, outer_m / self.step_m))

    def random_point(self, rng: np.random.Generator, margin: float = 0.0) -> tuple[float, float]:
        """(y_m, x_m) inside the canvas, or up to `margin` of its size outside."""
        rows = rng.uniform(-margin, 1 + margin) * self.shape[0] * self.step_m
        columns = rng.uniform(-margin, 1 + margin) * self.shape[1] * self.step_m
        return float(self.y_m[0, 0]) + rows, float(self.x_m[0, 0]) + columns

    def rotated(self, angle_rad: float, origin: tuple[float, float]) -> tuple[FloatArray, FloatArray]:
        """Coordinates (H, W) float32 along and across a direction, zero at `origin` = (y_m, x_m)."""
        x, y = self.x_m - np.float32(origin[1]), self.y_m - np.float32(origin[0])
        cos, sin = np.float32(np.cos(angle_rad)), np.float32(np.sin(angle_rad))
        return x * cos + y * sin, y * cos - x * sin


@dataclass(frozen=True, slots=True)
class GridStyle:
    """How a patchwork of parcels looks.

    Attributes:
        width_m, length_m: typical parcel size across and along.
        block_m: distance of the centres of blocks with one orientation; large values give one orientation.
        irregular: 0 equal parcels, 1 widths that vary by a factor of about five.
        bend_m: amplitude of the slow warp of all borders.
    """

    width_m: float
    length_m: float
    block_m: float = 2000.0
    irregular: float = 0.8
    bend_m: float = 0.0


@dataclass(frozen=True, slots=True)
class Parcels:
    """A patchwork.

    Attributes:
        key: (H, W) uint32, one well-mixed number per parcel.
        along_m, across_m: (H, W) float32, coordinates of the block's axes.
        edge_m: (H, W) float32, approximate distance to the nearest parcel border, >= 0.
        angle_rad: (H, W) float32, direction of the rows.
    """

    key: NDArray[np.uint32]
    along_m: FloatArray
    across_m: FloatArray
    edge_m: FloatArray


def _blocks(canvas: Canvas, rng: np.random.Generator, block_m: float) -> tuple[NDArray[np.int32], int]:
    """Nearest of a few random centres: (H, W) index, and their number."""
    area = canvas.shape[0] * canvas.shape[1] * canvas.step_m**2
    count = int(np.clip(rng.poisson(area / block_m**2), 1, 10))
    if count == 1:
        return np.zeros(canvas.shape, np.int32), 1
    nearest = np.full(canvas.shape, np.inf, np.float32)
    block = np.zeros(canvas.shape, np.int32)
    for index in range(count):
        y, x = canvas.random_point(rng)
        squared = (canvas.x_m - np.float32(x)) ** 2 + (canvas.y_m - np.float32(y)) ** 2
        np.copyto(block, np.int32(index), where=squared < nearest)
        np.minimum(nearest, squared, out=nearest)
    return block, count


def _cells(position: FloatArray, irregular: float, phase: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Number of the cell and place within it (0..1) on an axis cut at irregular places.

    The axis is stretched by a sine that keeps its order (slope stays above 1 - 0.85 * irregular > 0).
    """
    warped = position + np.float32(irregular * 0.85 / 2.1) * np.sin(np.float32(2.1) * position + phase)
    cell = np.floor(warped)
    return cell, warped - cell


def draw_parcels(canvas: Canvas, rng: np.random.Generator, style: GridStyle) -> Parcels:
    """Cut the canvas into parcels: strips across, each cut at its own places along."""
    block, count = _blocks(canvas, rng, style.block_m)
    base = rng.uniform(0, np.pi)
    angles = (base + np.where(rng.random(count) < 0.4, 0.0, rng.normal(0, 0.6, count))).astype(np.float32)
    cos, sin = np.cos(angles)[block], np.sin(angles)[block]
    x, y = canvas.x_m - canvas.x_m[0, 0], canvas.y_m - canvas.y_m[0, 0]
    along, across = x * cos + y * sin, y * cos - x * sin
    if style.bend_m > 0:
        bend = canvas.field(rng, 4.0, 1500.0) * np.float32(style.bend_m)
        along, across = along + bend, across - bend
    widths = (style.width_m * rng.uniform(0.7, 1.4, count)).astype(np.float32)[block]
    lengths = (style.length_m * rng.uniform(0.7, 1.4, count)).astype(np.float32)[block]
    strip, across_part = _cells(across / widths, style.irregular, np.full((1, 1), rng.uniform(0, 6), np.float32))
    salt = int(rng.integers(2**31))
    strip_key = hash_integers(strip.astype(np.int32), block.astype(np.int32), salt)
    shift = unit_interval(strip_key) * np.float32(50)
    cell, along_part = _cells(along / lengths + shift, style.irregular, shift)
    key = hash_integers(cell.astype(np.int32), strip_key, salt + 1)
    edge = np.minimum(
        np.minimum(across_part, 1 - across_part) * widths, np.minimum(along_part, 1 - along_part) * lengths
    )
    return Parcels(key, along, across, edge)


def meander_distance(canvas: Canvas, rng: np.random.Generator, wavelength_m: float, bend: float) -> FloatArray:
    """Distance to a winding line through the canvas, (H, W) float32 metres, signed by the bank.

    Three sines along a straight axis; dividing by the slope makes it the distance to the line itself, nearly.

    Args:
        canvas: where to draw.
        rng: source of chance.
        wavelength_m: length of the longest bends.
        bend: amplitude over wavelength; 0 straight, 0.15 meandering.
    """
    along, across = canvas.rotated(rng.uniform(0, np.pi), canvas.random_point(rng, -0.15))
    centre, slope = np.float32(0), np.float32(0)
    for order, share in ((1.0, 1.0), (2.3, 0.45), (5.1, 0.16)):
        wavenumber = np.float32(2 * np.pi * order / wavelength_m * rng.uniform(0.8, 1.2))
        amplitude = np.float32(bend * wavelength_m * share * rng.uniform(0.6, 1.2))
        phase = wavenumber * along + np.float32(rng.uniform(0, 2 * np.pi))
        centre = centre + amplitude * np.sin(phase)
        slope = slope + amplitude * wavenumber * np.cos(phase)
    return np.asarray((across - centre) / np.sqrt(1 + slope * slope), np.float32)


def blob_distance(canvas: Canvas, rng: np.random.Generator, radius_m: float, ragged: float) -> FloatArray:
    """How far outside a ragged round area each sample lies, (H, W) float32, in radii; negative inside.

    Args:
        canvas: where to draw.
        rng: source of chance.
        radius_m: mean radius.
        ragged: deviation of the edge, in radii.
    """
    y, x = canvas.random_point(rng, 0.1)
    squeeze = np.float32(rng.uniform(0.6, 1.6))
    along, across = canvas.rotated(rng.uniform(0, np.pi), (y, x))
    distance = np.sqrt(along * along * squeeze + across * across / squeeze) / np.float32(radius_m)
    return distance - 1 + canvas.field(rng, 2.8, radius_m) * np.float32(ragged)
