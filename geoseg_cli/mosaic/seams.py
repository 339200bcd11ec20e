"""Which pixels of an axis several tiles answer, and how much each of these answers weighs: no pixels, one axis."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import numpy.typing as npt

from geoseg_cli.tiles import Axis

FloatArray = npt.NDArray[np.float32]

Blend = Literal["hann", "linear", "trim"]


@dataclass(frozen=True, slots=True)
class Part:
    """Pixels ``first`` to ``stop`` along an axis of the scene, each answered by several tiles or each by one."""

    first: int
    stop: int
    is_shared: bool


class Seams:
    """The pixels of an axis that tiles share, and those that each has for itself.

    Attributes:
        size: Pixels of the scene along this axis.
        weights: For each tile (T,) float32: strictly positive weights that fall towards inner edges (``hann``,
            ``linear``), or 1 for the pixels whose nearest middle is this tile's and 0 elsewhere (``trim``).
        parts: For each tile its pixels with a weight, cut where sharing begins and ends.
        most_shared, most_own: Pixels that tiles share, and that they do not, within one tile's length, at most.
    """

    def __init__(self, axis: Axis, blend: Blend) -> None:
        """Find the seams of an axis."""
        self.size, tiles = axis.size, range(len(axis.starts))
        self.weights = tuple(_tile_weights(axis, index, blend) for index in tiles)
        answers = np.zeros(axis.size, np.int32)
        for index in tiles:
            start, length = axis.extent(index)
            answers[start : start + length] += self.weights[index] > 0
        self._is_shared = answers > 1
        self._shared_before = np.concatenate([[0], np.cumsum(self._is_shared)])
        self.parts = tuple(self._tile_parts(axis, index) for index in tiles)
        length = min(axis.tile, axis.size)
        shared = self._shared_before[length:] - self._shared_before[:-length]
        self.most_shared, self.most_own = int(shared.max()), int(length - shared.min())

    def shared_before(self, pixel: int) -> int:
        """How many of the pixels before this one are shared."""
        return int(self._shared_before[pixel])

    def own_before(self, pixel: int) -> int:
        """How many of the pixels before this one are not shared."""
        return pixel - self.shared_before(pixel)

    def between(self, first: int, stop: int) -> list[Part]:
        """The pixels from ``first`` to ``stop``, cut where sharing begins and ends; at least one pixel."""
        changes = np.flatnonzero(np.diff(self._is_shared[first:stop])) + first + 1
        edges = [first, *changes.tolist(), stop]
        return [Part(one, other, bool(self._is_shared[one])) for one, other in pairwise(edges)]

    def _tile_parts(self, axis: Axis, index: int) -> list[Part]:
        used = np.flatnonzero(self.weights[index]) + axis.extent(index)[0]
        return self.between(int(used[0]), int(used[-1]) + 1)


def _tile_weights(axis: Axis, index: int, blend: Blend) -> FloatArray:
    """One weight per pixel of a tile; edges of the scene are not faded."""
    start, length = axis.extent(index)
    weights = np.ones(length, np.float32)
    if blend == "trim":
        first, stop = axis.core(index)
        weights[: first - start] = 0
        weights[stop - start :] = 0
        return weights
    step = (np.arange(axis.overlap, dtype=np.float32) + np.float32(0.5)) / np.float32(max(axis.overlap, 1))
    ramp = step if blend == "linear" else np.float32(0.5) - np.float32(0.5) * np.cos(np.pi * step, dtype=np.float32)
    if axis.overlap and index > 0:
        weights[: axis.overlap] *= ramp
    if axis.overlap and index < len(axis.starts) - 1:
        weights[-axis.overlap :] *= ramp[::-1]
    return weights
