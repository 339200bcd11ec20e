"""What a comparison of a map with a reference counts, by unit, and the figures that come of it.

A unit is a block of the map's pixels, or a shape of the reference: what is drawn for intervals. Axes: H rows, W
columns, K classes, U units.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from geoseg_cli.evaluate.boundary import BoundaryCounts, NumberArray, boundary_of, near_boundary, none_in
from geoseg_cli.evaluate.intervals import FloatArray
from geoseg_cli.metrics import Confusion

UnitArray = npt.NDArray[np.int32]
BoolArray = npt.NDArray[np.bool_]

_CLASS_FIGURES = ("iou", "f1", "precision", "recall")
_TOTALS = ("overall_accuracy", "kappa", "mean_iou", "mean_f1", "mean_precision", "mean_recall")


def table_columns(classes: int) -> int:
    """How many counts a unit has."""
    return classes**2 + 4 * classes


class UnitCounts:
    """Sums that grow with every window that is added; O(U x K x K) memory.

    Attributes:
        table: (U, K x K + 4 x K) float64 whole numbers: pixels by true and called class, then boundary pixels of the
            map, those near the truth's, boundary pixels of the truth, those near the map's.
        unanswered: Pixels with a truth where the map has no class.
        untold: Pixels with a class in the map and no truth.
    """

    def __init__(self, units: int, classes: int) -> None:
        self._classes = classes
        self.table: FloatArray = np.zeros((units, table_columns(classes)))
        self.unanswered = self.untold = 0

    def add(self, truth: NumberArray, called: NumberArray, units: UnitArray) -> None:
        """Count pixels.

        Args:
            truth, called: (H, W) class numbers of one type, its largest for none.
            units: (H, W) int32; not looked at where there is no truth.
        """
        known, answered = truth != none_in(truth), called != none_in(called)
        both = known & answered
        self.unanswered += int(np.count_nonzero(known & ~answered))
        self.untold += int(np.count_nonzero(answered & ~known))
        pairs = truth[both].astype(np.int64) * self._classes + called[both]
        self._count(units[both], pairs)

    def add_boundaries(
        self, truth: NumberArray, called: NumberArray, units: UnitArray, inside: slice, tolerance_px: int
    ) -> None:
        """Count boundary pixels of some rows.

        Args:
            truth, called: (H, W), as for ``add``, with at least ``tolerance_px + 1`` further rows above and below
                ``inside``, or all that there are.
            units: (h, W) int32 of the rows inside.
            inside: The rows to count.
            tolerance_px: How far "near" is.
        """
        none = none_in(truth)
        is_compared = (truth != none) & (called != none)
        outlines = [boundary_of(np.where(is_compared, one, one.dtype.type(none))) for one in (called, truth)]
        start = self._classes**2
        for one, other in (outlines, outlines[::-1]):
            # Rows outside are asked for nothing: they are near others in the window of their own.
            asked = np.full_like(one, none)
            asked[inside] = one[inside]
            for hit in (asked[inside] != none, near_boundary(asked, other, tolerance_px)[inside]):
                self._count(units[hit], start + one[inside][hit].astype(np.int64))
                start += self._classes

    def occupied(self) -> FloatArray:
        """The table without units in which nothing was compared."""
        return self.table[self.table[:, : self._classes**2].any(axis=1)]

    def _count(self, units: UnitArray, columns: npt.NDArray[np.int64]) -> None:
        if not len(units):
            return
        width = self.table.shape[1]
        first, last = int(units.min()), int(units.max()) + 1
        keys = (units.astype(np.int64) - first) * width + columns
        self.table[first:last] += np.bincount(keys, minlength=(last - first) * width).reshape(-1, width)


def confusion_of(row: FloatArray, values: tuple[int, ...]) -> Confusion:
    """The confusion matrix in (F,) summed counts of :class:`UnitCounts`."""
    size = len(values)
    counts = np.rint(row[: size**2]).astype(np.int64).reshape(size, size)
    return Confusion(values, counts, np.zeros(size, np.int64))


def boundary_counts_of(row: FloatArray, classes: int) -> BoundaryCounts:
    """The boundary pixels in the same counts."""
    return BoundaryCounts(*row[classes**2 :].reshape(4, classes))


def map_figures(row: FloatArray, values: tuple[int, ...], has_boundaries: bool) -> dict[str, float]:
    """The figures of summed counts; ``iou 0`` is that of the first class. NaN where there is nothing to divide."""
    table = confusion_of(row, values)
    found = {name: float(getattr(table, name)) for name in _TOTALS}
    by_class = {name: getattr(table, name) for name in _CLASS_FIGURES}
    if has_boundaries:
        outlines = by_class["boundary_f1"] = boundary_counts_of(row, len(values)).f1
        there = outlines[(table.truth > 0) & ~np.isnan(outlines)]
        found["mean_boundary_f1"] = float(there.mean()) if there.size else float("nan")
    return found | {f"{name} {k}": float(v) for name, column in by_class.items() for k, v in enumerate(column)}
