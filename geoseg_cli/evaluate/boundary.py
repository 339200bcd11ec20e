"""How well the outlines of classes agree: boundary precision, recall and F1 within a distance.

After Csurka, Larlus and Perronnin 2013 (BMVC, "What is a good evaluation measure for semantic segmentation?"): of the
boundary pixels of a class in the map, the share with a boundary pixel of the same class in the truth nearby is the
precision; the other way round it is the recall. Axes: H rows, W columns, K classes, U units.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

NumberArray = npt.NDArray[np.uint8 | np.uint16]
BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float64]

_NEIGHBOURS = ((-1, 0), (1, 0), (0, -1), (0, 1))


def none_in(numbers: NumberArray) -> int:
    """Number of no class: the largest of the type."""
    return int(np.iinfo(numbers.dtype).max)


@dataclass(frozen=True, slots=True)
class BoundaryCounts:
    """Boundary pixels by class.

    Attributes:
        called: (K,) boundary pixels of the map.
        called_near: (K,) those with one of the truth nearby.
        true: (K,) boundary pixels of the truth.
        true_near: (K,) those with one of the map nearby.
    """

    called: FloatArray
    called_near: FloatArray
    true: FloatArray
    true_near: FloatArray

    @property
    def f1(self) -> FloatArray:
        """(K,) float64 harmonic mean of boundary precision and recall.

        0 where only map or truth has a boundary of the class, NaN where neither has one.
        """
        precision = self.called_near / np.maximum(self.called, 1)
        recall = self.true_near / np.maximum(self.true, 1)
        f1: FloatArray = 2 * precision * recall / np.where(precision + recall > 0, precision + recall, 1)
        return np.where(self.called + self.true > 0, f1, np.nan)


def boundary_of(numbers: NumberArray) -> NumberArray:
    """Keep the pixels that have one of another class above, below, left or right.

    Args:
        numbers: (H, W) class numbers, the largest of the type for none; what lies outside is none.

    Returns:
        (H, W) the class number at boundary pixels, none elsewhere. A pixel of no class makes no boundary.
    """
    none = none_in(numbers)
    padded = np.pad(numbers, 1, constant_values=none)
    is_boundary = np.zeros(numbers.shape, np.bool_)
    for step in _NEIGHBOURS:
        beside = _moved(padded, step, 1, numbers.shape)
        is_boundary |= (beside != numbers) & (beside != none)
    return np.where(is_boundary & (numbers != none), numbers, numbers.dtype.type(none))


def near_boundary(boundary: NumberArray, other: NumberArray, tolerance_px: int) -> BoolArray:
    """Which boundary pixels have one of the same class nearby.

    Args:
        boundary: (H, W) of :func:`boundary_of`.
        other: (H, W) of its type, the same of the other raster.
        tolerance_px: Largest distance between centres, Euclidean.

    Returns:
        (H, W) bool; False where there is no boundary.
    """
    rows, cols = np.nonzero(boundary != none_in(boundary))
    wanted = boundary[rows, cols]
    padded = np.pad(other, tolerance_px, constant_values=none_in(other))
    found = np.zeros(len(wanted), np.bool_)
    for down, right in _disc(tolerance_px):
        found |= padded[rows + tolerance_px + down, cols + tolerance_px + right] == wanted
    near = np.zeros(boundary.shape, np.bool_)
    near[rows[found], cols[found]] = True
    return near


def _disc(radius: int) -> Iterator[tuple[int, int]]:
    """Steps (rows, columns) of at most ``radius``, the middle first."""
    steps = [(down, right) for down in range(-radius, radius + 1) for right in range(-radius, radius + 1)]
    inside = [(down, right) for down, right in steps if down**2 + right**2 <= radius**2]
    return iter(sorted(inside, key=lambda step: step[0] ** 2 + step[1] ** 2))


def _moved(padded: NumberArray, step: tuple[int, int], pad: int, shape: tuple[int, ...]) -> NumberArray:
    """(H, W) view of what lies one step from each pixel."""
    down, right = step
    return padded[pad + down : pad + down + shape[0], pad + right : pad + right + shape[1]]
