"""Logits of overlapping tiles to finished rows: blended probabilities, labels, confidence.

The mosaic holds one tile height of rows. Once no later tile touches a row it is released and forgotten, so memory is
O(width x tile height) whatever the height of the scene.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
import numpy.typing as npt

from geoseg_cli.catalog import Legend
from geoseg_cli.rows import Rows
from geoseg_cli.tiles import Axis, Tile, TilePlan

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]
LabelArray = npt.NDArray[np.uint8]

Blend = Literal["hann", "linear", "trim"]


class Mosaic:
    """Blends tiles in the plan's order.

    Softmax probabilities of each tile are averaged with strictly positive weights that fall towards the tile's inner
    edges (``hann``, ``linear``), or each pixel is taken from the tile whose middle is nearest (``trim``). Sums are
    float32 and made in the plan's order, so the result does not depend on how tiles travelled in batches.
    """

    def __init__(
        self,
        plan: TilePlan,
        legend: Legend,
        blend: Blend,
        with_probabilities: bool = False,
        temperature: float = 1.0,
    ) -> None:
        """Prepare an empty mosaic.

        Args:
            plan: The tiles that will come; those that never come leave nodata.
            legend: What output channel k means.
            blend: How overlaps are merged.
            with_probabilities: Whether rows carry the probabilities of all classes.
            temperature: Probabilities are softmax(logits / temperature).
        """
        self._plan = plan
        self._legend = legend
        self._with_probabilities = with_probabilities
        self._temperature = temperature
        self._row_weights = _axis_weights(plan.rows, blend)
        self._col_weights = _axis_weights(plan.cols, blend)
        height, width = min(plan.tile_height, plan.rows.size), plan.cols.size
        self._sums = np.zeros((len(legend.classes), height, width), np.float32)
        self._weights = np.zeros((height, width), np.float32)
        self._valid = np.zeros((height, width), np.bool_)
        self._row = 0
        self.not_finite = 0
        """Pixels whose logits were not finite; they are nodata in the result."""

    def add(self, tile: Tile, logits: FloatArray, valid: BoolArray) -> Iterator[Rows]:
        """Blend a tile in; yields the rows that neither it nor a later tile touches.

        Args:
            tile: The tile, at or after all tiles that came before it.
            logits: (K, T, T) float32.
            valid: (T, T) bool, pixels that the scene has a value for.
        """
        yield from self._release(tile.window.row)
        height, width = tile.window.height, tile.window.width
        logits, valid = logits[:, :height, :width], valid[:height, :width]
        finite = np.isfinite(logits).all(axis=0)
        if not finite.all():
            self.not_finite += int((valid & ~finite).sum())
            valid = valid & finite
            logits = np.where(finite, logits, np.float32(0))
        weights = np.outer(self._row_weights[tile.row_index], self._col_weights[tile.col_index])
        weights = np.where(valid, weights, np.float32(0))
        rows = slice(tile.window.row - self._row, tile.window.row_stop - self._row)
        self._sums[:, rows, tile.window.cols] += _softmax(logits, self._temperature) * weights
        self._weights[rows, tile.window.cols] += weights
        self._valid[rows, tile.window.cols] |= weights > 0

    def finish(self) -> Iterator[Rows]:
        """Yield all rows that are left, down to the scene's last one."""
        yield from self._release(self._plan.rows.size)

    def _release(self, stop: int) -> Iterator[Rows]:
        while self._row < stop:
            count = min(stop - self._row, self._weights.shape[0])
            yield self._rows(count)
            for held in (*self._sums, self._weights, self._valid):
                # Plane by plane: numpy copies what overlaps, and a copy of all planes at once is large.
                held[:-count] = held[count:]
                held[-count:] = 0
            self._row += count

    def _rows(self, count: int) -> Rows:
        valid = self._valid[:count]
        scale = np.divide(1, self._weights[:count], out=np.zeros_like(self._weights[:count]), where=valid)
        best, largest = _first_maximum(self._sums[:, :count])
        values = np.asarray(self._legend.values, np.uint8)
        labels = np.where(valid, values[best], np.uint8(self._legend.nodata))
        probabilities = self._sums[:, :count] * scale if self._with_probabilities else None
        return Rows(self._row, labels, np.minimum(largest * scale, np.float32(1)), probabilities, valid.copy())


def _axis_weights(axis: Axis, blend: Blend) -> list[FloatArray]:
    """One weight per pixel of each tile along an axis; edges of the scene are not faded."""
    return [_tile_weights(axis, index, blend) for index in range(len(axis.starts))]


def _tile_weights(axis: Axis, index: int, blend: Blend) -> FloatArray:
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


def _softmax(logits: FloatArray, temperature: float) -> FloatArray:
    """Softmax over axis 0 of (K, H, W) logits / temperature."""
    shifted: FloatArray = logits - logits.max(axis=0)
    if temperature != 1:
        shifted /= np.float32(temperature)
    np.exp(shifted, out=shifted)
    shifted /= shifted.sum(axis=0)
    return shifted


def _first_maximum(probabilities: FloatArray) -> tuple[LabelArray, FloatArray]:
    """Index and value of the largest of (K, H, W) over K; of equal ones the first, as numpy's argmax."""
    best = np.zeros(probabilities.shape[1:], np.uint8)
    largest = probabilities[0].copy()
    for index, plane in enumerate(probabilities[1:], start=1):
        # A running maximum: numpy's argmax over the first axis is several times slower.
        larger = plane > largest
        best[larger] = index
        np.maximum(largest, plane, out=largest)
    return best, largest
