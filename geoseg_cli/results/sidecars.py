"""Files beside a raster: those that readers take together with it, and those in which geoseg describes a map."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from geoseg_cli.results.qgis_style import MARK
from geoseg_cli.results.stac import SOFTWARE, near_href

Sidecar = Literal["attributes", "style", "item"]

IMAGE_SUFFIXES = frozenset({".tif", ".tiff", ".png", ".jpg", ".jpeg", ".jp2"})

MAP_SUFFIXES = frozenset({".tif", ".tiff"})

SCENE_LIKE_SUFFIXES = MAP_SUFFIXES | {".jp2"}
"""Not pictures, which may be those of a map."""

ATTACHED_ENDINGS = (".aux.xml", ".ovr", ".ovr.aux.xml", ".msk", ".msk.ovr")
"""GDAL: persistent metadata, external overviews, external masks (gdal.org, drivers/raster/gtiff, PAM)."""

MOST_BYTES = 16 << 20
"""Longest description that is read; ours have some kilobytes."""


def sidecar_paths(raster: Path) -> dict[Sidecar, Path]:
    """Where geoseg describes a map.

    ``attributes`` are names and attribute table for GDAL (``MAP.tif.aux.xml``), ``style`` is for QGIS (``MAP.qml``),
    ``item`` is the entry for a STAC catalogue (``MAP.json``).
    """
    return {
        "attributes": raster.with_name(f"{raster.name}.aux.xml"),
        "style": raster.with_suffix(".qml"),
        "item": raster.with_suffix(".json"),
    }


def sidecars(raster: Path) -> Iterator[Path]:
    """The sidecars that are there: metadata, overviews, masks and world files.

    Args:
        raster: Path of an image, which itself need not exist; other files have no sidecars.
    """
    suffix = raster.suffix.lower()
    if suffix not in IMAGE_SUFFIXES:
        return
    # World files belong to any image of that stem, perhaps to the scene itself or to somebody's photograph.
    world = set() if _shares_its_stem(raster) else {f"{suffix}w", f".{suffix[1]}{suffix[-1]}w", ".wld"}
    names = {raster.name + end for end in ATTACHED_ENDINGS}
    names |= {raster.stem + end for end in world | {end.upper() for end in world}}
    for name in sorted(names):
        sidecar = raster.with_name(name)
        if os.path.lexists(sidecar) and not os.path.isdir(sidecar):  # unlike Path's, these bear names too long to exist
            yield sidecar


def described_by_geoseg(raster: Path) -> Iterator[Path]:
    """Style and catalogue entry beside a raster that geoseg wrote, and nobody since.

    Args:
        raster: Path of an image, which itself need not exist; other files have none.
    """
    suffix = raster.suffix.lower()
    # A picture of a map lies beside it under its stem; what is said there is said of the map.
    if suffix not in IMAGE_SUFFIXES or (suffix not in MAP_SUFFIXES and _shares_its_stem(raster)):
        return
    paths = sidecar_paths(raster)
    if described_instead(raster) is not None:
        return
    if MARK in (read_sidecar(paths["style"]) or ""):
        yield paths["style"]
    if _is_own_item(read_sidecar(paths["item"]) or ""):
        yield paths["item"]


def described_instead(raster: Path) -> Path | None:
    """The other raster of the same stem that style and catalogue entry there describe; None where there is none.

    The entry names its raster. Where it does not name this one, what is there belongs to the other.

    Args:
        raster: Path of an image, which itself need not exist.
    """
    others = [
        other
        for suffix in sorted(SCENE_LIKE_SUFFIXES)
        for spelling in (suffix, suffix.upper())
        if os.path.exists(other := raster.with_name(raster.stem + spelling)) and not _is_same(raster, other)
    ]
    if not others or raster.suffix.lower() not in SCENE_LIKE_SUFFIXES:
        return None
    text = read_sidecar(sidecar_paths(raster)["item"]) or ""
    return None if _is_own_item(text) and _raster_of(text) == near_href(raster, raster.parent) else others[0]


def read_sidecar(path: Path) -> str | None:
    """The text of a sidecar; None where there is none, and for what cannot be one of ours."""
    try:
        # Not a pipe, which would wait, and not a file of any length.
        if not path.is_file() or path.stat().st_size > MOST_BYTES:
            return None
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None


def _is_own_item(text: str) -> bool:
    try:
        item = json.loads(text)
        return isinstance(item["stac_version"], str) and SOFTWARE in item["properties"]["processing:software"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return False


def _raster_of(text: str) -> str | None:
    """How an item calls its map."""
    try:
        return str(json.loads(text)["assets"]["labels"]["href"])
    except (KeyError, TypeError):
        return None


def _is_same(one: Path, other: Path) -> bool:
    return one.name == other.name or (os.path.exists(one) and os.path.samefile(one, other))


def _shares_its_stem(raster: Path) -> bool:
    others = IMAGE_SUFFIXES - {raster.suffix.lower()}
    names = [raster.stem + spelling for end in others for spelling in (end, end.upper())]
    return any(os.path.exists(raster.with_name(name)) for name in names)
