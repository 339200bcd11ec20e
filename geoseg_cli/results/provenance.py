"""The tags of a map as lines for a person."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from geoseg_cli.results.description import ACQUIRED_TAG, PIXELS_TAG


def provenance_rows(tags: Mapping[str, str]) -> list[tuple[str, str]]:
    """Title and text of everything that a map's tags say of how it was made; what they do not say is left out."""
    return [(title, reader(tags[tag])) for title, tag, reader in _ROWS if tags.get(tag)]


def _as_it_is(text: str) -> str:
    return text


def _bands(text: str) -> str:
    """``red=4 (B04), nir absent`` of the list that a run writes."""
    try:
        return ", ".join(_band(row["band"], row["index"], row["name"], row.get("filled")) for row in json.loads(text))
    except (ValueError, KeyError, TypeError, RecursionError):
        return text


def _band(band: str, index: int | None, name: str | None, filled: float | None) -> str:
    if filled is not None:
        return f"{band} filled with {filled:g}"
    if index is None:
        return f"{band} absent"
    return f"{band}={index}" + (f" ({name})" if name else "")


def _reason(text: str) -> str:
    """Why numbers mean what they mean."""
    try:
        return str(json.loads(text)["reason"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return text


def _metres(text: str) -> str:
    try:
        height, width = json.loads(text)
        return f"{float(height):.4g} × {float(width):.4g} m"
    except (ValueError, TypeError, RecursionError):
        return text


def _bytes(text: str) -> str:
    return f"{int(text):,} bytes" if text.isascii() and text.isdigit() else text


def _date(text: str) -> str:
    """TIFF's ``2024:05:06 07:08:09`` as other dates are written."""
    date, blank, time = text.partition(" ")
    return f"{date.replace(':', '-')}T{time}Z" if blank else text


_ROWS: tuple[tuple[str, str, Callable[[str], str]], ...] = (
    ("Scene", "GEOSEG_INPUT", _as_it_is),
    ("Size of its files", "GEOSEG_INPUT_BYTES", _bytes),
    ("Taken", ACQUIRED_TAG, _as_it_is),
    ("Bands", "GEOSEG_BANDS", _bands),
    ("Numbers", "GEOSEG_RADIOMETRY", _reason),
    ("Nodata", "GEOSEG_NODATA", _as_it_is),
    ("Pixels that the network saw", "GEOSEG_GSD", _metres),
    ("Orientation", "GEOSEG_ORIENTATION", _as_it_is),
    ("Model", "GEOSEG_MODEL", _as_it_is),
    ("SHA-256 of its network", "GEOSEG_MODEL_SHA256", _as_it_is),
    ("Legend", "GEOSEG_LEGEND", _as_it_is),
    ("Tiles", "GEOSEG_TILE", _as_it_is),
    ("Overlap", "GEOSEG_OVERLAP", _as_it_is),
    ("Blend", "GEOSEG_BLEND", _as_it_is),
    ("Augmentation", "GEOSEG_TTA", _as_it_is),
    ("Temperature", "GEOSEG_TEMPERATURE", _as_it_is),
    ("Engine", "GEOSEG_ENGINE", _as_it_is),
    ("Device", "GEOSEG_DEVICE", _as_it_is),
    ("Precision", "GEOSEG_PRECISION", _as_it_is),
    ("Made by", "TIFFTAG_SOFTWARE", _as_it_is),
    ("Made", "TIFFTAG_DATETIME", _date),
    ("SHA-256 of the pixels", PIXELS_TAG, _as_it_is),
)
