"""Mean confidence of the components of a map, summed while rows arrive."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from geoseg_cli.results.class_map import LabelRaster
from geoseg_cli.results.components import NONE, Numbers, PieceArray

FloatArray = npt.NDArray[np.float64]


class MeanConfidence:
    """Takes rows of component numbers and reads the confidence of the same rows.

    Args:
        raster: Confidence of the map's pixels, on the same grid and read in the same strips.
        count: Number of components.
    """

    def __init__(self, raster: LabelRaster, count: int) -> None:
        self._raster, self._strips = raster, raster.strips()
        self._sums, self._pixels = np.zeros(count, np.int64), np.zeros(count, np.int64)

    def add(self, row: int, numbers: PieceArray) -> None:
        """Take the next rows: (h, W) int32 components, -1 for none."""
        there, values = next(self._strips)
        assert there == row, "both rasters are read in the same strips"
        known = numbers != NONE
        if self._raster.nodata is not None:
            known &= values != self._raster.nodata
        np.add.at(self._sums, numbers[known], values[known])
        np.add.at(self._pixels, numbers[known], 1)

    def of(self, components: Numbers) -> FloatArray:
        """(N,) float64 of components whose rows have all come, NaN where none of the pixels has a confidence."""
        pixels = self._pixels[components]
        means: FloatArray = np.full(len(components), np.nan)
        np.divide(self._sums[components] * self._raster.scale, pixels, out=means, where=pixels > 0)
        return means
