"""How well a map agrees with the truth, from one global table of counts.

Every figure comes from the summed confusion matrix of all pixels, never from a mean over images: images with few
pixels of a class would weigh as much as those with many. Axes: H rows, W columns, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from geoseg_cli.catalog import NODATA

Counts = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Confusion:
    """Pixels by true and predicted class.

    Attributes:
        values: Raster value of each of the K classes.
        counts: (K, K) int64, ``counts[t, p]`` pixels of true class t that were called p.
        missed: (K,) int64, pixels of true class t that were called something outside ``values``, nodata for example.
            They count as errors of the true class and as hits of none.
    """

    values: tuple[int, ...]
    counts: Counts
    missed: Counts

    @classmethod
    def empty(cls, values: Sequence[int]) -> Confusion:
        """A table without a pixel."""
        size = len(values)
        return cls(tuple(values), np.zeros((size, size), np.int64), np.zeros(size, np.int64))

    def __add__(self, other: Confusion) -> Confusion:
        """Sum of two tables of the same classes."""
        assert self.values == other.values
        return Confusion(self.values, self.counts + other.counts, self.missed + other.missed)

    @property
    def truth(self) -> Counts:
        """(K,) int64 pixels of each true class."""
        pixels: Counts = self.counts.sum(axis=1) + self.missed
        return pixels

    @property
    def predicted(self) -> Counts:
        """(K,) int64 pixels that were called each class, out of those with a known truth."""
        pixels: Counts = self.counts.sum(axis=0)
        return pixels

    @property
    def pixels(self) -> int:
        """Pixels with a known truth."""
        return int(self.truth.sum())

    @property
    def overall_accuracy(self) -> float:
        """Share of right pixels, 0 to 1; NaN without pixels."""
        return float(_ratio(np.trace(self.counts), self.pixels))

    @property
    def precision(self) -> FloatArray:
        """(K,) float64 user's accuracy: right among those called the class; NaN where nothing was."""
        return _ratio(np.diag(self.counts), self.predicted)

    @property
    def recall(self) -> FloatArray:
        """(K,) float64 producer's accuracy: right among those of the class; NaN where there are none."""
        return _ratio(np.diag(self.counts), self.truth)

    @property
    def iou(self) -> FloatArray:
        """(K,) float64 intersection over union; NaN where a class is neither true nor predicted."""
        hits = np.diag(self.counts)
        return _ratio(hits, self.truth + self.predicted - hits)

    @property
    def f1(self) -> FloatArray:
        """(K,) float64 harmonic mean of precision and recall; NaN where a class is neither true nor predicted."""
        return _ratio(2 * np.diag(self.counts), self.truth + self.predicted)

    @property
    def mean_iou(self) -> float:
        """Mean IoU of the classes that occur in the truth; NaN without any.

        A class that occurs only in the prediction lowers the IoU of the classes it was mistaken for, and is not
        counted a second time with an IoU of 0.
        """
        return _mean(self.iou[self.truth > 0])

    @property
    def mean_f1(self) -> float:
        """Mean F1 of the classes that occur in the truth; NaN without any."""
        return _mean(self.f1[self.truth > 0])

    @property
    def mean_precision(self) -> float:
        """Mean precision of the classes that occur in the truth, 0 for one that nothing was called; NaN without any."""
        return _mean(np.nan_to_num(self.precision[self.truth > 0]))

    @property
    def mean_recall(self) -> float:
        """Mean recall of the classes that occur in the truth; NaN without any."""
        return _mean(self.recall[self.truth > 0])

    @property
    def kappa(self) -> float:
        """Cohen's kappa: accuracy beyond what the totals of the classes give by chance, over the most that is possible.

        NaN without pixels, and where truth and prediction are one and the same class throughout.
        """
        whole = float(self.pixels) ** 2
        chance = float(_ratio(float(self.truth.astype(np.float64) @ self.predicted.astype(np.float64)), whole))
        return float(_ratio(self.overall_accuracy - chance, 1 - chance))

    def merged(self, groups: Sequence[Sequence[int]]) -> Confusion:
        """The table of coarser classes.

        Args:
            groups: Class values that become one class; the new value is the group's place, 0, 1, ... Classes in no
                group: their true pixels are dropped, and being called one of them counts as missed.
        """
        members = [[self.values.index(value) for value in group] for group in groups]
        counts = np.array([[self.counts[np.ix_(t, p)].sum() for p in members] for t in members], np.int64)
        whole = np.array([self.truth[t].sum() for t in members], np.int64)
        return Confusion(tuple(range(len(groups))), counts, whole - counts.sum(axis=1))

    def as_dict(self, names: Sequence[str] | None = None) -> dict[str, Any]:
        """The figures for a JSON file, rounded to 4 digits, NaN as None."""
        labels = [str(value) for value in self.values] if names is None else list(names)
        columns = {"iou": self.iou, "f1": self.f1, "precision": self.precision, "recall": self.recall}
        classes = {
            label: {"pixels": int(self.truth[k])} | {key: _rounded(column[k]) for key, column in columns.items()}
            for k, label in enumerate(labels)
        }
        return {
            "pixels": self.pixels,
            "overall_accuracy": _rounded(self.overall_accuracy),
            "mean_iou": _rounded(self.mean_iou),
            "mean_f1": _rounded(self.mean_f1),
            "mean_precision": _rounded(self.mean_precision),
            "mean_recall": _rounded(self.mean_recall),
            "kappa": _rounded(self.kappa),
            "classes": classes,
        }


def confusion(
    truth: npt.NDArray[np.uint8 | np.uint16],
    predicted: npt.NDArray[np.uint8 | np.uint16],
    values: Sequence[int],
    ignore: int = NODATA,
) -> Confusion:
    """Count pixels by true and predicted class.

    Args:
        truth: Any shape, class values; ``ignore`` and values outside ``values`` are not counted.
        predicted: The same shape, class values.
        values: The classes.
        ignore: Value of pixels without a known truth.

    Returns:
        The table.
    """
    assert truth.shape == predicted.shape
    assert ignore not in values
    size = len(values)
    place = np.full(max(int(np.iinfo(one.dtype).max) for one in (truth, predicted)) + 1, size, np.intp)
    place[list(values)] = np.arange(size)
    # One bin per pair, the last row and column for everything outside the classes.
    pairs = place[truth.ravel()] * (size + 1) + place[predicted.ravel()]
    table = np.bincount(pairs, minlength=(size + 1) ** 2).reshape(size + 1, size + 1).astype(np.int64)
    return Confusion(tuple(values), table[:size, :size], table[:size, size])


def _ratio(part: npt.ArrayLike, whole: npt.ArrayLike) -> FloatArray:
    """part / whole in float64, NaN where whole is 0."""
    above, below = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    ratio: FloatArray = np.full(np.broadcast(above, below).shape, np.nan)
    return np.divide(above, below, out=ratio, where=below > 0)


def _mean(values: FloatArray) -> float:
    return float(values.mean()) if values.size else float("nan")


def _rounded(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 4)
