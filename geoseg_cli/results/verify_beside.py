"""Do the sidecars of a map say what the map says? They may have been written anew since, as QGIS does."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from shapely.errors import ShapelyError
from shapely.geometry import shape

from geoseg_cli.results.attribute_table import AttributeRow, attribute_rows, read_attribute_table
from geoseg_cli.results.description import PIXELS_TAG, MapDescription
from geoseg_cli.results.footprint import footprint
from geoseg_cli.results.qgis_style import read_style, style_entries
from geoseg_cli.results.sidecars import Sidecar, read_sidecar
from geoseg_cli.results.stac import checksum, class_objects, near_href, projection, times

Problems = tuple[str, ...]

UNREADABLE = "it cannot be read as text"

HECTARES_TOLERANCE = 1e-5
"""Relative; another version of PROJ may know the ellipsoid by other digits. Tables state 1 m2."""
PLACE_TOLERANCE, DEGREES_TOLERANCE = 1e-4, 1e-5
"""Part of the outline's area; degrees of longitude and latitude, a metre."""


def check_attributes(sidecar: Path, map_path: Path, description: MapDescription) -> Problems:
    """Compare names and attribute table with the map."""
    text = read_sidecar(sidecar)
    if text is None:
        return (UNREADABLE,)
    try:
        titles, rows, overrides = read_attribute_table(text)
    except ValueError as error:
        return (str(error),)
    expected = attribute_rows(description)
    found = [f"it overrides the map with its own {name}" for name in overrides]
    if titles != {row.value: row.title for row in expected if row.title}:
        found.append("its category names are not those of the legend")
    if len(rows) != len(expected):
        found.append(f"its table has {len(rows)} rows for {len(expected)} classes")
    pairs = zip(rows, expected, strict=False)
    return (*found, *(f"row {row} should be {right}" for row, right in pairs if not _is_same(row, right)))


def check_style(sidecar: Path, map_path: Path, description: MapDescription) -> Problems:
    """Compare colours and labels of a QGIS style with the map's legend."""
    text = read_sidecar(sidecar)
    if text is None:
        return (UNREADABLE,)
    try:
        entries = read_style(text)
    except ValueError as error:
        return (str(error),)
    expected = style_entries(description.legend)
    if sorted(entries) == sorted(expected):
        return ()
    wrong = sorted({entry[0] for entry in {*entries} ^ {*expected}})
    return (f"it shows {wrong} with other colours or names than the legend",)


def check_item(sidecar: Path, map_path: Path, description: MapDescription) -> Problems:
    """Compare a catalogue entry with the map and the other rasters that it names."""
    text = read_sidecar(sidecar)
    try:
        item = json.loads(text) if text is not None else None
    except (ValueError, RecursionError) as error:
        return (f"it is no JSON: {error}",)
    if not isinstance(item, dict) or not isinstance(item.get("properties"), dict):
        return ("it is no STAC item",)
    assets = item.get("assets")
    if not isinstance(assets, dict) or not isinstance(assets.get("labels"), dict):
        return ("it has no asset labels",)
    rasters = (text for key, asset in assets.items() for text in _asset(key, asset, map_path))
    properties = _differences(item["properties"], _expected_properties(description))
    return (*_place(item, description), *properties, *_labels(assets["labels"], map_path, description), *rasters)


SIDECAR_CHECKS: Mapping[Sidecar, Callable[[Path, Path, MapDescription], Problems]] = {
    "attributes": check_attributes,
    "style": check_style,
    "item": check_item,
}


def _is_same(row: AttributeRow, right: AttributeRow) -> bool:
    if (row.hectares is None) != (right.hectares is None):
        return False
    is_close = math.isclose(row.hectares or 0, right.hectares or 0, rel_tol=HECTARES_TOLERANCE, abs_tol=1e-4)
    return is_close and (row.value, row.title, row.rgb, row.pixels) == (
        right.value,
        right.title,
        right.rgb,
        right.pixels,
    )


def _expected_properties(description: MapDescription) -> dict[str, Any]:
    place = projection(description.grid)
    place.pop("proj:wkt2", None)  # the same CRS is written in other words by other versions of PROJ
    return {**place, **times(description), "eo:cloud_cover": description.cloud_percent}


def _place(item: Mapping[str, Any], description: MapDescription) -> Problems:
    """Compare outline and box; another version of PROJ may move them by less than a pixel."""
    place = footprint(description.grid)
    if place is None:
        return () if item.get("geometry") is None else ("it has an outline, but the map does not tell where it lies",)
    outline, box = place
    try:
        stated, right = shape(item["geometry"]), shape(outline)
        is_same = stated.symmetric_difference(right).area <= PLACE_TOLERANCE * right.area
        is_same = is_same and all(abs(a - b) < DEGREES_TOLERANCE for a, b in zip(item["bbox"], box, strict=True))
    except (ShapelyError, ValueError, LookupError, TypeError, AttributeError):
        is_same = False
    return () if is_same else ("its outline or box is not that of the map",)


def _labels(stated: Mapping[str, Any], map_path: Path, description: MapDescription) -> Problems:
    found = _differences(stated, {"geoseg:pixels_sha256": description.tags[PIXELS_TAG]})
    if unquote(str(stated.get("href"))) != f"./{map_path.name}":
        found += (f"its asset labels is {stated.get('href')}, not this map",)
    classes, expected = stated.get("classification:classes"), class_objects(description)
    if not isinstance(classes, list) or len(classes) != len(expected):
        return (*found, "its classes are not those of the legend")
    for row, right in zip(classes, expected, strict=True):
        wrong = _differences(row, right) if isinstance(row, dict) else ("it is no object",)
        found += tuple(f"class {right['value']}: {text}" for text in wrong)
    return found


def _asset(key: str, stated: Any, map_path: Path) -> Problems:
    """Size and checksum of a raster near the map; others are not looked for."""
    href = stated.get("href") if isinstance(stated, dict) else None
    if not isinstance(href, str):
        return (f"{key}: it has no href",)
    folder = map_path.absolute().parent
    path = folder / unquote(href)
    if near_href(path, folder) != href:
        return (f"{key}: {href} does not lie near the map",)
    if not path.is_file():
        return (f"{key}: {href} is not there",)
    try:
        expected = {"file:size": path.stat().st_size, "file:checksum": checksum(path)}
    except OSError as error:
        return (f"{key}: {href} cannot be read ({error.strerror})",)
    return tuple(f"{key}: {text}" for text in _differences(stated, expected))


def _differences(stated: Mapping[str, Any], expected: Mapping[str, Any]) -> Problems:
    return tuple(
        f"{name} is {stated.get(name)!r:.80}, it should be {right!r:.80}"
        for name, right in expected.items()
        if not _agree(stated.get(name), right)
    )


def _agree(stated: Any, right: Any) -> bool:
    if isinstance(right, float):
        return isinstance(stated, int | float) and math.isclose(stated, right, rel_tol=1e-6, abs_tol=1e-5)
    return bool(stated == right)
