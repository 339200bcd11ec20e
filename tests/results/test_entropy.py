"""``normalised_entropy`` against the definition in float64, pixel by pixel."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoseg_cli.results.entropy import normalised_entropy


def by_hand(shares: list[float]) -> float:
    """Shannon entropy over that of equal shares, in Python's own float64."""
    return -sum(p * math.log(p) for p in shares if p > 0) / math.log(len(shares))


@given(st.integers(2, 12), st.integers(1, 6), st.integers(1, 7), st.floats(0.01, 60), st.integers(0, 2**31))
def test_every_pixel_has_the_entropy_of_its_own_probabilities(
    classes: int, height: int, width: int, sharpness: float, seed: int
) -> None:
    logits = sharpness * np.random.default_rng(seed).normal(size=(classes, height, width))
    shares = np.exp(logits - logits.max(axis=0))
    probabilities = (shares / shares.sum(axis=0)).astype(np.float32)
    found = normalised_entropy(probabilities)
    assert (found.shape, found.dtype) == ((height, width), np.float32)
    for row in range(height):
        for col in range(width):
            expected = by_hand([float(p) for p in probabilities[:, row, col]])
            assert found[row, col] == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize("classes", [2, 4, 7, 11, 200])
def test_equal_probabilities_are_one_and_a_certain_class_is_zero(classes: int) -> None:
    probabilities = np.full((classes, 1, 3), 1 / classes, np.float32)
    probabilities[:, 0, 1] = np.eye(classes)[classes // 2]
    probabilities[:, 0, 2] = 0  # no answer
    found = normalised_entropy(probabilities)[0]
    assert found[0] == pytest.approx(1, abs=1e-5)
    assert found.max() <= 1
    assert found[1:].tolist() == [0, 0]


def test_one_class_alone_leaves_no_doubt() -> None:
    assert normalised_entropy(np.ones((1, 2, 2), np.float32)).tolist() == [[0, 0], [0, 0]]


def test_what_came_is_left_as_it_was() -> None:
    probabilities = np.random.default_rng(0).random((3, 4, 5), np.float32)
    before = probabilities.copy()
    normalised_entropy(probabilities)
    np.testing.assert_array_equal(probabilities, before)
