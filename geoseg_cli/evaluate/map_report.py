"""What the comparison of a map with a reference came to, in plain types and as the matrix alone.

Axes: K classes, U units, F counts of a unit.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from geoseg_cli.catalog import Legend
from geoseg_cli.evaluate.intervals import DRAWS, LEAST_PLACES, FloatArray, intervals
from geoseg_cli.evaluate.map_counts import confusion_of, map_figures
from geoseg_cli.metrics import Confusion

CSV_CORNER = r"reference\map"
"""First cell of the matrix as CSV: rows are the reference's classes, columns the map's."""

_CLASS_FIGURES = ("iou", "f1", "precision", "recall", "boundary_f1")


@dataclass(frozen=True)
class MapReport:
    """A map's figures against a reference.

    Attributes:
        map, reference: Names of the files.
        legend: The classes, in the order of the confusion matrix.
        table: (U, F) float64 counts of each unit with a compared pixel, as :class:`UnitCounts` has them.
        unit: What intervals draw, in words.
        tolerance_px: How far boundaries could lie apart; None where none were compared.
        unanswered: Pixels of the reference where the map has no class.
        untold: Pixels with a class in the map that the reference tells nothing about.
        left_out: What was left out by its value -> pixels or shapes.
        notes: How the reference was read.
    """

    map: str
    reference: str
    legend: Legend
    table: FloatArray
    unit: str
    tolerance_px: int | None
    unanswered: int
    untold: int
    left_out: Mapping[str, Mapping[str, int]]
    notes: tuple[str, ...]

    @cached_property
    def confusion(self) -> Confusion:
        """The matrix, rows true, columns called."""
        return confusion_of(self.table.sum(axis=0), self.legend.values)

    @cached_property
    def figures(self) -> dict[str, float]:
        """All figures by name, as :func:`map_figures` has them."""
        return self._figures(self.table.sum(axis=0))

    @cached_property
    def intervals(self) -> dict[str, tuple[float, float]]:
        """95 % intervals of the figures; empty for fewer than 5 units."""
        return intervals(self.table, self._figures)

    @property
    def interval_note(self) -> str:
        """How the intervals came about, or why there are none."""
        if len(self.table) < LEAST_PLACES:
            return f"No intervals: {len(self.table)} {self.unit}, {LEAST_PLACES} are needed"
        return f"Intervals are 95 %, from {DRAWS} resamplings of {len(self.table):,} {self.unit}"

    def to_json(self) -> dict[str, Any]:
        """The report in plain types; the rows of ``confusion`` are true classes, its columns called ones."""
        names = [one.name for one in self.legend.classes]
        total = self.confusion.as_dict(names) | {"confusion": self.confusion.counts.tolist()}
        total["mean_boundary_f1"] = _rounded(self.figures.get("mean_boundary_f1", math.nan))
        for name in ("overall_accuracy", "kappa", "mean_iou", "mean_f1", "mean_precision", "mean_recall"):
            total[f"{name}_95"] = self._interval(name)
        total["mean_boundary_f1_95"] = self._interval("mean_boundary_f1")
        for number, name in enumerate(names):
            row = total["classes"][name]
            row["called"] = int(self.confusion.predicted[number])
            row["boundary_f1"] = _rounded(self.figures.get(f"boundary_f1 {number}", math.nan))
            row |= {f"{figure}_95": self._interval(f"{figure} {number}") for figure in _CLASS_FIGURES}
        return {
            "map": self.map,
            "reference": self.reference,
            "legend": self.legend.name,
            "classes": self.legend.stac_classes(),
            "settings": {"boundary_tolerance_px": self.tolerance_px, "interval_units": self.unit},
            "intervals": self.interval_note,
            "total": total,
            "not_compared": {
                "pixels_without_map_class": self.unanswered,
                "pixels_without_reference_class": self.untold,
                "left_out": {kind: dict(found) for kind, found in self.left_out.items()},
            },
            "notes": list(self.notes),
        }

    def matrix_csv(self) -> str:
        """The confusion matrix as CSV: class names in the first row and column, whole numbers."""
        text = io.StringIO()
        names = [one.name for one in self.legend.classes]
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([CSV_CORNER, *names])
        writer.writerows([name, *row] for name, row in zip(names, self.confusion.counts.tolist(), strict=True))
        return text.getvalue()

    def _figures(self, row: FloatArray) -> dict[str, float]:
        return map_figures(row, self.legend.values, self.tolerance_px is not None)

    def _interval(self, figure: str) -> list[float] | None:
        return [round(end, 4) for end in self.intervals[figure]] if figure in self.intervals else None


def _rounded(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 4)
