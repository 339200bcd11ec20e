"""How sure figures are: 95 % intervals from resampling whole parts of what was compared.

Pixels that lie together are not independent, so places, blocks, polygons or points are drawn, never pixels. Axes: U
units that are drawn, F counts of each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

LEAST_PLACES, DRAWS, SEED = 5, 1000, 0
"""Units below which no interval is given, resamplings of the units, and the seed of the draws."""

_NUMBERS_AT_ONCE = 2**22


def intervals(table: FloatArray, figures: Callable[[FloatArray], dict[str, float]]) -> dict[str, tuple[float, float]]:
    """Resample units with replacement, with the same draws for every figure.

    Args:
        table: (U, F) float64 counts of each unit.
        figures: What comes of (F,) summed counts; NaN where there is nothing to divide.

    Returns:
        Figure to the 2.5 % and 97.5 % percentiles of 1000 draws; draws in which a figure is NaN are left out, and so
        is a figure that is always. Empty for fewer than 5 units.
    """
    if len(table) < LEAST_PLACES:
        return {}
    names: list[str] = []
    drawn: list[FloatArray] = []
    for sums in (row for rows in _sums(table) for row in rows):
        draw = figures(sums)
        names = names or list(draw)
        drawn.append(np.array([draw[name] for name in names]))
    found = {}
    for name, column in zip(names, np.array(drawn).T, strict=True):
        values = column[~np.isnan(column)]
        if values.size:
            low, high = np.percentile(values, (2.5, 97.5))
            found[name] = (float(low), float(high))
    return found


def _sums(table: FloatArray) -> Iterator[FloatArray]:
    """(D, F) sums in which each unit occurs as often as it was drawn, some draws at a time."""
    units = len(table)
    rng, share = np.random.default_rng(SEED), np.full(units, 1 / units)
    at_once = max(1, _NUMBERS_AT_ONCE // max(table.shape))
    for start in range(0, DRAWS, at_once):
        times = rng.multinomial(units, share, size=min(at_once, DRAWS - start))
        yield times.astype(np.float64) @ table
