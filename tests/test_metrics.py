"""Figures against values worked out by hand and against scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from geoseg_cli.metrics import Confusion, confusion

VALUES = (10, 30, 80)

# Ten pixels: truth and prediction side by side.
TRUTH = np.array([10, 10, 10, 10, 30, 30, 30, 80, 255, 255], np.uint8)
PREDICTED = np.array([10, 10, 30, 80, 30, 30, 10, 30, 10, 80], np.uint8)


def test_counts_stand_at_true_row_and_predicted_column() -> None:
    table = confusion(TRUTH, PREDICTED, VALUES)
    assert table.counts.tolist() == [[2, 1, 1], [1, 2, 0], [0, 1, 0]]
    assert table.counts.dtype == np.int64
    assert table.missed.tolist() == [0, 0, 0]
    assert table.pixels == 8


def test_figures_equal_those_worked_out_by_hand() -> None:
    table = confusion(TRUTH, PREDICTED, VALUES)
    assert table.overall_accuracy == 4 / 8
    np.testing.assert_allclose(table.precision, [2 / 3, 2 / 4, 0 / 1])
    np.testing.assert_allclose(table.recall, [2 / 4, 2 / 3, 0 / 1])
    np.testing.assert_allclose(table.iou, [2 / 5, 2 / 5, 0 / 2])
    np.testing.assert_allclose(table.f1, [4 / 7, 4 / 7, 0])
    assert table.mean_iou == pytest.approx((2 / 5 + 2 / 5 + 0) / 3)


def test_a_pixel_without_an_answer_is_an_error_of_its_true_class() -> None:
    table = confusion(np.array([10, 10], np.uint8), np.array([10, 255], np.uint8), VALUES)
    assert table.missed.tolist() == [1, 0, 0]
    assert table.recall[0] == 0.5
    assert table.precision[0] == 1.0
    assert table.overall_accuracy == 0.5


def test_a_class_that_never_occurs_has_no_figure_and_does_not_enter_the_mean() -> None:
    table = confusion(np.array([10, 30], np.uint8), np.array([10, 30], np.uint8), VALUES)
    assert math.isnan(table.iou[2])
    assert table.mean_iou == 1.0


def test_a_class_that_is_only_predicted_lowers_the_others_but_is_not_counted_twice() -> None:
    table = confusion(np.array([10, 10], np.uint8), np.array([10, 80], np.uint8), VALUES)
    assert table.mean_iou == 0.5


def test_an_empty_table_has_no_figures() -> None:
    table = Confusion.empty(VALUES)
    assert math.isnan(table.overall_accuracy)
    assert math.isnan(table.mean_iou)
    assert table.as_dict()["overall_accuracy"] is None


def test_tables_of_parts_add_up_to_the_table_of_the_whole() -> None:
    whole = confusion(TRUTH, PREDICTED, VALUES)
    parts = confusion(TRUTH[:4], PREDICTED[:4], VALUES) + confusion(TRUTH[4:], PREDICTED[4:], VALUES)
    assert (parts.counts == whole.counts).all()


def test_merging_classes_equals_counting_merged_rasters() -> None:
    truth, predicted = np.random.default_rng(0).integers(0, 4, (2, 500)).astype(np.uint8)
    merged = confusion(truth, predicted, (0, 1, 2, 3)).merged(((0, 3), (1, 2)))
    is_cloud = np.array([0, 1, 1, 0], np.uint8)
    assert (merged.counts == confusion(is_cloud[truth], is_cloud[predicted], (0, 1)).counts).all()
    assert merged.missed.tolist() == [0, 0]


def test_merging_without_a_class_drops_its_truth_and_counts_its_predictions_as_missed() -> None:
    table = confusion(np.array([10, 10, 80], np.uint8), np.array([10, 80, 10], np.uint8), VALUES)
    merged = table.merged(((10,), (30,)))
    assert merged.counts.tolist() == [[1, 0], [0, 0]]
    assert merged.missed.tolist() == [1, 0]


def test_a_dictionary_names_classes_and_rounds_to_four_digits() -> None:
    report = confusion(TRUTH, PREDICTED, VALUES).as_dict(["tree", "grass", "water"])
    assert report["classes"]["tree"] == {"pixels": 4, "iou": 0.4, "f1": 0.5714, "precision": 0.6667, "recall": 0.5}


@given(arrays(np.uint8, 60, elements=st.integers(0, 2)), arrays(np.uint8, 60, elements=st.integers(0, 2)))
def test_figures_equal_those_of_scikit_learn(truth: np.ndarray, predicted: np.ndarray) -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    table = confusion(truth, predicted, (0, 1, 2))
    present = np.unique(truth)
    assert table.overall_accuracy == pytest.approx(sklearn.accuracy_score(truth, predicted))
    wanted = sklearn.jaccard_score(truth, predicted, labels=present, average="macro", zero_division=0)
    assert table.mean_iou == pytest.approx(wanted)
    wanted = sklearn.f1_score(truth, predicted, labels=present, average="macro", zero_division=0)
    assert table.mean_f1 == pytest.approx(wanted)
    for name, score in (("mean_precision", sklearn.precision_score), ("mean_recall", sklearn.recall_score)):
        wanted = score(truth, predicted, labels=present, average="macro", zero_division=0)
        assert getattr(table, name) == pytest.approx(wanted)
    if np.unique(np.append(truth, predicted)).size > 1:
        assert table.kappa == pytest.approx(sklearn.cohen_kappa_score(truth, predicted))


def test_kappa_equals_that_worked_out_by_hand_and_counts_a_pixel_without_an_answer_as_wrong() -> None:
    # Accuracy 4/8, chance (4 * 3 + 3 * 4 + 1 * 1) / 64.
    assert confusion(TRUTH, PREDICTED, VALUES).kappa == pytest.approx((4 / 8 - 25 / 64) / (1 - 25 / 64))
    unanswered = confusion(np.array([10, 10, 30, 30], np.uint8), np.array([10, 255, 30, 30], np.uint8), VALUES)
    assert unanswered.kappa == pytest.approx((3 / 4 - 6 / 16) / (1 - 6 / 16))


def test_kappa_is_no_number_where_chance_alone_is_always_right() -> None:
    assert math.isnan(confusion(np.full(5, 10, np.uint8), np.full(5, 10, np.uint8), VALUES).kappa)
    assert math.isnan(Confusion.empty(VALUES).kappa)
