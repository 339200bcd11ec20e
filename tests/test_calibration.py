"""Reliability of a confidence, and the temperature that makes it true."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import log_loss

from geoseg_cli.calibration import Reliability, fit_temperature, reliability, reliability_of_logits
from geoseg_cli.errors import InputError


def softmax(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def sampled(pixels: int, classes: int, seed: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.intp]]:
    """Logits, and classes drawn with the probabilities that they mean."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (pixels, classes))
    cumulated = softmax(logits).cumsum(axis=1)
    return logits, (rng.random((pixels, 1)) > cumulated).sum(axis=1).clip(max=classes - 1)


def test_the_calibration_error_of_six_pixels_is_the_one_computed_by_hand() -> None:
    confidence = [0.95, 0.96, 0.97, 0.98, 0.5, 0.51]
    hits = [True, True, True, False, False, False]
    found = reliability(confidence, hits, [0.95, 0.96, 0.97, 0.01, 0.25, 0.3])
    # One bin from 0.933 to 1: accuracy 3/4, confidence 0.965; one from 0.467 to 0.533: accuracy 0, confidence 0.505.
    assert found.expected_error == pytest.approx(4 / 6 * (0.965 - 0.75) + 2 / 6 * 0.505)
    assert found.mean_confidence == pytest.approx(sum(confidence) / 6)
    assert found.mean_nll == pytest.approx(-sum(map(math.log, [0.95, 0.96, 0.97, 0.01, 0.25, 0.3])) / 6)
    assert [row["pixels"] for row in found.as_dict()["bins"]] == [2, 4]


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 400), st.integers(2, 6), st.integers(0, 99))
def test_bins_and_likelihood_are_those_of_scikit_learn(pixels: int, classes: int, seed: int) -> None:
    logits, truth = sampled(pixels, classes, seed)
    found = reliability_of_logits(logits, truth)
    probabilities = softmax(logits)
    accuracy, confidence = calibration_curve(
        probabilities.argmax(axis=1) == truth, probabilities.max(axis=1), n_bins=15, pos_label=True
    )
    held = found.counts > 0
    np.testing.assert_allclose(found.hits[held] / found.counts[held], accuracy)
    np.testing.assert_allclose(found.confidence[held] / found.counts[held], confidence)
    assert found.mean_nll == pytest.approx(log_loss(truth, probabilities, labels=list(range(classes))), rel=1e-6)


def test_a_confidence_of_one_falls_into_the_last_bin_and_an_edge_into_the_bin_below() -> None:
    found = reliability([1.0, 1 / 15], [True, False], [1.0, 0.5])
    assert (found.counts[14], found.counts[0]) == (1, 1)


def test_a_true_class_that_was_ruled_out_costs_a_finite_amount() -> None:
    assert 87 < reliability([1.0], [False], [0.0]).mean_nll < 88


def test_without_pixels_nothing_is_said() -> None:
    empty = Reliability.empty()
    assert math.isnan(empty.expected_error)
    assert empty.as_dict() == {"ece": None, "nll": None, "mean_confidence": None, "bins": []}


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 50), st.integers(1, 50), st.integers(0, 9))
def test_the_sum_of_two_parts_is_the_whole(one: int, other: int, seed: int) -> None:
    logits, truth = sampled(one + other, 3, seed)
    parts = reliability_of_logits(logits[:one], truth[:one]) + reliability_of_logits(logits[one:], truth[one:])
    whole = reliability_of_logits(logits, truth)
    np.testing.assert_array_equal(parts.counts, whole.counts)
    assert parts.expected_error == pytest.approx(whole.expected_error)
    assert parts.mean_nll == pytest.approx(whole.mean_nll)


@settings(max_examples=8, deadline=None)
@given(st.floats(0.25, 6), st.integers(2, 9), st.integers(0, 99))
def test_logits_that_were_scaled_are_scaled_back(factor: float, classes: int, seed: int) -> None:
    logits, truth = sampled(10_000, classes, seed)
    found = fit_temperature(logits * factor, truth)
    assert found == pytest.approx(factor, rel=0.1)  # some standard errors of 10 000 pixels
    assert found == pytest.approx(factor * fit_temperature(logits, truth), rel=1e-3)
    before, after = (reliability_of_logits(logits * factor, truth, t) for t in (1.0, found))
    assert after.expected_error < 0.03
    assert after.mean_nll <= before.mean_nll + 1e-9


@settings(max_examples=15, deadline=None)
@given(st.integers(20, 300), st.integers(2, 5), st.integers(0, 99))
def test_no_neighbouring_temperature_is_likelier(pixels: int, classes: int, seed: int) -> None:
    logits, truth = sampled(pixels, classes, seed)
    truth[: classes * 4] = np.arange(classes * 4) % classes
    try:
        best = fit_temperature(logits, truth)
    except InputError:
        return  # the network of a random draw may be right about all of so few pixels
    nll = [log_loss(truth, softmax(logits / t), labels=list(range(classes))) for t in (best, best * 1.02, best / 1.02)]
    assert nll[0] <= min(nll[1:]) + 1e-9


@pytest.mark.parametrize(
    ("logits", "targets", "message"),
    [
        (np.eye(3).repeat(50, axis=0), np.arange(3).repeat(50), "100.0% of 150 pixels are right"),
        (np.zeros((60, 3)), np.arange(60) % 3, "fits best"),
        (np.array([[1.0, np.nan]]), np.array([0]), "1 of them with logits that are not finite"),
        (np.zeros((0, 2)), np.zeros(0, np.intp), "fitted to 0 pixels"),
    ],
    ids=["always right", "always guessing", "not finite", "none"],
)
def test_what_no_temperature_fits_is_refused(logits: Any, targets: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        fit_temperature(logits, targets)
