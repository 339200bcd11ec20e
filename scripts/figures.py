"""Figures of a model on validation cases: what can be said of a source depends on what its truth knows.

Intervals are percentiles of 1000 resamplings of whole images, never of pixels; fewer than 5 images give none.
Axes: H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from validation_cases import BoolArray, Case, UInt8Array

from geoseg_cli.catalog import NODATA, Legend
from geoseg_cli.metrics import Confusion, confusion

Predict = Callable[[Case], UInt8Array | None]
"""Class values (H, W) uint8 of a case; None where the model lacks a band."""
Row = dict[str, Any]

CLOUD_GROUPS: Final = ((0, 3), (1, 2))
"""Clear, shadow included, against cloud."""
THREE_GROUPS: Final = ((0,), (1, 2), (3,))
FALSE_ALARM_SOURCES: Final = ("cs12-clear", "terramesh-clear-l1c", "terramesh-clear-l2a", "eurosat-clear")
SHARP_SOURCES: Final = ("ukis-landsat5", "ukis-landsat7")
"""Masks drawn so sharply that a distance to their edges means something."""
NO_THIN_SOURCES: Final = (*SHARP_SOURCES, "alberta")
"""Truth that knows cloud and shadow, but not how thick a cloud is."""
NO_SHADOW_SOURCES: Final = ("oncloudn",)
LEVEL_SOURCES: Final = ("terramesh-l1c", "terramesh-l2a")
EDGE_PX: Final = 2.0
RESAMPLINGS: Final = 1000


@dataclass(frozen=True, slots=True)
class Model:
    """What is measured.

    Attributes:
        name: Its name in the report.
        predict: What it makes of a case.
        is_binary: It tells cloud from clear and nothing else.
    """

    name: str
    predict: Predict
    is_binary: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model made of a case.

    Attributes:
        case: The case.
        predicted: (H, W) uint8 class values.
        table: Counts of all known pixels.
    """

    case: Case
    predicted: UInt8Array
    table: Confusion


def measure(cases: Sequence[Case], model: Model, legend: Legend, task: str) -> dict[str, Row]:
    """Figures of every source that the model can judge.

    Args:
        cases: Cases of any sources.
        model: The model.
        legend: Its classes.
        task: ``land-cover`` or ``cloud``.

    Returns:
        Source -> figures, values of JSON.
    """
    by_source: dict[str, list[Answer]] = {}
    for case in cases:
        predicted = model.predict(case)
        if predicted is not None:
            by_source.setdefault(case.source, []).append(answer(case, predicted, legend))
    rows = {
        source: _land_row(answers, legend) if task == "land-cover" else cloud_row(answers, legend, model.is_binary)
        for source, answers in by_source.items()
    }
    if all(source in by_source for source in LEVEL_SOURCES):
        rows["terramesh-levels"] = agreement(*(by_source[source] for source in LEVEL_SOURCES))
    return rows


def answer(case: Case, predicted: UInt8Array, legend: Legend) -> Answer:
    """Count an answer; of a tile with one label, the most frequent class counts."""
    truth = case.truth
    if case.source == "eurosat-tiles":
        predicted, truth = majority(predicted), truth[:1, :1]
    if case.also_right:
        is_right = np.isin(predicted, case.also_right) & (truth != NODATA)
        predicted = np.where(is_right, truth, predicted)
    return Answer(case, predicted, confusion(truth, predicted, legend.values))


def _land_row(answers: Sequence[Answer], legend: Legend) -> Row:
    names = [one.name for one in legend.classes]
    tables = [one.table for one in answers]
    row = _start(answers) | total(tables).as_dict(names) | land_intervals(tables)
    if parts := _by_part(answers):
        row["by_part"] = {
            part: {"n": len(some), **_overall([one.table for one in some]), **land_intervals([o.table for o in some])}
            for part, some in parts.items()
        }
    return row


def land_intervals(tables: Sequence[Confusion]) -> Row:
    """95 % intervals of the overall figures."""
    return {
        "overall_accuracy_95": interval(tables, lambda table: table.overall_accuracy),
        "mean_iou_95": interval(tables, lambda table: table.mean_iou),
        "mean_f1_95": interval(tables, lambda table: table.mean_f1),
    }


def _overall(tables: Sequence[Confusion]) -> Row:
    figures = total(tables).as_dict()
    return {key: figures[key] for key in ("pixels", "overall_accuracy", "mean_iou", "mean_f1")}


def cloud_row(answers: Sequence[Answer], legend: Legend, is_binary: bool) -> Row:
    """Figures of one source of clouds.

    Args:
        answers: At least one, all of one source.
        legend: Clear, thick cloud, thin cloud, shadow.
        is_binary: The model knows neither shadow nor thickness, and is not asked for them.
    """
    source, tables = answers[0].case.source, [one.table for one in answers]
    row = _start(answers)
    if source in FALSE_ALARM_SOURCES:
        return row | _false_alarms(tables, is_binary)
    row["cloud"] = _cloud_figures(tables)
    if source in SHARP_SOURCES:
        row["cloud_inside"] = _cloud_figures([_inside(one, legend) for one in answers])
    if is_binary:
        return row
    if source in NO_THIN_SOURCES:
        merged = [table.merged(THREE_GROUPS) for table in tables]
        return row | _shadow_and_rest(merged, ["clear", "cloud", "cloud_shadow"])
    if source in NO_SHADOW_SOURCES:
        return row
    row |= _shadow_and_rest(tables, [one.name for one in legend.classes])
    if parts := _by_part(answers):
        row["by_part"] = {part: _cloud_part([one.table for one in some]) for part, some in parts.items()}
    return row


