"""The same images with fewer bands, as other sensors and products have them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from figures import Model, Row, measure
from validation_cases import Case

from geoseg_cli.catalog import Legend

RGB: Final = ("blue", "green", "red")
RGB_NIR: Final = (*RGB, "nir")
SIX: Final = (*RGB_NIR, "swir16", "swir22")
BAND_SETS: Final = {
    "land-cover": {
        "RGB-NIR": RGB_NIR,
        "RGB-NIR, short-wave infrared": SIX,
        "RGB-NIR, red edge": (*RGB_NIR, "rededge071", "rededge075", "rededge078"),
    },
    "cloud": {"RGB": RGB, "RGB-NIR": RGB_NIR, "six bands": SIX},
}
"""Task -> name -> common names of the bands."""
UNCHANGED: Final = "all that it has"


def with_fewer_bands(cases: Sequence[Case], bands: Sequence[str], known: Sequence[str]) -> list[Case]:
    """Cut cases down to some bands.

    Args:
        cases: The cases.
        bands: Bands to keep.
        known: Bands that the model can use.

    Returns:
        The cases that have all of ``bands`` and further ones that the model would have used.
    """
    kept = set(bands)
    able = [case for case in cases if kept < set(case.bands) & set(known)]
    return [_cut(case, kept) for case in able]


def _cut(case: Case, kept: set[str]) -> Case:
    places = [place for place, band in enumerate(case.bands) if band in kept]
    return replace(case, bands=tuple(case.bands[place] for place in places), reflectance=case.reflectance[places])


def measure_band_sets(
    cases: Sequence[Case], models: Sequence[Model], legend: Legend, task: str, known: Sequence[str]
) -> dict[str, dict[str, dict[str, Row]]]:
    """Headlines of every source with each set of bands that is smaller than its own.

    Returns:
        Source -> name of the set -> model -> headline. A source of several sensors counts the images that have the set.
    """
    found: dict[str, dict[str, dict[str, Row]]] = {}
    for name, bands in BAND_SETS[task].items():
        fewer = with_fewer_bands(cases, bands, known)
        for model in models:
            for source, row in measure(fewer, model, legend, task).items():
                found.setdefault(source, {}).setdefault(name, {})[model.name] = headline(row)
    return found


def headline(row: Row) -> Row:
    """The few figures of a row that band sets are compared by."""
    classes = row.get("classes", {})
    figures = {key: row.get(key) for key in ("overall_accuracy", "mean_iou", "mean_f1", "agreement")}
    figures |= {key: row.get(key) for key in ("called_cloud", "called_shadow")}
    figures["cloud_f1"] = row.get("cloud", {}).get("f1")
    if "cloud" in row:
        figures["shadow_f1"] = classes.get("cloud_shadow", {}).get("f1")
        figures["thin_cloud_iou"] = classes.get("thin_cloud", {}).get("iou")
    return {"n": row["n"]} | {key: value for key, value in figures.items() if value is not None}
