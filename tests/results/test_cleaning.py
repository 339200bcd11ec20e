"""Filters of class maps against scipy's and plain loops, whatever the strips are."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from geoseg_cli.catalog import legends
from geoseg_cli.errors import UsageError
from geoseg_cli.results.cleaning import MAX_DILATION_PX, MAX_WINDOW_PX, dilate, majority, recode, thresholded
from geoseg_cli.rows import Rows
from tests.results.test_sieve import NODATA, assembled, maps, source_of

Labels = npt.NDArray[np.uint8]
CLASSES = (0, 1, 2, 10, 20)


def plain_majority(labels: Labels, reach: int) -> Labels:
    """One pixel at a time."""
    result = labels.copy()
    for row, col in np.argwhere(labels != NODATA):
        around = labels[max(0, row - reach) : row + reach + 1, max(0, col - reach) : col + reach + 1]
        values, counts = np.unique(around[around != NODATA], return_counts=True)
        winners = values[counts == counts.max()]
        if labels[row, col] not in winners:
            result[row, col] = winners.min()
    return result


@given(maps(), st.integers(0, 5))
def test_the_majority_of_every_window_wins_whatever_the_strips(case: tuple[Labels, int], reach: int) -> None:
    labels, strip_px = case
    found = assembled(majority(source_of(labels, strip_px), NODATA, CLASSES, 2 * reach + 1))
    assert np.array_equal(found, plain_majority(labels, reach))


def test_a_window_of_one_pixel_changes_nothing_and_a_lone_pixel_goes_under() -> None:
    labels = np.full((5, 5), 10, np.uint8)
    labels[2, 2] = 20
    assert np.array_equal(assembled(majority(source_of(labels, 2), NODATA, CLASSES, 1)), labels)
    assert (assembled(majority(source_of(labels, 2), NODATA, CLASSES, 3)) == 10).all()


@pytest.mark.parametrize("window_px", [0, 2, -3, MAX_WINDOW_PX + 2])
def test_a_window_without_a_middle_is_refused(window_px: int) -> None:
    with pytest.raises(UsageError, match="majority"):
        majority(source_of(np.zeros((2, 2), np.uint8), 1), NODATA, CLASSES, window_px)


@given(maps(), st.integers(0, 6), st.permutations([1, 10, 20]))
def test_dilation_reaches_all_pixels_within_a_euclidean_distance(
    case: tuple[Labels, int], px: int, classes: list[int]
) -> None:
    labels, strip_px = case
    found = assembled(dilate(source_of(labels, strip_px), NODATA, classes, px))
    expected = labels.copy()
    free = ~np.isin(labels, [*classes, NODATA])
    for value in classes:
        distance = ndimage.distance_transform_edt(labels != value) if (labels == value).any() else np.inf
        near = free & (distance <= px)
        expected[near] = value
        free &= ~near
    assert np.array_equal(found, expected)


def test_the_widest_dilation_still_counts_right() -> None:
    labels = np.zeros((1, 600), np.uint8)
    labels[0, 0] = 1
    found = assembled(dilate(source_of(labels, 1), NODATA, (1,), MAX_DILATION_PX))
    assert found.sum() == MAX_DILATION_PX + 1


@pytest.mark.parametrize("px", [-1, MAX_DILATION_PX + 1])
def test_a_distance_that_does_not_fit_is_refused(px: int) -> None:
    with pytest.raises(UsageError, match="dilation"):
        dilate(source_of(np.zeros((2, 2), np.uint8), 1), NODATA, (1,), px)


def test_recoding_sends_what_it_does_not_know_to_nodata() -> None:
    labels = np.array([[0, 1, 2, 3, 255]], np.uint8)
    found = assembled(recode(source_of(labels, 1), {0: 0, 1: 1, 2: 1, 255: 7}, NODATA))
    assert found.tolist() == [[0, 1, 1, 255, 255]]


def rows_of(probabilities: npt.NDArray[np.float32], valid: npt.NDArray[np.bool_]) -> Rows:
    legend = legends()["cloudsen12"]
    labels = np.where(valid, np.asarray(legend.values, np.uint8)[probabilities.argmax(axis=0)], legend.nodata)
    return Rows(0, labels.astype(np.uint8), probabilities.max(axis=0), probabilities, valid)


@given(st.integers(0, 2**32 - 1), st.floats(0.05, 1))
def test_the_threshold_decides_on_the_sum_and_the_largest_within(seed: int, threshold: float) -> None:
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(4, 3, 5))
    probabilities = (np.exp(logits) / np.exp(logits).sum(axis=0)).astype(np.float32)
    valid = generator.random((3, 5)) < 0.8
    probabilities[:, ~valid] = 0
    legend = legends()["cloudsen12"]
    (found,) = thresholded(iter([rows_of(probabilities, valid)]), legend, (1, 2), threshold)
    for row, col in np.ndindex(3, 5):
        mine = probabilities[:, row, col].astype(float)
        if not valid[row, col]:
            assert (found.labels[row, col], found.confidence[row, col]) == (255, 0)
            continue
        if abs(mine[1] + mine[2] - threshold) < 1e-5:
            continue
        group = (1, 2) if mine[1] + mine[2] > threshold else (0, 3)
        expected = max(group, key=lambda k: mine[k])
        assert found.labels[row, col] == expected
        assert found.confidence[row, col] == np.float32(mine[expected])


def test_a_sum_that_equals_the_threshold_reaches_it() -> None:
    probabilities = np.array([0.5, 0.3, 0.2, 0.0], np.float32).reshape(4, 1, 1)
    (found,) = thresholded(iter([rows_of(probabilities, np.ones((1, 1), bool))]), legends()["cloudsen12"], (1, 2), 0.5)
    assert found.labels.item() == 1


@pytest.mark.parametrize(("classes", "threshold"), [((1, 2), 0), ((1, 2), 1.5), ((), 0.5), ((0, 1, 2, 3), 0.5)])
def test_a_threshold_that_decides_nothing_is_refused(classes: tuple[int, ...], threshold: float) -> None:
    with pytest.raises(UsageError, match="threshold"):
        thresholded(iter([]), legends()["cloudsen12"], classes, threshold)
