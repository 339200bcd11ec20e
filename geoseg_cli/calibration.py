"""Whether a confidence of 0.8 is right in 80 % of the cases, and the temperature that makes it so.

A network's probabilities are softmax(logits / T). T = 1 is the network as it was trained; T above 1 says less, T below
1 says more, and neither changes which class of a tile's pixel is the likeliest (Guo et al. 2017, On calibration of
modern neural networks, arXiv 1706.04599, sections 2 and 4.2). Axes: N pixels, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from geoseg_cli.bundle import ConfidenceCalibration
from geoseg_cli.errors import InputError

Counts = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

BINS = 15
"""Bins of equal width from 0 to 1, as many as Guo et al. use."""

LEAST_PROBABILITY = float(np.finfo(np.float32).tiny)
"""Probabilities below, 0 among them, count as this much: a class that was ruled out costs 87, not infinity."""

LEAST_TEMPERATURE, LARGEST_TEMPERATURE = 0.05, 20.0
_LOG_TOLERANCE = 1e-4
_GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True, slots=True)
class Reliability:
    """How often a confidence was right, from sums over pixels.

    Attributes:
        counts: (15,) int64 pixels per bin of confidence; bin b holds b / 15 < confidence <= (b + 1) / 15.
        confidence: (15,) float64 sum of the confidences in each bin.
        hits: (15,) int64 pixels of each bin whose class was right.
        nll: Sum of -log(probability of the true class), natural logarithm.
    """

    counts: Counts
    confidence: FloatArray
    hits: Counts
    nll: float

    @classmethod
    def empty(cls) -> Reliability:
        """Without a pixel."""
        return cls(np.zeros(BINS, np.int64), np.zeros(BINS), np.zeros(BINS, np.int64), 0.0)

    def __add__(self, other: Reliability) -> Reliability:
        """Sum over the pixels of both."""
        return Reliability(
            self.counts + other.counts,
            self.confidence + other.confidence,
            self.hits + other.hits,
            self.nll + other.nll,
        )

    @property
    def pixels(self) -> int:
        """Pixels that were counted."""
        return int(self.counts.sum())

    @property
    def expected_error(self) -> float:
        """Expected calibration error, 0 to 1: mean distance of confidence and accuracy over the bins, each weighed by
        its pixels; NaN without pixels."""
        return float(np.abs(self.hits - self.confidence).sum() / self.pixels) if self.pixels else math.nan

    @property
    def mean_nll(self) -> float:
        """Mean negative log-likelihood of the true class, natural logarithm; NaN without pixels."""
        return self.nll / self.pixels if self.pixels else math.nan

    @property
    def mean_confidence(self) -> float:
        """Mean confidence, 0 to 1; above the overall accuracy the network is too sure. NaN without pixels."""
        return float(self.confidence.sum() / self.pixels) if self.pixels else math.nan

    def as_dict(self) -> dict[str, Any]:
        """The figures for a JSON file, rounded to 4 digits, NaN as None; empty bins are left out."""
        bins = [
            {
                "above": round(number / BINS, 4),
                "pixels": int(self.counts[number]),
                "confidence": round(float(self.confidence[number] / self.counts[number]), 4),
                "accuracy": round(float(self.hits[number] / self.counts[number]), 4),
            }
            for number in np.flatnonzero(self.counts)
        ]
        figures = {"ece": self.expected_error, "nll": self.mean_nll, "mean_confidence": self.mean_confidence}
        return {name: None if math.isnan(value) else round(value, 4) for name, value in figures.items()} | {
            "bins": bins
        }


def reliability(confidence: npt.ArrayLike, hits: npt.ArrayLike, true_probability: npt.ArrayLike) -> Reliability:
    """Count pixels by the confidence of their answer.

    Args:
        confidence: (N,) probability of the class that was answered, above 0 up to 1.
        hits: (N,) bool, whether that class was right.
        true_probability: (N,) probability of the true class, 0 to 1.

    Returns:
        The sums.
    """
    sure, right = np.asarray(confidence, np.float64), np.asarray(hits, np.bool_)
    place = np.clip(np.ceil(sure * BINS).astype(np.intp) - 1, 0, BINS - 1)
    summed: FloatArray = np.bincount(place, weights=sure, minlength=BINS).astype(np.float64)
    likelihood = np.maximum(np.asarray(true_probability, np.float64), LEAST_PROBABILITY)
    return Reliability(
        np.bincount(place, minlength=BINS).astype(np.int64),
        summed,
        np.bincount(place[right], minlength=BINS).astype(np.int64),
        float(-np.log(likelihood).sum()),
    )


def reliability_of_logits(logits: npt.ArrayLike, targets: npt.ArrayLike, temperature: float = 1.0) -> Reliability:
    """Count pixels by the confidence of softmax(logits / temperature).

    Args:
        logits: (N, K) numbers.
        targets: (N,) number of the true class, 0 to K - 1.
        temperature: Above 0.
    """
    scores, truth = np.asarray(logits, np.float64), np.asarray(targets, np.intp)
    probabilities = np.exp(_log_softmax(scores / temperature))
    true_probability = np.take_along_axis(probabilities, truth[:, None], axis=1)[:, 0]
    return reliability(probabilities.max(axis=1), scores.argmax(axis=1) == truth, true_probability)


def fit_temperature(logits: npt.ArrayLike, targets: npt.ArrayLike) -> float:
    """Find the temperature T with the least negative log-likelihood of softmax(logits / T).

    The likelihood is concave in 1 / T, so it has one maximum; golden-section search over log T finds it to 0.01 %.

    Args:
        logits: (N, K) numbers of pixels that had no part in training; memory is some copies of them in float64.
        targets: (N,) number of the true class, 0 to K - 1.

    Returns:
        T, between 0.05 and 20.

    Raises:
        InputError: There is no pixel, a logit is not finite, or the best T lies outside: all pixels right, for
            instance, or no better than guessed.
    """
    scores, truth = np.asarray(logits, np.float64), np.asarray(targets, np.intp)
    assert scores.ndim == 2
    assert truth.shape == scores.shape[:1]
    if not len(scores) or not np.isfinite(scores).all():
        raise InputError(
            f"no temperature can be fitted to {len(scores)} pixels, {int((~np.isfinite(scores)).any(axis=-1).sum())} of"
            " them with logits that are not finite",
            "give labelled pixels with finite logits",
        )
    low, high = math.log(LEAST_TEMPERATURE), math.log(LARGEST_TEMPERATURE)
    best = _golden_section(lambda log_t: _mean_nll(scores, truth, math.exp(log_t)), low, high)
    if min(best - low, high - best) < 10 * _LOG_TOLERANCE:
        right = float((scores.argmax(axis=1) == truth).mean())
        raise InputError(
            f"no temperature between {LEAST_TEMPERATURE:g} and {LARGEST_TEMPERATURE:g} fits best: {right:.1%} of"
            f" {len(scores):,} pixels are right",
            "fit on more, and more varied, labelled pixels on which the network is neither always right nor guessing",
        )
    return math.exp(best)


def calibrate(logits: npt.ArrayLike, targets: npt.ArrayLike, data: str, places: int) -> ConfidenceCalibration:
    """Fit a temperature and say what it changes.

    Args:
        logits: (N, K) numbers, before any temperature.
        targets: (N,) number of the true class, 0 to K - 1.
        data: What the pixels are, for people.
        places: How many places they come from.

    Raises:
        InputError: No temperature fits best.
    """
    temperature = round(fit_temperature(logits, targets), 4)
    before, after = reliability_of_logits(logits, targets), reliability_of_logits(logits, targets, temperature)
    return ConfidenceCalibration(
        temperature=temperature,
        data=data,
        places=places,
        pixels=after.pixels,
        nll=(round(before.mean_nll, 4), round(after.mean_nll, 4)),
        ece=(round(before.expected_error, 4), round(after.expected_error, 4)),
    )


def _mean_nll(logits: FloatArray, targets: npt.NDArray[np.intp], temperature: float) -> float:
    found = np.take_along_axis(_log_softmax(logits / temperature), targets[:, None], axis=1)
    return float(-found.mean())


def _log_softmax(logits: FloatArray) -> FloatArray:
    """Log of the softmax over the last axis."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    result: FloatArray = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result


def _golden_section(function: Callable[[float], float], low: float, high: float) -> float:
    """Place of the minimum of a function with one minimum between two bounds."""
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_left, at_right = function(left), function(right)
    while high - low > _LOG_TOLERANCE:
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - _GOLDEN * (high - low)
            at_left = function(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + _GOLDEN * (high - low)
            at_right = function(right)
    return (low + high) / 2
