"""Counts of right and wrong answers, the figures that come of them, and how sure these are.

Every figure comes from summed counts; intervals resample whole places, because the pixels of one place are not
independent. Axis: K classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from geoseg_cli.calibration import Reliability
from geoseg_cli.catalog import Legend
from geoseg_cli.metrics import Confusion

LEAST_PLACES, DRAWS, SEED = 5, 1000, 0
"""Intervals: places below which none is given, resamplings of the places, and the seed of the draws."""


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
    if len(places) < LEAST_PLACES:
        return {}
    share = np.full(len(places), 1 / len(places))
    times = np.random.default_rng(SEED).multinomial(len(places), share, size=DRAWS)
    drawn = [figures(one) for one in _weighted(places, times)]
    intervals = {}
    for name in drawn[0]:
        values = [draw[name] for draw in drawn if not math.isnan(draw[name])]
        if values:
            low, high = np.percentile(values, (2.5, 97.5))
            intervals[name] = (float(low), float(high))
    return intervals


def _weighted(places: Sequence[Scores], times: npt.NDArray[np.int64]) -> Iterator[Scores]:
    """Sums in which place p occurs ``times[d, p]`` times, one per draw d."""

    def summed(parts: Sequence[npt.ArrayLike]) -> npt.NDArray[Any]:
        total: npt.NDArray[Any] = np.tensordot(times, np.stack([np.asarray(part) for part in parts]), axes=1)
        return total

    values = places[0].confusion.values
    counts, missed = summed([p.confusion.counts for p in places]), summed([p.confusion.missed for p in places])
    bins = summed([p.reliability.counts for p in places])
    sure, hits = summed([p.reliability.confidence for p in places]), summed([p.reliability.hits for p in places])
    nll = summed([p.reliability.nll for p in places])
    for d in range(len(times)):
        table = Confusion(values, counts[d], missed[d])
        yield Scores(table, Reliability(bins[d], sure[d], hits[d], float(nll[d])))
