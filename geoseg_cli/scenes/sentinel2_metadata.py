"""What Sentinel-2 product metadata say of the numbers of the images, whatever folders these lie in.

The elements are those of the Sentinel-2 Products Specification Document, sections on User Product metadata.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal
from xml.etree.ElementTree import Element

from geoseg_cli.errors import InputError, RadiometryError
from geoseg_cli.scenes.product import Driver, Layer, Quality, Statement
from geoseg_cli.scenes.xml_text import elements, local_name, number, only_text

BAND_IDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")
"""Band of each ``band_id`` of the metadata, from 0."""

Level = Literal["L1C", "L2A"]

_LEVELS: dict[str, Level] = {"Level-1C_User_Product": "L1C", "Level-2A_User_Product": "L2A"}
_QUANTIFICATION = {
    "L1C": ("QUANTIFICATION_VALUE",),
    "L2A": ("BOA_QUANTIFICATION_VALUE", "L2A_BOA_QUANTIFICATION_VALUE"),
}
_OFFSET = {"L1C": "RADIO_ADD_OFFSET", "L2A": "BOA_ADD_OFFSET"}
PLAIN_NAME = re.compile(r"[A-Za-z0-9_.-]+")
"""A product name that is safe to show and to join to a path."""
_BASELINE = re.compile(r"(\d\d)\.(\d\d)")
_FIRST_BASELINE_WITH_OFFSET = 400
_AGAIN = "download the product again"


def scene_classification(file: str, driver: Driver) -> Quality:
    """The quality band of level 2A: its classes 0 (no data) and 1 (saturated or defective)."""
    return Quality(Layer("SCL", file, driver, nodata=None), (0, 1), 0, "SCL classes 0 and 1")


def level_of(root: Element, where: str) -> Level:
    """The processing level.

    Raises:
        InputError: The document is no product metadata of level 1C or 2A.
    """
    level = _LEVELS.get(local_name(root))
    if level is None:
        raise InputError(f"{where} is no Sentinel-2 L1C or L2A product metadata: {local_name(root)[:60]}", _AGAIN)
    return level


def name_of(root: Element, where: str) -> str:
    """The product's name, ``""`` where it is none."""
    name = only_text(root, where, "PRODUCT_URI", "PRODUCT_URI_2A") or ""
    return name if PLAIN_NAME.fullmatch(name) else ""


def nodata_of(root: Element, where: str) -> float | None:
    """The number that means nothing; None where none is named."""
    for special in elements(root, "Special_Values"):
        if only_text(special, where, "SPECIAL_VALUE_TEXT") == "NODATA":
            return number(only_text(special, where, "SPECIAL_VALUE_INDEX"), "NODATA", where)
    return None


def statement_of(root: Element, level: Level, bands: Sequence[str], metadata: Path) -> Statement | None:
    """What the numbers of the bands mean: reflectance = (DN + offset of the band) / quantification.

    Returns:
        None where a toolbox wrote the product and does not say whether it kept the offset.

    Raises:
        RadiometryError: The metadata do not say what those of their processing baseline must say.
    """
    where, tags, tag = str(metadata), _QUANTIFICATION[level], _OFFSET[level]
    divisor = number(only_text(root, where, *tags), tags[0], where)
    if divisor <= 0:
        raise RadiometryError(f"{where}: {tags[0]} is {divisor:g}, it must be above 0", _AGAIN)
    baseline = only_text(root, where, "PROCESSING_BASELINE")
    offsets = _offsets(root, tag, where)
    if not offsets:
        if baseline == "99.99":
            return None
        _refuse_lost_offsets(baseline, tag, where)
        reason = f"{1 / divisor:g} x DN, as {metadata.name} of processing baseline {baseline} says: it has no {tag}"
        return Statement("metadata", reason, (1 / divisor,) * len(bands), (0.0,) * len(bands))
    lost = [band for band in bands if band not in offsets]
    if lost:
        raise RadiometryError(f"{where} gives {tag} for some bands, but not for {', '.join(lost)}", _AGAIN)
    adds = [offsets[band] for band in bands]
    stated = " or ".join(f"{1 / divisor:g} x {_shifted(add)}" for add in dict.fromkeys(adds))
    reason = f"{stated}, as {tag} in {metadata.name} says"
    return Statement("metadata", reason, (1 / divisor,) * len(bands), tuple(add / divisor for add in adds))


def _shifted(add: float) -> str:
    return f"(DN {'-' if add < 0 else '+'} {abs(add):g})" if add else "DN"


def _offsets(root: Element, tag: str, where: str) -> dict[str, float]:
    """What must be added to the numbers of each band; empty where no band is named."""
    offsets: dict[str, float] = {}
    for element in elements(root, tag):
        band_id = element.get("band_id", "")
        if not (band_id.isascii() and band_id.isdigit() and int(band_id) < len(BAND_IDS)):
            raise RadiometryError(f"{where}: {tag} names the unknown band {band_id[:20]!r}", _AGAIN)
        band, value = BAND_IDS[int(band_id)], number(element.text, tag, where)
        if offsets.setdefault(band, value) != value:
            raise RadiometryError(f"{where} gives two values of {tag} for {band}", _AGAIN)
    return offsets


def _refuse_lost_offsets(baseline: str | None, tag: str, where: str) -> None:
    """Without a list of offsets there is none, but only before baseline 04.00."""
    found = _BASELINE.fullmatch(baseline or "")
    if found is None:
        raise RadiometryError(
            f"{where} has neither {tag} nor a readable PROCESSING_BASELINE: {str(baseline)[:20]!r}", _AGAIN
        )
    if int(found[1] + found[2]) >= _FIRST_BASELINE_WITH_OFFSET:
        raise RadiometryError(
            f"{where} contradicts itself: processing baseline {baseline} has offsets, but no {tag} is there", _AGAIN
        )
