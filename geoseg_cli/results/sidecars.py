"""Files beside a raster that readers take together with it, and believe more than the raster itself."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

IMAGE_SUFFIXES = frozenset({".tif", ".tiff", ".png", ".jpg", ".jpeg", ".jp2"})

ATTACHED_ENDINGS = (".aux.xml", ".ovr", ".ovr.aux.xml", ".msk", ".msk.ovr")
"""GDAL: persistent metadata, external overviews, external masks (gdal.org, drivers/raster/gtiff, PAM)."""


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


def _shares_its_stem(raster: Path) -> bool:
    others = IMAGE_SUFFIXES - {raster.suffix.lower()}
    names = [raster.stem + spelling for end in others for spelling in (end, end.upper())]
    return any(os.path.exists(raster.with_name(name)) for name in names)
