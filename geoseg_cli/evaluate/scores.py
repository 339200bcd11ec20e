"""Counts of right and wrong answers, the figures that come of them, and how sure these are.

Every figure comes from summed counts; intervals resample whole places, because the pixels of one place are not
independent. Axis: K classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from geoseg_cli.calibration import BINS, Reliability
from geoseg_cli.catalog import Legend
from geoseg_cli.evaluate.intervals import FloatArray, intervals
from geoseg_cli.metrics import Confusion


@dataclass(frozen=True, slots=True)
class Scores:
    """Counts over labelled pixels.

    Attributes:
        confusion: Pixels with an answer by true and predicted class.
        reliability: The same pixels by confidence.
        unanswered: Labelled pixels that got no answer, because the scene has no value there; in no figure.
    """

    confusion: Confusion
    reliability: Reliability
    unanswered: int = 0

    @classmethod
    def empty(cls, legend: Legend) -> Scores:
        """Without a pixel."""
        return cls(Confusion.empty(legend.values), Reliability.empty())

    def __add__(self, other: Scores) -> Scores:
        """Sum over the pixels of both."""
        return Scores(
            self.confusion + other.confusion,
            self.reliability + other.reliability,
            self.unanswered + other.unanswered,
        )


def total_scores(scores: Iterable[Scores]) -> Scores:
    """Sum of at least one."""
    first, *others = scores
    return sum(others, first)


def figures(scores: Scores) -> dict[str, float]:
    """The figures that get an interval; ``iou 0`` is that of the first class. NaN where there is nothing to divide."""
    table = scores.confusion
    classes = {f"{name} {k}": float(v) for name in ("iou", "f1") for k, v in enumerate(getattr(table, name))}
    return {
        "overall_accuracy": table.overall_accuracy,
        "mean_iou": table.mean_iou,
        "mean_f1": table.mean_f1,
        "ece": scores.reliability.expected_error,
    } | classes


def place_intervals(places: Sequence[Scores]) -> dict[str, tuple[float, float]]:
    """95 % intervals from resampling whole places, with the same draws for every figure.

    Args:
        places: Counts of each place.

    Returns:
        Figure, as in :func:`figures`, to the 2.5 % and 97.5 % percentiles of 1000 draws; draws in which a figure is
        NaN are left out, and so is a figure that is always. Empty for fewer than 5 places.
    """
    if not places:
        return {}
    values, classes = places[0].confusion.values, len(places[0].confusion.values)

    def of(row: FloatArray) -> dict[str, float]:
        return figures(_unflat(row, values, classes))

    return intervals(np.stack([_flat(place) for place in places]), of)


def _flat(scores: Scores) -> FloatArray:
    """(F,) float64, all that a figure comes of; :func:`_unflat` reads it."""
    table, sure = scores.confusion, scores.reliability
    return np.concatenate(
        [table.counts.ravel(), table.missed, sure.counts, sure.confidence, sure.hits, [sure.nll]], dtype=np.float64
    )


def _unflat(row: FloatArray, values: tuple[int, ...], classes: int) -> Scores:
    sizes = np.cumsum([classes**2, classes, BINS, BINS, BINS])
    counts, missed, bins, confidence, hits, nll = np.split(row, sizes)
    # Counts are whole below 2^53.
    table = Confusion(values, counts.reshape(classes, classes).astype(np.int64), missed.astype(np.int64))
    return Scores(table, Reliability(bins.astype(np.int64), confidence, hits.astype(np.int64), float(nll[0])))
