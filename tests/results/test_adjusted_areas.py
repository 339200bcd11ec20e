"""Error-adjusted areas against the example of the paper and against many drawn samples."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoseg_cli.catalog import LandClass, Legend
from geoseg_cli.errors import InputError, InputMissingError
from geoseg_cli.metrics import Confusion
from geoseg_cli.results.adjusted_areas import adjusted_areas
from geoseg_cli.results.areas import ClassArea
from geoseg_cli.results.sample_counts import SampleCounts

NAMES = ("deforestation", "forest_gain", "stable_forest", "stable_non_forest")
LEGEND = Legend(
    "change", tuple(LandClass(k + 1, name, name.replace("_", " "), "#000000") for k, name in enumerate(NAMES))
)

# Olofsson et al. (2014), section 5: places by map class (rows) and reference class, pixels of 30 m.
PAPER = np.array([[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]])
PAPER_PIXELS = (200_000, 150_000, 3_200_000, 6_450_000)


def areas_of(hectares: tuple[float, ...]) -> list[ClassArea]:
    total = sum(hectares)
    return [
        ClassArea(one.value, one.name, one.title, round(area * 100), area / total, area)
        for one, area in zip(LEGEND.classes, hectares, strict=True)
    ]


def counts_of(counts: npt.ArrayLike) -> SampleCounts:
    return SampleCounts(LEGEND.values, np.asarray(counts, np.int64), "test")


def test_the_example_of_the_paper_comes_out() -> None:
    result = adjusted_areas(areas_of(tuple(pixels * 0.09 for pixels in PAPER_PIXELS)), counts_of(PAPER))
    published = [(21_158, 6_158), (11_686, 3_756), (285_770, 15_510), (581_386, 16_282)]
    for one, (area_ha, margin_ha) in zip(result.classes, published, strict=True):
        assert one.adjusted_ha == pytest.approx(area_ha, abs=0.5)
        assert one.standard_error_ha * 1.96 == pytest.approx(margin_ha, abs=0.5)
        assert (one.low_ha, one.high_ha) == pytest.approx((area_ha - margin_ha, area_ha + margin_ha), abs=1)
    assert result.overall_accuracy == pytest.approx(0.95, abs=0.005)
    assert [one.users_accuracy for one in result.classes] == pytest.approx([0.88, 0.73, 0.93, 0.96], abs=0.005)
    assert [one.users_accuracy_95 for one in result.classes] == pytest.approx([0.07, 0.10, 0.04, 0.02], abs=0.005)
    assert [one.producers_accuracy for one in result.classes] == pytest.approx([0.75, 0.85, 0.93, 0.96], abs=0.005)
    json.dumps(result.to_json(), allow_nan=False)


def test_standard_errors_are_those_of_many_samples() -> None:
    """Draw places from a map whose true classes are known, again and again."""
    generator = np.random.default_rng(0)
    hectares = (100.0, 300.0, 800.0, 2_000.0)
    truth = np.array([[0.7, 0.1, 0.2, 0], [0.05, 0.8, 0.1, 0.05], [0.02, 0.03, 0.9, 0.05], [0, 0.02, 0.08, 0.9]])
    drawn = (40, 60, 90, 150)
    results = []
    for _ in range(3_000):
        counts = np.stack([generator.multinomial(n, row) for n, row in zip(drawn, truth, strict=True)])
        results.append(adjusted_areas(areas_of(hectares), counts_of(counts)))
    true_ha = np.array(hectares) @ truth
    found = np.array([[one.adjusted_ha for one in result.classes] for result in results])
    errors = np.array([[one.standard_error_ha for one in result.classes] for result in results])
    assert found.mean(axis=0) == pytest.approx(true_ha, rel=0.01)
    assert np.sqrt((errors**2).mean(axis=0)) == pytest.approx(found.std(axis=0), rel=0.05)
    covered = np.array(
        [[one.low_ha <= t <= one.high_ha for one, t in zip(r.classes, true_ha, strict=True)] for r in results]
    )
    assert (np.abs(covered.mean(axis=0) - 0.95) < 0.03).all()
    producers = np.array([[one.producers_accuracy for one in result.classes] for result in results])
    margins = np.array([[one.producers_accuracy_95 for one in result.classes] for result in results]) / 1.96
    assert margins.mean(axis=0) == pytest.approx(producers.std(axis=0), rel=0.1)


@given(st.lists(st.floats(0.1, 1e6), min_size=4, max_size=4), st.integers(2, 500))
def test_a_map_without_errors_keeps_its_areas(hectares: list[float], places: int) -> None:
    result = adjusted_areas(areas_of(tuple(hectares)), counts_of(np.eye(4) * places))
    for one in result.classes:
        assert one.adjusted_ha == pytest.approx(one.mapped_ha)
        assert (one.standard_error_ha, one.users_accuracy, one.producers_accuracy) == (0, 1, pytest.approx(1))
    assert result.overall_accuracy == pytest.approx(1)


@given(st.integers(0, 2**32 - 1))
def test_adjusted_areas_add_up_to_the_mapped_ones(seed: int) -> None:
    generator = np.random.default_rng(seed)
    hectares = tuple(generator.uniform(1, 1e5, 4))
    result = adjusted_areas(areas_of(hectares), counts_of(generator.integers(0, 30, (4, 4)) + np.eye(4) * 2))
    assert sum(one.adjusted_ha for one in result.classes) == pytest.approx(sum(hectares))
    assert all(one.low_ha >= 0 for one in result.classes)


def test_a_class_that_is_only_true_has_an_area_and_one_that_is_nowhere_has_none() -> None:
    areas = [*areas_of((50.0, 50.0, 0.0, 0.0))]
    result = adjusted_areas(areas, counts_of([[8, 0, 2, 0], [0, 10, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]))
    missed, absent = result.classes[2:]
    assert (missed.mapped_ha, missed.adjusted_ha, missed.users_accuracy) == (0, pytest.approx(10), None)
    assert missed.producers_accuracy == 0
    assert (absent.adjusted_ha, absent.producers_accuracy) == (0, None)


def test_too_few_places_are_refused() -> None:
    counts = PAPER.copy()
    counts[1] = (0, 1, 0, 0)
    with pytest.raises(InputError, match="forest_gain"):
        adjusted_areas(areas_of((1.0, 1.0, 1.0, 1.0)), counts_of(counts))
    with pytest.raises(InputError, match="no areas"):
        adjusted_areas([ClassArea(k + 1, "", "", 5, 0.25, None) for k in range(4)], counts_of(PAPER))


TABLE = r"""map\reference,deforestation,forest_gain,stable_forest,stable_non_forest
deforestation,66,0,5,4
forest_gain,0,55,8,12
stable_forest,1,0,153,11
stable_non_forest,2,1,9,313
"""


def test_a_table_is_read_by_names_whatever_its_order(tmp_path: Path) -> None:
    path = tmp_path / "matrix.csv"
    path.write_text(TABLE)
    assert np.array_equal(SampleCounts.read(path, LEGEND).counts, PAPER)
    cells = [line.split(",") for line in TABLE.splitlines()]
    shuffled = [[row[k] for k in (0, 3, 1, 4, 2)] for row in (cells[0], *reversed(cells[1:]))]
    path.write_text("\n".join(";".join(row) for row in shuffled), encoding="utf-8-sig")
    assert np.array_equal(SampleCounts.read(path, LEGEND).counts, PAPER)
    turned = [list(row) for row in zip(*cells, strict=True)]
    turned[0][0] = "Reference / Map"
    turned[1][0], turned[2][0] = " 1", "Forest Gain"
    path.write_text("\r\n".join(",".join(row) for row in turned))
    assert np.array_equal(SampleCounts.read(path, LEGEND).counts, PAPER)


def test_classes_that_the_table_leaves_out_have_no_places(tmp_path: Path) -> None:
    path = tmp_path / "matrix.csv"
    path.write_text("map/reference,1,2\n1,7,3\n2,0,9\n")
    counts = SampleCounts.read(path, LEGEND).counts
    assert (counts.sum(), counts[0, 1], counts[1, 1]) == (19, 3, 9)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (r"map\reference", "", "first cell"),
        (r"map\reference", r"map\map", "first cell"),
        ("stable_forest,1", "swamp,1", "swamp"),
        ("forest_gain,0", "deforestation,0", "twice"),
        (",66,", ",0.5,", "number of places"),
        (",66,", ",-1,", "number of places"),
        (",66,", ",,", "number of places"),
        (",313", "", "cells"),
    ],
)
def test_a_table_that_could_be_misread_is_refused(tmp_path: Path, old: str, new: str, words: str) -> None:
    path = tmp_path / "matrix.csv"
    path.write_text(TABLE.replace(old, new, 1))
    with pytest.raises(InputError, match=words):
        SampleCounts.read(path, LEGEND)


def test_files_that_hold_no_table_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputMissingError):
        SampleCounts.read(tmp_path / "nothing.csv", LEGEND)
    for content in (b"", b"map/reference\n", b"\xff\xfe\x00"):
        (tmp_path / "bad.csv").write_bytes(content)
        with pytest.raises(InputError):
            SampleCounts.read(tmp_path / "bad.csv", LEGEND)


def test_the_report_of_an_evaluation_has_the_truth_in_its_rows(tmp_path: Path) -> None:
    table = Confusion((3, 1), np.array([[5, 2], [1, 9]]), np.zeros(2, np.int64))
    classes = [{"value": value} for value in table.values]
    path = tmp_path / "report.json"
    path.write_text(json.dumps({"classes": classes, "total": {"confusion": table.counts.tolist()}}))
    samples = SampleCounts.read(path, LEGEND)
    # 2 pixels are 3 and were called 1.
    assert samples.counts.tolist() == [[9, 0, 2, 0], [0, 0, 0, 0], [1, 0, 5, 0], [0, 0, 0, 0]]
    result = adjusted_areas(areas_of((1.0, 0.0, 1.0, 0.0)), samples)
    assert "too narrow" in result.note
    for text in ("[]", "{", '{"classes": [], "total": {"confusion": [[1]]}}'):
        path.write_text(text)
        with pytest.raises(InputError):
            SampleCounts.read(path, LEGEND)