def _cloud_part(tables: list[Confusion]) -> Row:
    overall = {"n": len(tables)} | _overall(tables)
    return overall | {"cloud_f1": _cloud_figures(tables)["f1"], "mean_iou_95": land_intervals(tables)["mean_iou_95"]}


def _shadow_and_rest(tables: Sequence[Confusion], names: Sequence[str]) -> Row:
    return total(tables).as_dict(names) | land_intervals(tables)


def _false_alarms(tables: Sequence[Confusion], is_binary: bool) -> Row:
    """Of images without a cloud: the share of pixels that are called one, over all and by image."""
    by_image = [float(table.counts[0, 1:3].sum() / max(table.pixels, 1)) for table in tables]
    called = total(tables).counts[0] / max(total(tables).pixels, 1)
    row = {
        "called_cloud": round(float(called[1] + called[2]), 4),
        "called_cloud_by_image": [round(share, 4) for share in by_image],
    }
    return row if is_binary else row | {"called_shadow": round(float(called[3]), 4)}


def _cloud_figures(tables: Sequence[Confusion]) -> Row:
    """Cloud against all else."""
    merged = [table.merged(CLOUD_GROUPS) for table in tables]
    row: Row = total(merged).as_dict(["clear", "cloud"])["classes"]["cloud"]
    row["f1_95"] = interval(merged, lambda table: float(table.f1[1]))
    row["f1_by_image"] = [_rounded(float(table.f1[1])) for table in merged]
    return row


def _inside(one: Answer, legend: Legend) -> Confusion:
    """Counts of the pixels far from an edge of the clouds."""
    is_cloud = np.isin(one.case.truth, CLOUD_GROUPS[1])
    far = far_from_edges(is_cloud, EDGE_PX)
    return confusion(np.where(far, one.case.truth, NODATA).astype(np.uint8), one.predicted, legend.values)


def far_from_edges(mask: BoolArray, distance_px: float) -> BoolArray:
    """Where no pixel within a distance has another value.

    Args:
        mask: (H, W) bool.
        distance_px: Between the centres of pixels. The border of the image is no edge.

    Returns:
        (H, W) bool.
    """
    reach = int(distance_px)
    padded = np.pad(mask, reach, mode="edge")
    height, width = mask.shape
    far = np.ones(mask.shape, bool)
    for down in range(-reach, reach + 1):
        for right in range(-reach, reach + 1):
            if down**2 + right**2 <= distance_px**2:
                top, left = reach + down, reach + right
                far &= padded[top : top + height, left : left + width] == mask
    return far


def agreement(first: Sequence[Answer], second: Sequence[Answer]) -> Row:
    """Share of pixels that two sources, which show the same ground, are given the same class."""
    other = {one.case.place: one.predicted for one in second}
    same = [one.predicted == other[one.case.place] for one in first]
    share = float(np.concatenate([image.ravel() for image in same]).mean())
    return _start(first) | {
        "pixels": sum(image.size for image in same),
        "agreement": round(share, 4),
        "agreement_by_image": [round(float(image.mean()), 4) for image in same],
    }


def _start(answers: Sequence[Answer]) -> Row:
    pixels = sum(one.table.pixels for one in answers)
    return {"unit": answers[0].case.unit, "n": len(answers), "pixels": pixels}


def _by_part(answers: Sequence[Answer]) -> dict[str, list[Answer]]:
    """Answers of each part, in the order of the names; nothing where there is but one."""
    parts = sorted({one.case.part for one in answers})
    return {part: [one for one in answers if one.case.part == part] for part in parts} if len(parts) > 1 else {}


def majority(predicted: UInt8Array) -> UInt8Array:
    """The most frequent value, (1, 1) uint8."""
    return np.full((1, 1), np.bincount(predicted.ravel()).argmax(), np.uint8)


def total(tables: Sequence[Confusion]) -> Confusion:
    """Sum of at least one table."""
    return sum(tables[1:], tables[0])


def interval(tables: Sequence[Confusion], figure: Callable[[Confusion], float]) -> list[float] | None:
    """95 % interval of a figure, from resampling whole images; None for fewer than 5, or where it is never defined."""
    if len(tables) < 5:
        return None
    rng = np.random.default_rng(0)
    counts, missed = (np.stack([getattr(table, name) for table in tables]) for name in ("counts", "missed"))
    drawn: npt.NDArray[np.float64] = np.empty(RESAMPLINGS)
    for place in range(RESAMPLINGS):
        chosen = rng.integers(len(tables), size=len(tables))
        drawn[place] = figure(Confusion(tables[0].values, counts[chosen].sum(axis=0), missed[chosen].sum(axis=0)))
    if np.isnan(drawn).all():
        return None
    low, high = np.nanpercentile(drawn, (2.5, 97.5))
    return [round(float(low), 4), round(float(high), 4)]


def _rounded(value: float) -> float | None:
    """A value that JSON can hold."""
    return None if np.isnan(value) else round(value, 4)
