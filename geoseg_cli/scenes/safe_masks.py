"""Quality masks of the bands of a Sentinel-2 product, rasters since processing baseline 04.00.

``MSK_QUALIT_B02.jp2`` has eight bands of 0 and 1, in the order of the Sentinel-2 Products Specification Document:
ancillary data lost, ancillary data degraded, image data lost, image data degraded, defective, no data, partially
corrected, saturated. What is degraded or corrected is less exact, but there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from xml.etree.ElementTree import Element

from geoseg_cli.errors import InputError
from geoseg_cli.scenes.product import BandMask, Driver
from geoseg_cli.scenes.sentinel2_metadata import BAND_IDS, PLAIN_NAME
from geoseg_cli.scenes.xml_text import elements

GRANULE_METADATA: Final = "MTD_TL.xml"
"""Lists the masks; lies in the granule's folder."""

_LOST: Final = (1, 3, 5, 6)
_SATURATED: Final = (8,)
_ENDING: Final = ".jp2"


def listed_masks(root: Element, where: str) -> Mapping[str, str]:
    """Names of the raster masks by band, as paths from the product folder without their ending.

    Args:
        root: Granule metadata.
        where: What error messages call them.

    Raises:
        InputError: A name may lead out of the product, or a band has two masks.
    """
    found: dict[str, str] = {}
    for element in elements(root, "MASK_FILENAME"):
        name, band_id = (element.text or "").strip(), element.get("bandId", "")
        if element.get("type") != "MSK_QUALIT" or not name.endswith(_ENDING):
            continue  # until baseline 04.00 masks were polygons
        if not (band_id.isascii() and band_id.isdigit() and int(band_id) < len(BAND_IDS)):
            raise InputError(f"{where}: a mask names the unknown band {band_id[:20]!r}", "download the product again")
        stem = name.removesuffix(_ENDING)
        if not all(PLAIN_NAME.fullmatch(part) and part.strip(".") for part in stem.split("/")):
            raise InputError(
                f"{where}: the mask name {name[:120]!r} may lead out of the product",
                "download the product again, from a source that you trust",
            )
        if found.setdefault(BAND_IDS[int(band_id)], stem) != stem:
            raise InputError(f"{where} lists two masks of {BAND_IDS[int(band_id)]}", "download the product again")
    return found


def band_mask(file: str, driver: Driver) -> BandMask:
    """What a mask says of its band's pixels."""
    return BandMask(file, driver, _LOST, _SATURATED, "lost, defective or no data in MSK_QUALIT")
